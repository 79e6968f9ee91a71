"""Counter-based randomness: every draw is a function of (seed, purpose, counter), so nothing needs saving."""

import enum

import jax
from jaxtyping import Array, Int, Key


class Purpose(enum.IntEnum):
    """What a draw is for. The numbers are part of what makes an old run repeatable: add, never renumber."""

    INITIALIZE = 0
    TRAIN = 1
    BINARIZE = 2
    LIKELIHOOD = 3
    ACTIVE_UNITS = 4
    SAMPLE = 5
    DIAGNOSE = 6
    ANNEAL = 7
    TUNE = 8
    REVERSE = 9
    SIMULATE = 10
    RESAMPLE = 11
    VALIDATE = 12
    IMPUTE = 13
    UNBIASED = 14
    ENSEMBLE = 15


def purpose_key(seed: int | Int[Array, ""], purpose: Purpose) -> Key[Array, ""]:
    """The key of one purpose; `jax.random.fold_in` a step or an example's index into it."""
    return jax.random.fold_in(jax.random.key(seed), int(purpose))
