"""Annealed chains: the path between two densities, the tuning of the moves, and the compiled programs."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from iwae.devices import num_devices, on_every_device, over_devices
from iwae.errors import IWAEError, check_count
from iwae.evaluation import hmc
from iwae.evaluation.batches import pair_keys
from iwae.evaluation.examples import EXAMPLES_AT_ONCE, Batch
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

Start = Literal["encoder", "prior"]

# One compiled program serves any number of examples and chains, always with this many rows on a device, so that nothing
# of an example's figure depends on which others are there: a matrix product of another shape may round otherwise.
ROWS = 256
TUNING_CHAINS = ROWS // EXAMPLES_AT_ONCE

# Where the chains' weights vary least at equal cost: measured on the models of docs/ais.md, where 0.65 is worse.
TARGET_ACCEPTANCE = 0.9
# Moves at the first temperature before the tuning round passes through all of them, with a larger gain.
WARM_UP = 20
WARM_UP_GAIN = 1.0
GAIN = 0.3
# The temperatures lie on a sigmoid from -4 to 4, close together at both ends (Wu et al. 2017).
SIGMOID_REACH = 4.0


@dataclass(frozen=True)
class AnnealedSettings:
    """How chains are run: `chains` for each example, over `steps` temperatures, each with one HMC move of `leapfrogs`
    leapfrog steps, from q(h | x) (`start` "encoder") or from p(h) ("prior").

    Raises IWAEError for a number below 1 or an unknown start.
    """

    chains: int = 16
    steps: int = 100
    leapfrogs: int = 10
    start: Start = "encoder"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("chains", "steps", "leapfrogs"):
            check_count(name, getattr(self, name))
        if self.start not in get_args(Start):
            raise IWAEError(f"`start` must be 'encoder' or 'prior', got {self.start!r}")

    @property
    def weights(self) -> np.ndarray:
        """Weights of the two terms of the target at every temperature, float64 `[steps + 1, 2]`.

        From the encoder the terms are log q(h | x) and log p(x, h), with weights 1 - beta and beta; from the prior they
        are log p(h) and log p(x | h_1), with weights 1 and beta.
        """
        beta = temperatures(self.steps)
        return np.stack([1.0 - beta if self.start == "encoder" else np.ones_like(beta), beta], axis=1)


def temperatures(steps: int) -> np.ndarray:
    """The inverse temperatures beta, float64 `[steps + 1]`, from exactly 0 to exactly 1."""
    sigmoid = 1.0 / (1.0 + np.exp(-np.linspace(-SIGMOID_REACH, SIGMOID_REACH, steps + 1)))
    return (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])


def check_latents(model: HierarchicalVAE) -> None:
    """Raises IWAEError for a model with binary latents."""
    if not model.is_reparameterized:
        raise IWAEError("annealed importance sampling needs Gaussian latent layers, and this model has binary ones")


class Tuned(NamedTuple):
    """What the tuning round fixes: steps at every temperature, in units of `scale`, and their logs."""

    x: Float[Array, "examples visible"]
    indices: Int[Array, " examples"]
    log_steps: Float[Array, "steps examples"]
    scale: Float[Array, "examples dim"]


class Chains(NamedTuple):
    """What chains found, as NumPy arrays: `log_weights` `[rows]` (float64), `acceptance` `[rows, steps]`, and where
    they ended, `[rows, dim]`.
    """

    log_weights: np.ndarray
    acceptance: np.ndarray
    ends: np.ndarray


def tune(model: HierarchicalVAE, batch: Batch, settings: AnnealedSettings) -> Tuned:
    """Step sizes for each example and temperature, from draws that are not used again."""
    key = purpose_key(settings.seed, Purpose.TUNE)
    weights = jnp.asarray(settings.weights, jnp.float32)
    log_steps, scale = _tune(model, batch.x, batch.indices, key, weights, jnp.int32(settings.leapfrogs), settings.start)
    # A chain and its example may lie on different devices.
    return on_every_device(Tuned(batch.x, batch.indices, log_steps, scale))


def run_chains(
    model: HierarchicalVAE,
    tuned: Tuned,
    settings: AnnealedSettings,
    pairs: np.ndarray,
    exact: np.ndarray | None = None,
) -> Chains:
    """The chains given by `pairs` (example in the batch, chain) `[rows, 2]`, with the step sizes of `tuned`.

    With `exact`, one exact draw `[rows, dim]` from each p(h | x), chains go backwards from there. Their log weights
    are those of the forward chains with the same states: the mean of 1 / w is an unbiased estimate of 1 / p(x).
    """
    backwards = exact is not None
    key = purpose_key(settings.seed, Purpose.REVERSE if backwards else Purpose.ANNEAL)
    weights = jnp.asarray(settings.weights, jnp.float32)
    found, size = [], ROWS * num_devices()
    for start in range(0, len(pairs), size):
        chosen = np.minimum(np.arange(start, start + size), len(pairs) - 1)
        ends = over_devices(exact[chosen]) if backwards else None
        rows = over_devices(pairs[chosen].astype(np.int32))
        result = _run(model, tuned, rows, key, weights, jnp.int32(settings.leapfrogs), settings.start, ends)
        count = min(size, len(pairs) - start)
        found.append([np.asarray(array)[:count] for array in result])
    totals, corrections, acceptance, ends = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return Chains(totals.astype(np.float64) + corrections, acceptance, ends)


class _Begin(NamedTuple):
    """Terms of the targets, a draw from the first of them, and the scale of its units, `[rows, dim]` each."""

    terms: tuple[hmc.Term, hmc.Term]
    draw: Float[Array, "rows dim"]
    log_scale: Float[Array, "rows dim"]


def _begin(model: HierarchicalVAE, x: Float[Array, "rows visible"], noise: Array, start: Start) -> _Begin:
    cuts = list(np.cumsum(model.latent)[:-1])
    model = model.with_prior_made()

    def split(flat: Array) -> list[Array]:
        return jnp.split(flat, cuts, axis=-1)

    def log_joint(flat: Array) -> Array:
        return model.log_joint(x, tuple(split(flat)))

    if start == "prior":
        draw, scales = _sample_prior(model, split(noise))

        def log_prior(flat: Array) -> Array:
            return model.log_prior(tuple(split(flat)))

        def log_visible(flat: Array) -> Array:
            return model.log_visible(x, split(flat)[0])

        return _Begin((log_prior, log_visible), draw, scales)

    posteriors, samples = model.sample_posterior(x, tuple(layer[None] for layer in split(noise)))
    first = posteriors[0]

    def log_posterior(flat: Array) -> Array:
        layers = split(flat)
        total = first.log_prob(layers[0])
        for layer, value, below in zip(model.encoder[1:], layers[1:], layers[:-1], strict=True):
            total = total + layer.log_prob(value, below)
        return total

    draw = jnp.concatenate([sample[0] for sample in samples], axis=-1)
    scales = [jnp.broadcast_to(_log_sigma(q), h.shape)[0] for q, h in zip(posteriors, samples, strict=True)]
    return _Begin((log_posterior, log_joint), draw, jnp.concatenate(scales, axis=-1))


def _start_width(model: HierarchicalVAE, start: Start) -> int:
    """How many standard normals a chain's first draw is made from."""
    if start == "encoder":
        return sum(model.latent)
    return sum(model.latent[:-1]) + model.top_prior.noise_width(model.latent[-1])


