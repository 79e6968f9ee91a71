"""The sizes of a hierarchy of stochastic layers, as plain numbers (no JAX is imported here)."""

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict, get_args

from iwae.errors import IWAEError
from iwae.io.json import Positive, shortened
from iwae.models.networks import NETWORKS

MAX_LAYERS = 100
MAX_HIDDEN_LAYERS = 300
MAX_UNITS = 1_000_000
"""Limits on what a file may claim, far above what can be trained: stochastic layers, layers of networks in all, and
units of any one."""

LatentKind = Literal["gaussian", "bernoulli"]
Mask = Literal["zeros", "concatenate"]
"""What the encoder sees of missing values: zeros (Mattei & Frellsen 2019), or these and which values are there."""
Missing = Literal["at-random", "self-masking"]
"""Whether values go missing for reasons that lie outside them, or with a probability that depends on them."""
Precision = Literal["float32", "bfloat16"]
"""Of the operands of a network's matrix products."""
DEFAULTS = {"network": "tanh", "mask": "zeros", "missing": "at-random"}
"""What an architecture has unless it says otherwise, and its record then leaves out."""


class ArchitectureRecord(TypedDict):
    """An `Architecture` in JSON. Before 0.2 all layers were Gaussian, without `kinds`. What has its default in
    `DEFAULTS` is left out.
    """

    visible: Positive
    latent: list[Positive]
    hidden: list[list[Positive]]
    kinds: NotRequired[list[LatentKind]]
    network: NotRequired[str]
    mask: NotRequired[Mask]
    missing: NotRequired[Missing]


@dataclass(frozen=True)
class Architecture:
    """Numbers of units, from the visible layer x = h_0 upwards; `visible` None is as many as the data have.

    `latent[i]` is the number of units of h_{i+1}; `hidden[i]` are the widths of the deterministic layers
    between h_i and h_{i+1}, from h_i's side, used by q(h_{i+1} | h_i) in this order and by
    p(h_i | h_{i+1}) in reverse; none at all makes the connection linear. `kinds[i]` is the distribution of
    h_{i+1}; empty stands for Gaussian layers throughout. `network` is the kind of deterministic layers, a name of
    `iwae.models.networks`.

    For rows with missing values, `mask` says what the encoder sees of them: `zeros` in their place, or with
    `concatenate` also which values are there (1) and which are not (0), as many more inputs. `missing` says how they
    went missing: `at-random`, where nothing has to be modelled, or `self-masking`, with a probability that depends on
    the value itself and is learned (`iwae.models.missing.SelfMasking`).
    """

    visible: int | None
    latent: tuple[int, ...]
    hidden: tuple[tuple[int, ...], ...]
    kinds: tuple[LatentKind, ...] = ()
    network: str = "tanh"
    mask: Mask = "zeros"
    missing: Missing = "at-random"

    def __post_init__(self) -> None:
        """Raises IWAEError when there is no layer, a size is not a positive integer, a kind is unknown, the lengths
        differ, or one of the limits above is passed.
        """
        sizes = (self.latent, self.hidden, *(self.hidden if hasattr(self.hidden, "__iter__") else ()))
        if not all(hasattr(of_layers, "__len__") for of_layers in sizes):
            raise IWAEError(
                "`latent` must be a tuple of numbers, and `hidden` a tuple with one such tuple per stochastic layer, as"
                f" ((200, 200),), got {shortened(repr(self.latent))} and {shortened(repr(self.hidden))}"
            )
        object.__setattr__(self, "kinds", tuple(self.kinds) or ("gaussian",) * len(self.latent))
        if not self.latent:
            raise IWAEError("an architecture needs at least one stochastic layer, but `latent` is empty")
        if len(self.latent) > MAX_LAYERS or sum(map(len, self.hidden)) > MAX_HIDDEN_LAYERS:
            raise IWAEError(
                f"an architecture has at most {MAX_LAYERS} stochastic layers and {MAX_HIDDEN_LAYERS} others, got"
                f" {len(self.latent)} and {sum(map(len, self.hidden))}"
            )
        if len(self.hidden) != len(self.latent):
            raise IWAEError(
                f"{len(self.latent)} stochastic layers need as many entries in `hidden`, got {len(self.hidden)}"
            )
        if len(self.kinds) != len(self.latent) or not set(self.kinds) <= set(get_args(LatentKind)):
            raise IWAEError(
                f"{len(self.latent)} stochastic layers need as many kinds, each gaussian or bernoulli,"
                f" got {shortened(' '.join(map(str, self.kinds)))}"
            )
        if self.network not in NETWORKS:
            raise IWAEError(f"`network` must be {' or '.join(NETWORKS)}, got {self.network!r:.100}")
        for name, options in (("mask", Mask), ("missing", Missing)):
            if getattr(self, name) not in get_args(options):
                raise IWAEError(
                    f"`{name}` must be {' or '.join(get_args(options))}, got {shortened(repr(getattr(self, name)))}"
                )
        for size in (self.visible, *self.latent, *(width for widths in self.hidden for width in widths)):
            if size is None and self.visible is None:
                continue
            if not isinstance(size, numbers.Integral) or isinstance(size, bool) or size < 1:
                raise IWAEError(f"every number of units must be a positive integer, got {size!r:.100}")
            if size > MAX_UNITS:
                raise IWAEError(f"a layer has at most {MAX_UNITS:,} units, got {size}")
        # NumPy's integers are no JSON.
        object.__setattr__(self, "visible", None if self.visible is None else int(self.visible))
        object.__setattr__(self, "latent", tuple(map(int, self.latent)))
        object.__setattr__(self, "hidden", tuple(tuple(map(int, widths)) for widths in self.hidden))

    @property
    def num_layers(self) -> int:
        """Number of stochastic layers."""
        return len(self.latent)

    @classmethod
    def paper(cls, layers: int, visible: int | None = None) -> "Architecture":
        """The paper's network with one or two stochastic layers (Burda et al. 2015, appendix).

        Raises IWAEError for any other number.
        """
        if layers == 1:
            return cls(visible, latent=(50,), hidden=((200, 200),))
        if layers == 2:
            return cls(visible, latent=(100, 50), hidden=((200, 200), (100, 100)))
        raise IWAEError(
            f"the paper has networks of 1 and 2 stochastic layers, not {layers}: give the sizes of others,"
            " such as `latent` 100 50 25, `hidden` 200 100 50"
        )

    def to_json(self) -> ArchitectureRecord:
        """Plain lists and numbers, which `from_json` reads. Needs the number of visible units."""
        assert self.visible is not None
        record: ArchitectureRecord = {
            "visible": self.visible,
            "latent": list(self.latent),
            "hidden": [list(widths) for widths in self.hidden],
            "kinds": list(self.kinds),
        }
        # Version 0.1 can read the files of its own models.
        for name, usual in DEFAULTS.items():
            if getattr(self, name) != usual:
                record[name] = getattr(self, name)
        return record

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Architecture":
        """Inverse of `to_json`, without `kinds` too, as before 0.2. Raises IWAEError for anything else."""
        try:
            hidden = tuple(tuple(widths) for widths in value["hidden"])
            kinds, rest = tuple(value.get("kinds", ())), {name: value[name] for name in DEFAULTS if name in value}
            return cls(value["visible"], tuple(value["latent"]), hidden, kinds, **rest)
        except (KeyError, TypeError) as error:
            raise IWAEError(f"not an architecture: {shortened(repr(value))} ({error!r})") from None
