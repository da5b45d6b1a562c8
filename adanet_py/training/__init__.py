"""Training of groups of candidates: engines, optimizers, schedules, losses, the rung loop."""
