"""Networks from an input to features, by name (no JAX is imported here). A new one is a file, and a line below.

Its class has `takes_batches`; `create(sizes, key)`, which makes one of `sizes[0]` inputs and `sizes[-1]` features with
random weights; `widths`, those sizes without the inputs; and a call, `[*rows, n_in]` to `[*rows, n_features]`.
"""

from importlib import import_module
from typing import Any

NETWORKS = {
    "tanh": "tanh.TanhNetwork",
    "gated": "gated.GatedNetwork",
}
"""Module and class of each."""


def network_of(name: str) -> Any:
    """The class of a network, by its name in `NETWORKS`."""
    module, _, found = NETWORKS[name].partition(".")
    return getattr(import_module(f"iwae.models.networks.{module}"), found)


def name_of(network: Any) -> str | None:
    """The name of a network; None for a custom one."""
    return next((name for name in NETWORKS if type(network) is network_of(name)), None)
