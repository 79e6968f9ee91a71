"""A custom likelihood: counts, as independent Poissons. Subclass `Likelihood`, and everything else follows."""

import jax
import jax.numpy as jnp
import numpy as np

import iwae


class Poisson:
    """Independent Poissons with the logarithms of their rates: what can be scored and has a mean is a distribution."""

    def __init__(self, log_rate):
        self.log_rate = log_rate

    @property
    def mean(self):
        return jnp.exp(self.log_rate)

    def log_prob(self, value, observed=None):
        terms = value * self.log_rate - jnp.exp(self.log_rate) - jax.scipy.special.gammaln(value + 1.0)
        return jnp.sum(terms if observed is None else jnp.where(observed, terms, 0.0), axis=-1)


class PoissonLikelihood(iwae.Likelihood):
    """One output for each unit: the logarithm of its rate."""

    name, words = "poisson", "Poisson"

    def distribution(self, outputs):
        return Poisson(outputs)

    def initial_bias(self, rows):
        return np.log(rows.mean(axis=0) + 1e-3)


rng = np.random.default_rng(0)
rates = np.exp(rng.normal(size=(600, 1)) * rng.normal(size=(1, 8)) + 1.0)
counts = rng.poisson(rates).astype(np.float32)
data = iwae.Dataset.from_arrays(counts[:500], counts[500:], likelihood=PoissonLikelihood())
start = iwae.create_model(data, iwae.Architecture(8, latent=(2,), hidden=((32,),)))
model = iwae.fit(start, data, iwae.make_estimator("iwae:dreg", k=8), epochs=30, learning_rate=3e-3)
for name, each in (("before", start), ("after", model)):
    print(f"{name}: log p(x) = {iwae.log_likelihood(each, data.test, num_samples=500).mean():.2f} nats")
