"""Shapes and types of every public function are checked while the tests run."""

from hypothesis import settings
from jaxtyping import install_import_hook

CHECKED = [
    "iwae.bounds",
    "iwae.distributions",
    "iwae.estimators",
    "iwae.evaluation",
    "iwae.model",
    "iwae.networks",
    "iwae.optim",
    "iwae.randomness",
    "iwae.training",
]

install_import_hook(CHECKED, "beartype.beartype").__enter__()

# The first example of a property compiles, and this says nothing about the property.
settings.register_profile("iwae", deadline=None, derandomize=True)
settings.load_profile("iwae")
