"""Processes that a program starts after it has used JAX."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from helpers.toy import toy_dataset
from iwae import Architecture, create_model, log_likelihood


def score(seed: int) -> list[float]:
    """The likelihoods of a few rows under a new model."""
    data = toy_dataset()
    return log_likelihood(create_model(data, Architecture(6, (2,), ((4,),)), seed), data.test, num_samples=5).tolist()


def test_a_spawned_process_has_the_same_figures():
    """A forked one would hang: JAX's threads are not in it."""
    here = score(3)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(score, 3).result(timeout=300) == here
