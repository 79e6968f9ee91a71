"""Pictures: arrays in, matplotlib figures and PNG out."""
