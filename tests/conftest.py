"""Shapes and types of every public function are checked while the tests run."""

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
