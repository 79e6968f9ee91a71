"""A custom estimator: say what each sample's coefficients are, as functions of the log weights."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

import iwae


class Tempered(iwae.WeightedEstimator):
    """IWAE's decoder; the encoder's path derivatives weighted by the squares of weights to the power of one half."""

    derivative: ClassVar = "path"

    def coefficients(self, log_weights):
        shares = jax.nn.softmax(log_weights, axis=0)
        return iwae.Coefficients(
            bound=iwae.bounds.iwae(log_weights),
            decoder=shares,
            encoder=jnp.square(jax.nn.softmax(0.5 * log_weights, axis=0)),
        )


rng = np.random.default_rng(0)
rows = (rng.random((400, 20)) < rng.random((4, 20))[rng.integers(4, size=400)]).astype(np.uint8)
model = iwae.create_model(rows, iwae.Architecture(20, latent=(3,), hidden=((32,),)))
for name, estimator in (("tempered", Tempered(8)), ("DReG", iwae.make_estimator("iwae:dreg", k=8))):
    bounds: list[float] = []
    iwae.fit(model, rows, estimator, epochs=20, callback=lambda progress, b=bounds: b.append(progress.bound))
    print(f"{name}: L_8 from {bounds[0]:.2f} to {bounds[-1]:.2f} nats")
