"""Models: what p and q are, and the distributions and networks that they are made of."""
