"""Training: optimizers, schedules, the compiled step and the loop around it."""
