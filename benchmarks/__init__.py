"""What training and measuring cost, beside PyTorch and beside their matrix products alone: `make bench`."""
