"""A convolutional encoder: any Equinox module from one example to features."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import iwae


class Convolutions(eqx.Module):
    """Two convolutions with stride 2 over an image of 12 x 12, which comes as a vector."""

    first: eqx.nn.Conv2d
    second: eqx.nn.Conv2d

    def __init__(self, key):
        keys = jax.random.split(key)
        self.first = eqx.nn.Conv2d(1, 8, kernel_size=3, stride=2, padding=1, key=keys[0])
        self.second = eqx.nn.Conv2d(8, 16, kernel_size=3, stride=2, padding=1, key=keys[1])

    def __call__(self, x):
        image = jax.nn.relu(self.first(x.reshape(1, 12, 12)))
        return jnp.ravel(jax.nn.relu(self.second(image)))


# Images of one bright bar each, upright or lying.
rng = np.random.default_rng(0)
images = np.full((500, 12, 12), 0.05, np.float32)
for image, place, upright in zip(images, rng.integers(12, size=500), rng.random(500) < 0.5, strict=True):
    (image.T if upright else image)[place] = 0.95

decoder = eqx.nn.MLP(4, 64, 64, depth=1, activation=jax.nn.relu, final_activation=jax.nn.relu, key=jax.random.key(1))
model = iwae.create_model(images, encoder=[Convolutions(jax.random.key(0))], decoder=[decoder], latent=[4])
before = iwae.log_likelihood(model, images[:50], num_samples=200).mean()
model = iwae.fit(model, images, iwae.make_estimator("iwae", k=5), epochs=15)
after = iwae.log_likelihood(model, images[:50], num_samples=200).mean()
print(f"log p(x): {before:.1f} before, {after:.1f} nats after")
print("codes:", iwae.encode(model, images).shape)
