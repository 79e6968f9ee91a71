"""One HTML page that holds a model and computes with it: a slider for each active latent unit, draws from the prior,
encoded test examples.
"""
