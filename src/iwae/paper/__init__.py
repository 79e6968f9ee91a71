"""The paper's experiments as data, how far each has been repeated, and what runs the rest."""
