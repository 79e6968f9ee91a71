"""Evaluation: arrays in, arrays out."""
