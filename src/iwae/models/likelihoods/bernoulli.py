"""Binary data, and grey values as probabilities of ones."""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from iwae.errors import IWAEError
from iwae.models.distributions import Bernoulli, bernoulli_log_prob, bernoulli_log_prob_and_residual
from iwae.models.likelihoods.base import Likelihood, has_missing
from iwae.models.matmul import product, product_over_rows
from iwae.models.networks.base import Linear

MEAN_CLIP = 0.001
# How far rounding may carry a probability over its ends.
TOLERANCE = 1e-6


class BernoulliLikelihood(Likelihood):
    """Independent Bernoullis of zeros and ones.

    Rows are probabilities: floating point numbers in [0, 1], or integers that are multiplied by `scale` (1/255 for
    grey values). With `resample` each use draws a new binary vector from them (Burda et al. 2015); without it they
    are zeros and ones, and scored as they are.
    """

    name: ClassVar[str] = "bernoulli"
    words: ClassVar[str] = "Bernoulli"
    scale: float = eqx.field(static=True, default=1.0)
    resample: bool = eqx.field(static=True, default=True)

    @classmethod
    def of_data(
        cls, rows: np.ndarray, *, scale: float = 1.0, binary: bool = False, levels: Sequence[int] = ()
    ) -> "BernoulliLikelihood":
        return cls(scale, not binary, missing=has_missing(rows))

    def check(self, rows: np.ndarray, what: str) -> None:
        super().check(rows, what)
        if not rows.size:
            return
        if not self.resample and not np.isin(rows[~np.isnan(rows)] if self.missing else rows, (0, 1)).all():
            raise IWAEError(f"the values of the {what} must be zeros and ones: the model was trained on such")
        factor = 1.0 if rows.dtype.kind == "f" else self.scale
        low, high = np.nanmin(rows) * factor, np.nanmax(rows) * factor
        if low < -TOLERANCE or high > 1.0 + TOLERANCE:
            raise IWAEError(
                f"the values of the {what} ({rows.dtype}) reach from {np.nanmin(rows):g} to {np.nanmax(rows):g}, but"
                " the Bernoulli likelihood scores numbers in [0, 1] or uint8 grey values: scale them, or use"
                " `likelihood` gaussian"
            )

    def prepare(self, rows: Array, key: Key[Array, ""]) -> Float[Array, "*rows dim"]:
        values = rows.astype(jnp.float32)
        if not self.resample:
            return values
        probabilities = values if jnp.issubdtype(rows.dtype, jnp.floating) else values * self.scale
        # Draws are from [0, 1): probability 1 always gives a one, probability 0 never.
        drawn = (jax.random.uniform(key, values.shape) < probabilities).astype(jnp.float32)
        return jnp.where(jnp.isnan(probabilities), jnp.nan, drawn) if self.missing else drawn

    def distribution(self, outputs: Float[Array, "*rows dim"]) -> Bernoulli:
        return Bernoulli(outputs)

    def log_prob(
        self, found: Float[Array, "*rows n"], outputs: Any, value: Float[Array, "*more dim"], observed: Array | None
    ) -> Float[Array, "*rows"]:
        rows = found.shape[:-1]
        if isinstance(outputs, Linear) and jnp.broadcast_shapes(rows, value.shape[:-1]) == rows:
            return linear_bernoulli_log_prob(found, outputs, value, observed)
        return Bernoulli(outputs(found)).log_prob(value, observed)

    def initial_bias(self, rows: np.ndarray) -> np.ndarray:
        """The logit of the training mean, clipped to [0.001, 0.999] (the code of Burda et al. 2015)."""
        scale = 1.0 if rows.dtype.kind == "f" else self.scale
        if self.missing:
            mean = np.nan_to_num(np.nanmean(rows, axis=0, dtype=np.float64), nan=0.5)
        else:
            mean = rows.mean(axis=0, dtype=np.float64) * scale
        mean = jnp.clip(jnp.asarray(mean, jnp.float32), MEAN_CLIP, 1.0 - MEAN_CLIP)
        return np.asarray(jnp.log(mean) - jnp.log1p(-mean))


@jax.custom_vjp
def linear_bernoulli_log_prob(
    features: Float[Array, "*rows n_in"],
    linear: Linear,
    value: Float[Array, "*more n_out"],
    observed: Array | None = None,
) -> Float[Array, "*rows"]:
    """log Bernoulli(value; sigmoid(linear(features))) in nats, summed over units, `value` broadcast to the rows.

    Its gradient never scales the array of residuals, value - sigmoid, which over the visible units is the largest of
    a training step: a row's weight goes onto its features instead, of which the paper's networks have a quarter as
    many. Reverse mode only: for forward mode differentiate `Bernoulli(linear(features)).log_prob(value)`.
    """
    if observed is None:
        return bernoulli_log_prob(value, linear(features))
    return bernoulli_log_prob_and_residual(value, linear(features), observed)[0]


def _forward(features: Array, linear: Linear, value: Array, observed: Array | None) -> tuple[Array, tuple[Any, ...]]:
    logits = linear(features)
    log_prob, residual = bernoulli_log_prob_and_residual(value, logits, observed)
    return log_prob, (features, linear, logits, residual, value)


def _backward(saved: tuple[Any, ...], row_weights: Array) -> tuple[Array, Linear, Array, None]:
    features, linear, logits, residual, value = saved
    precision = linear.precision
    to_linear = Linear(
        product_over_rows(row_weights[..., None] * features, residual, precision),
        product_over_rows(row_weights, residual),
        precision,
    )
    row_weights = row_weights[..., None]
    _, to_value = jax.vjp(lambda v: jnp.broadcast_to(v, logits.shape), value)
    to_features = row_weights * product(residual, linear.weight.T, precision)
    return to_features, to_linear, to_value(row_weights * logits)[0], None


linear_bernoulli_log_prob.defvjp(_forward, _backward)
