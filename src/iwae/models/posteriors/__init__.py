"""Families of the encoder's Gaussian layers, by name (no JAX is imported here). A new one is a file, and a line below.

Its class is a `ConditionalLayer` with `create(n_in, hidden, n_out, key, network, **options)` and `settings`, the
options that it was made with.
"""

from iwae.models.registry import Kind

POSTERIORS = {
    "diagonal": Kind("layers.GaussianLayer"),
    "full-covariance": Kind("posteriors.full_covariance.FullCovarianceLayer"),
    "flow": Kind("posteriors.flow.FlowLayer", ("flow_layers", "flow_hidden")),
}
