"""Shapes and types of every public function are checked while the tests run."""

import os
from pathlib import Path

# Most of the suite's time is compilation, and many tests compile the same programs. Set before JAX is imported.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Compiling takes half as long; tests of real processes leave this out (small_runs.environment).
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

from hypothesis import settings
from jaxtyping import install_import_hook

CHECKED = [
    "iwae.bounds",
    "iwae.distributions",
    "iwae.estimators",
    "iwae.explore.model_view",
    "iwae.evaluation",
    "iwae.model",
    "iwae.networks",
    "iwae.optim",
    "iwae.pruning",
    "iwae.randomness",
    "iwae.training",
]

install_import_hook(CHECKED, "beartype.beartype").__enter__()

# The first example of a property compiles, and this says nothing about the property.
settings.register_profile("iwae", deadline=None, derandomize=True)
settings.load_profile("iwae")