def _sample_prior(model: HierarchicalVAE, noise: list[Array]) -> tuple[Array, Array]:
    layers = [model.top_prior.sample(noise[-1])]
    scales = [jnp.zeros_like(layers[0])]
    for layer, layer_noise in zip(model.decoder[:0:-1], noise[-2::-1], strict=True):
        conditional = layer(layers[0])
        layers.insert(0, conditional.sample(layer_noise))
        scales.insert(0, _log_sigma(conditional))
    return jnp.concatenate(layers, axis=-1), jnp.concatenate(scales, axis=-1)


def _log_sigma(distribution: Any) -> Array:
    return distribution.log_sigma


def _draw(keys: Key[Array, " rows"], number: int | Array, width: int) -> Float[Array, "rows width"]:
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), (width,)))(keys)


@eqx.filter_jit
def _tune(
    model: HierarchicalVAE,
    x: Float[Array, "examples visible"],
    indices: Int[Array, " examples"],
    key: Key[Array, ""],
    weights: Float[Array, "temperatures 2"],
    leapfrogs: Int[Array, ""],
    start: Start,
) -> tuple[Float[Array, "steps examples"], Float[Array, "examples dim"]]:
    """Stochastic approximation of the step size, along the path, from an example's own chains alone."""
    examples, dim = len(x), sum(model.latent)
    chains = jnp.tile(jnp.arange(TUNING_CHAINS), examples)
    keys = pair_keys(key, jnp.repeat(indices, TUNING_CHAINS), chains)
    begin = _begin(model, jnp.repeat(x, TUNING_CHAINS, axis=0), _draw(keys, 0, _start_width(model, start)), start)
    scale = jnp.exp(jnp.mean(begin.log_scale.reshape(examples, TUNING_CHAINS, dim), axis=1))

    def body(carry: tuple[hmc.Point, Array], step: tuple[Array, Array, Array]) -> tuple[tuple[hmc.Point, Array], Array]:
        point, log_step = carry
        number, target, gain = step
        sizes = jnp.repeat(jnp.exp(log_step)[:, None] * scale, TUNING_CHAINS, axis=0)
        noise = _draw(keys, number, hmc.noise_width(dim))
        point, probability = hmc.move(begin.terms, target, point, sizes, leapfrogs, noise)
        accepted = jnp.mean(probability.reshape(examples, TUNING_CHAINS), axis=1)
        log_step = log_step + gain * (accepted - TARGET_ACCEPTANCE)
        return (point, log_step), log_step

    targets = jnp.concatenate([jnp.repeat(weights[1:2], WARM_UP, axis=0), weights[1:]])
    gains = jnp.where(jnp.arange(len(targets)) < WARM_UP, WARM_UP_GAIN, GAIN)
    first = jnp.full(examples, -0.25 * math.log(dim))
    _, log_steps = jax.lax.scan(
        body, (hmc.evaluate(begin.terms, begin.draw), first), (1 + jnp.arange(len(targets)), targets, gains)
    )
    return log_steps[WARM_UP:], scale


