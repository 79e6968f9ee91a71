"""What an estimator is: (model, x, key) -> the bound's value and a gradient estimate; and what several use."""

import abc
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Key

from iwae.errors import IWAEError, check_count
from iwae.estimators.gradients import Coefficients, EncoderDerivative, Latents, weighted_gradient
from iwae.estimators.subsampling import choose
from iwae.models.vae import HierarchicalVAE


class Estimate(NamedTuple):
    """A loss to be minimized: `value` is minus the bound's mean over the batch, in nats, and `gradient` estimates the
    derivative of just that, in the shape of the model, so that

        updates, state = optimizer.update(estimate.gradient, state, model)
        model = eqx.apply_updates(model, updates)

    is a step of any optimizer of Optax.
    """

    value: Float[Array, ""]
    gradient: HierarchicalVAE


class Estimator(eqx.Module):
    """Turns a model, a batch and a key into an `Estimate`. `x` is `[batch, visible]`, prepared."""

    @abc.abstractmethod
    def __call__(self, model: HierarchicalVAE, x: Float[Array, "batch visible"], key: Key[Array, ""]) -> Estimate:
        """The loss and an estimate of its gradient, from draws that depend on `key` alone."""

    def __repr__(self) -> str:
        fields = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return f"{type(self).__name__}({', '.join(f'{name}={_shown(value)}' for name, value in fields)})"

    def at(self, step: Int[Array, ""]) -> "Estimator":
        """The estimator as it is at a training step, from 0: itself, unless a parameter of it changes in training."""
        return self


class WeightedEstimator(Estimator):
    """An estimator that is given by each sample's coefficients. Subclass it to add one:

    `derivative` says which derivative the encoder's coefficients multiply (see `iwae.estimators.gradients`), and
    `coefficients` computes them. `num_samples` posterior samples are drawn per example. With `num_backward` all of
    them count, but only so many go through the backward pass, drawn anew each time by the size of their coefficients
    (see `iwae.estimators.subsampling.choose`): k samples then cost little more than their forward pass. Neither the
    value nor the gradient's expectation changes.
    """

    derivative: ClassVar[EncoderDerivative]
    least_samples: ClassVar[int] = 1
    """Fewer give it nothing to compare."""
    num_samples: int = eqx.field(static=True)
    num_backward: int | None = eqx.field(static=True, default=None, kw_only=True)

    def __check_init__(self) -> None:
        """Raises IWAEError for fewer samples than it needs, for fewer than one or more than all of them to go backward,
        and for a class without a derivative.
        """
        why = f" for {type(self).__name__}" if self.least_samples > 1 else ""
        check_count("num_samples", self.num_samples, self.least_samples, why)
        if self.num_backward is not None:
            check_count("num_backward", self.num_backward)
            if self.num_backward > self.num_samples:
                raise IWAEError(
                    f"num_backward must be at most num_samples, which is {self.num_samples}, got {self.num_backward}"
                )
        if not hasattr(self, "derivative"):
            raise IWAEError(
                f"{type(self).__name__} needs a derivative: total, path or score (see iwae.estimators.gradients)"
            )

    @abc.abstractmethod
    def coefficients(self, log_weights: Float[Array, "k batch"]) -> Coefficients:
        """The bound and each sample's coefficients, for log weights `[k, batch]`."""

    def noise(self, model: HierarchicalVAE, key: Key[Array, ""], batch: int) -> Latents:
        """Standard normal noise `[k, batch, units]` of each stochastic layer, from which the samples are made."""
        return model.draw_noise(key, self.num_samples, batch)

    def gradient(
        self,
        model: HierarchicalVAE,
        x: Float[Array, "batch visible"],
        noise: Latents,
        coefficients: Callable[[Float[Array, "k batch"]], Coefficients],
    ) -> tuple[Float[Array, " batch"], HierarchicalVAE]:
        """The bound and the gradient of the loss at given noise, as `weighted_gradient` has them."""
        return weighted_gradient(model, x, noise, coefficients, self.derivative)

    def __call__(self, model: HierarchicalVAE, x: Float[Array, "batch visible"], key: Key[Array, ""]) -> Estimate:
        return _weighted_estimate(self, model, x, key)


@eqx.filter_jit
def _weighted_estimate(
    estimator: WeightedEstimator, model: HierarchicalVAE, x: Float[Array, "batch visible"], key: Key[Array, ""]
) -> Estimate:
    """One program, also for those who call an estimator outside a compiled step: it has hundreds of operations."""
    if estimator.num_backward is None:
        bound, gradient = estimator.gradient(model, x, estimator.noise(model, key, x.shape[0]), estimator.coefficients)
        return Estimate(-jnp.mean(bound), gradient)
    noise_key, choice_key = jax.random.split(key)
    noise = estimator.noise(model, noise_key, x.shape[0])
    coefficients = estimator.coefficients(model.log_weights_at(x, noise))
    offsets = jax.random.uniform(choice_key, x.shape[:1], coefficients.bound.dtype)
    chosen, few = choose(coefficients, estimator.num_backward, offsets)
    few_noise = tuple(jnp.take_along_axis(layer, chosen[..., None], axis=0) for layer in noise)
    bound, gradient = estimator.gradient(model, x, few_noise, lambda _: few)
    return Estimate(-jnp.mean(bound), gradient)


def traced(value: float | int) -> Float[Array, ""]:
    """A number as an argument of the compiled step, not a part of it: another value needs no compilation. It does not
    change the type of what it meets.
    """
    return jnp.asarray(float(value))


def normalized_weights(log_weights: Float[Array, "k batch"]) -> Float[Array, "k batch"]:
    """w~_i = w_i / sum_j w_j."""
    return jax.nn.softmax(log_weights, axis=0)


def into_groups(log_weights: Float[Array, "k batch"], num_groups: int) -> Float[Array, "m n batch"]:
    """`[m n, batch]` as m groups, `[m, n, batch]`."""
    return log_weights.reshape(num_groups, -1, log_weights.shape[1])


def weights_within_groups(log_weights: Float[Array, "k batch"], num_groups: int) -> Float[Array, "k batch"]:
    """Weights normalized within each of the groups, `[k, batch]`."""
    return jax.nn.softmax(into_groups(log_weights, num_groups), axis=1).reshape(log_weights.shape)


def check_groups(num_samples: int, num_groups: int) -> None:
    """Raises IWAEError when the samples can't be divided into groups of one size."""
    check_count("num_groups", num_groups)
    if num_samples % num_groups:
        raise IWAEError(f"{num_samples} samples can't be divided into {num_groups} groups")


def _shown(value: Any) -> str:
    """A parameter for people: numbers as numbers, functions by their names and what is set in them."""
    if isinstance(value, partial):  # jax.tree_util.Partial is one.
        parts = [*map(_shown, value.args), *(f"{name}={_shown(each)}" for name, each in value.keywords.items())]
        return f"{_shown(value.func)}({', '.join(parts)})"
    if isinstance(value, jax.Array | float) and jnp.ndim(value) == 0 and not isinstance(value, Tracer):
        return f"{float(value):g}"
    return getattr(value, "__name__", None) or repr(value)
