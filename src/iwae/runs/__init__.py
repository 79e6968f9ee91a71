"""Runs: a configuration, a directory, and what is done with them (train, resume, measure)."""