@eqx.filter_jit
def _run(
    model: HierarchicalVAE,
    tuned: Tuned,
    rows: Int[Array, "rows 2"],
    key: Key[Array, ""],
    weights: Float[Array, "temperatures 2"],
    leapfrogs: Int[Array, ""],
    start: Start,
    exact: Float[Array, "rows dim"] | None,
) -> tuple[Float[Array, " rows"], Float[Array, " rows"], Float[Array, "rows steps"], Float[Array, "rows dim"]]:
    """Log weights, as sum and its correction, acceptance, and last positions, with every step size given."""
    examples, chains = rows[:, 0], rows[:, 1]
    dim = sum(model.latent)
    keys = pair_keys(key, tuned.indices[examples], chains)
    begin = _begin(model, tuned.x[examples], _draw(keys, 0, _start_width(model, start)), start)
    scale = tuned.scale[examples]

    def body(
        carry: tuple[hmc.Point, Array, Array], step: tuple[Array, ...]
    ) -> tuple[tuple[hmc.Point, Array, Array], Array]:
        point, total, correction = carry
        number, before, target, log_step = step
        sizes = jnp.exp(log_step[examples])[:, None] * scale
        noise = _draw(keys, number, hmc.noise_width(dim))
        # Forwards, the weight is that of the state before it moves; backwards, of the state that the move ends in.
        if exact is None:
            total, correction = _add(total, correction, hmc.weighted(target - before, point.values))
        point, probability = hmc.move(begin.terms, target, point, sizes, leapfrogs, noise)
        if exact is not None:
            total, correction = _add(total, correction, hmc.weighted(target - before, point.values))
        return (point, total, correction), probability

    zeros = jnp.zeros(len(rows))
    first = hmc.evaluate(begin.terms, begin.draw if exact is None else exact)
    steps = (1 + jnp.arange(len(weights) - 1), weights[:-1], weights[1:], tuned.log_steps)
    (point, total, correction), acceptance = jax.lax.scan(body, (first, zeros, zeros), steps, reverse=exact is not None)
    return total, correction, acceptance.T, point.position


def _add(total: Array, correction: Array, value: Array) -> tuple[Array, Array]:
    """One step of Neumaier's compensated sum: what rounding took from the total goes into the correction."""
    new = total + value
    lost = jnp.where(jnp.abs(total) >= jnp.abs(value), (total - new) + value, (value - new) + total)
    return new, correction + jnp.where(jnp.isfinite(new), lost, 0.0)
