"""Priors of the top layer, by name (no JAX is imported here). A new one is a file, and a line below.

Its class is a `Prior` (`iwae.models.distributions`) with `create(units, inputs, key, **options)`, where `inputs` is the
number of those of the encoder's top layer, and `settings`, the options that it was made with.
"""

from iwae.models.registry import Kind

PRIORS = {
    "standard": Kind("distributions.StandardNormal"),
    "mixture": Kind("priors.mixture.Mixture", ("prior_components",)),
    "vampprior": Kind("priors.vampprior.VampPrior", ("prior_components",)),
    "flow": Kind("priors.flow.FlowPrior", ("flow_layers", "flow_hidden")),
}
