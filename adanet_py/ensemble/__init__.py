"""AdaNet: an ensemble grown from trained networks while its objective falls; numpy only."""
