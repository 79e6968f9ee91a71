"""Models whose likelihood, posterior and ELBO are known in closed form: x = W h_1 + b + noise, Gaussian throughout.

W has orthogonal columns and the map from h_2 to h_1 is diagonal, so that exact posteriors are diagonal Gaussians
and fit the encoder's family.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from scipy import stats

from iwae.models.layers import GaussianLayer
from iwae.models.networks.base import Linear
from iwae.models.networks.tanh import TanhNetwork
from iwae.models.vae import HierarchicalVAE


def linear(weight: np.ndarray, bias: np.ndarray) -> Linear:
    """A layer with given weights `[in, out]`."""
    return Linear(jnp.asarray(weight), jnp.asarray(bias))


def gaussian(weight: np.ndarray, bias: np.ndarray, sigma: np.ndarray) -> GaussianLayer:
    """N(input @ weight + bias, sigma^2), with a constant sigma `[out]`."""
    return GaussianLayer(TanhNetwork(()), linear(weight, bias), linear(np.zeros_like(weight), np.log(sigma)))


@dataclass(frozen=True)
class LinearGaussian:
    """p(h_2) = N(0, I) (two layers only), p(h_1 | h_2) = N(a h_2, t^2), p(x | h_1) = N(W h_1 + b, s^2)."""

    loadings: np.ndarray  # W, [latent, visible], orthogonal rows
    bias: np.ndarray  # b, [visible]
    sigma: np.ndarray  # s, the same for every visible unit, [visible]
    scale: np.ndarray | None  # a, [latent]; None for one layer
    inner_sigma: np.ndarray | None  # t, [latent]

    @classmethod
    def random(cls, layers: int, seed: int = 0, latent: int = 2, visible: int = 4) -> "LinearGaussian":
        rng = np.random.default_rng(seed)
        orthogonal = np.linalg.qr(rng.normal(size=(visible, latent)))[0].T
        return cls(
            loadings=orthogonal * rng.uniform(0.8, 1.5, size=(latent, 1)),
            bias=rng.normal(size=visible),
            sigma=np.full(visible, 0.7),
            scale=rng.uniform(0.5, 1.2, size=latent) if layers == 2 else None,
            inner_sigma=rng.uniform(0.5, 0.9, size=latent) if layers == 2 else None,
        )

    @property
    def prior_variance(self) -> np.ndarray:
        """Variance of h_1 before x is seen, `[latent]`."""
        if self.scale is None or self.inner_sigma is None:
            return np.ones(len(self.loadings))
        return self.scale**2 + self.inner_sigma**2

    def log_likelihood(self, x: np.ndarray) -> np.ndarray:
        """Exact log p(x), `[batch]`."""
        covariance = self.loadings.T @ np.diag(self.prior_variance) @ self.loadings + np.diag(self.sigma**2)
        return np.atleast_1d(stats.multivariate_normal.logpdf(x, self.bias, covariance))  # pyright: ignore[reportArgumentType]

    def sample(self, num: int, seed: int = 1) -> np.ndarray:
        """Data from the model, `[num, visible]`."""
        rng = np.random.default_rng(seed)
        h = rng.normal(size=(num, len(self.loadings))) * np.sqrt(self.prior_variance)
        return h @ self.loadings + self.bias + rng.normal(size=(num, len(self.bias))) * self.sigma

    def posterior(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weight `[visible, latent]`, bias and sigma `[latent]` of the exact q(h_1 | x)."""
        precision = 1.0 / self.prior_variance + np.sum(self.loadings**2, axis=1) / self.sigma[0] ** 2
        weight = self.loadings.T / self.sigma[0] ** 2 / precision
        return weight, -self.bias @ weight, np.sqrt(1.0 / precision)

    def model(self, *, shift: float = 0.0, widen: float = 1.0) -> HierarchicalVAE:
        """The model with the exact posterior as encoder, its first layer's mean shifted and sigma widened."""
        weight, bias, sigma = self.posterior()
        encoder = [gaussian(weight, bias + shift, sigma * widen)]
        decoder = [gaussian(self.loadings, self.bias, self.sigma)]
        if self.scale is not None and self.inner_sigma is not None:
            precision = 1.0 + self.scale**2 / self.inner_sigma**2
            gain = self.scale / self.inner_sigma**2 / precision
            zeros = np.zeros(len(gain))
            encoder.append(gaussian(np.diag(gain), zeros, np.sqrt(1.0 / precision)))
            decoder.append(gaussian(np.diag(self.scale), zeros, self.inner_sigma))
        return HierarchicalVAE(tuple(encoder), tuple(decoder))

    def gap(self, *, shift: float, widen: float) -> float:
        """log p(x) - ELBO = KL(q || posterior), the same for every x, when only the first layer is off."""
        _, _, sigma = self.posterior()
        return float(np.sum(0.5 * (widen**2 + shift**2 / sigma**2 - 1.0) - np.log(widen)))
