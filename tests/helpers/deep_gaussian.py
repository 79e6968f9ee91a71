"""Linear-Gaussian models of any number of layers, with their exact log p(x) and posterior.

h_L ~ N(0, I), h_l ~ N(a_l h_{l+1}, t_l^2), x ~ N(W h_1 + b, s^2), where W has orthogonal columns, so that the exact
posterior is a chain of diagonal Gaussians.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from helpers.linear_gaussian import gaussian
from iwae.models.vae import HierarchicalVAE


@dataclass(frozen=True)
class DeepGaussian:
    loadings: np.ndarray  # W, [latent, visible], orthogonal rows
    bias: np.ndarray  # b, [visible]
    sigma: float  # s
    scales: tuple[np.ndarray, ...]  # a_1, ..., a_{L-1}, [latent] each
    sigmas: tuple[np.ndarray, ...]  # t_1, ..., t_{L-1}

    @classmethod
    def random(cls, layers: int, seed: int = 0, latent: int = 2, visible: int = 4) -> "DeepGaussian":
        rng = np.random.default_rng(seed)
        orthogonal = np.linalg.qr(rng.normal(size=(visible, latent)))[0].T
        return cls(
            loadings=orthogonal * rng.uniform(0.8, 1.5, size=(latent, 1)),
            bias=rng.normal(size=visible),
            sigma=0.7,
            scales=tuple(rng.uniform(0.5, 1.2, size=latent) for _ in range(layers - 1)),
            sigmas=tuple(rng.uniform(0.5, 0.9, size=latent) for _ in range(layers - 1)),
        )

    @property
    def variances(self) -> list[np.ndarray]:
        """Of every layer before x is seen, h_1 first."""
        found = [np.ones(len(self.loadings))]
        for scale, sigma in zip(self.scales[::-1], self.sigmas[::-1], strict=True):
            found.insert(0, scale**2 * found[0] + sigma**2)
        return found

    @property
    def covariance(self) -> np.ndarray:
        """Of x."""
        return self.loadings.T * self.variances[0] @ self.loadings + self.sigma**2 * np.eye(len(self.bias))

    def log_likelihood(self, x: np.ndarray) -> np.ndarray:
        """Exact log p(x), `[batch]`."""
        return np.atleast_1d(stats.multivariate_normal.logpdf(x, self.bias, self.covariance))  # pyright: ignore[reportArgumentType]

    def sample(self, num: int, seed: int = 1) -> np.ndarray:
        """Data from the model, float32 `[num, visible]`."""
        return np.random.default_rng(seed).multivariate_normal(self.bias, self.covariance, num).astype(np.float32)

    def first_posterior(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weight `[visible, latent]`, bias and sigma `[latent]` of the exact q(h_1 | x)."""
        precision = 1.0 / self.variances[0] + np.sum(self.loadings**2, axis=1) / self.sigma**2
        weight = self.loadings.T / self.sigma**2 / precision
        return weight, -self.bias @ weight, precision**-0.5

    def model(self, *, shift: float = 0.0, widen: float = 1.0) -> HierarchicalVAE:
        """The model in float32 with the exact posterior as encoder, but for the means' shift and the wider sigmas."""
        weight, bias, sigma = self.first_posterior()
        encoder = [gaussian(weight, bias + shift, sigma * widen)]
        decoder = [gaussian(self.loadings, self.bias, np.full(len(self.bias), self.sigma))]
        for scale, inner, below, above in zip(
            self.scales, self.sigmas, self.variances[:-1], self.variances[1:], strict=True
        ):
            gain = scale * above / below
            spread = np.sqrt(above - gain * scale * above)
            encoder.append(gaussian(np.diag(gain), np.full(len(gain), shift), spread * widen))
            decoder.append(gaussian(np.diag(scale), np.zeros(len(gain)), inner))
        return jax.tree.map(jnp.float32, HierarchicalVAE(tuple(encoder), tuple(decoder)))
