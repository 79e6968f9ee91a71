"""Shapes and types of every public function are checked while the tests run."""

import os
from pathlib import Path

from helpers.xla_flags import xla_flags

# Most of the suite's time is compilation, and many tests compile the same programs. Set before JAX is imported.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("XLA_FLAGS", xla_flags())

from collections.abc import Iterator

import jax
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Modules of functions of arrays. Where plain values are checked in words (objective, architecture, config), these
# checks would come first.
CHECKED = [
    "iwae.bounds",
    "iwae.estimators.base",
    "iwae.estimators.bound",
    "iwae.estimators.importance_weighted",
    "iwae.estimators.mixed_precision",
    "iwae.estimators.score",
    "iwae.estimators.subsampling",
    "iwae.estimators.terms",
    "iwae.evaluation.active_units",
    "iwae.evaluation.batches",
    "iwae.evaluation.importance_weights",
    "iwae.explore.content",
    "iwae.evaluation.likelihood",
    "iwae.models.distributions",
    "iwae.models.layers",
    "iwae.models.networks.base",
    "iwae.models.flows",
    "iwae.models.networks.conv",
    "iwae.models.networks.gated",
    "iwae.models.networks.mlp",
    "iwae.models.networks.residual",
    "iwae.models.networks.tanh",
    "iwae.models.posteriors.flow",
    "iwae.models.posteriors.full_covariance",
    "iwae.models.priors.flow",
    "iwae.models.priors.mixture",
    "iwae.models.priors.vampprior",
    "iwae.models.pruning",
    "iwae.models.vae",
    "iwae.randomness",
    "iwae.training.loop",
    "iwae.training.optim",
    "iwae.training.step",
]

install_import_hook(CHECKED, "beartype.beartype").__enter__()

# The first example of a property compiles, and this says nothing about the property.
settings.register_profile("iwae", deadline=None, derandomize=True)
settings.load_profile("iwae")


# The files that take longest. Begun last, one would keep a worker busy while the other has nothing left to do.
FIRST = (
    "test_expectations.py",
    "test_processes.py",
    "test_paper_processes.py",
    "test_annealed.py",
    "test_analyze.py",
    "test_diagnose.py",
    "test_installed.py",
    "test_examples.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    items.sort(key=lambda item: item.path.name not in FIRST)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs() -> Iterator[None]:
    """Drops a file's compiled programs at its end: all of them together would fill gigabytes."""
    yield
    jax.clear_caches()
