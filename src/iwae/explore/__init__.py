"""A local web page on a trained model: a slider for each active latent unit, the prior, encoded test images."""
