"""AdaNet with subnetworks of its own: trained round by round on the loss of the ensemble so far."""
