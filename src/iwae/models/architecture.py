"""The sizes of a hierarchy of stochastic layers, as plain numbers (no JAX is imported here)."""

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Literal, NotRequired, TypedDict, get_args

from iwae.errors import IWAEError, check_count
from iwae.io.json import Positive, shortened
from iwae.models.networks import NETWORKS
from iwae.models.posteriors import POSTERIORS
from iwae.models.priors import PRIORS

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
Activation = Literal["silu", "relu", "leaky-relu", "elu", "gelu", "softplus", "tanh"]
ImageShape = tuple[int, int, int]
"""Height, width and channels."""
RESOLVED: dict[str, Any] = {"activation": "silu", "prior_components": 500, "flow_layers": 4, "flow_hidden": 100}
"""What None stands for in an architecture whose parts take the option."""


class ArchitectureRecord(TypedDict):
    """An `Architecture` in JSON. Before 0.2 all layers were Gaussian, without `kinds`. What has its default in
    `DEFAULTS` is left out.
    """

    visible: Positive
    latent: list[Positive]
    hidden: list[list[Positive]]
    kinds: NotRequired[list[LatentKind]]
    network: NotRequired[str]
    activation: NotRequired[Activation]
    dropout: NotRequired[float]
    layer_norm: NotRequired[bool]
    conv_blocks: NotRequired[int]
    image_shape: NotRequired[list[Positive]]
    prior: NotRequired[str]
    prior_components: NotRequired[Positive]
    posterior: NotRequired[str]
    flow_layers: NotRequired[Positive]
    flow_hidden: NotRequired[Positive]
    mask: NotRequired[Mask]
    missing: NotRequired[Missing]


@dataclass(frozen=True)
class Architecture:
    """Numbers of units, from the visible layer x = h_0 upwards; `visible` None is as many as the data have.

    `latent[i]` is the number of units of h_{i+1}; `hidden[i]` are the widths of the deterministic layers
    between h_i and h_{i+1}, from h_i's side, used by q(h_{i+1} | h_i) in this order and by
    p(h_i | h_{i+1}) in reverse; none at all makes the connection linear. `kinds[i]` is the distribution of
    h_{i+1}; empty stands for Gaussian layers throughout. `network` is the kind of deterministic layers, a name of
    `iwae.models.networks`; `activation`, `dropout` (the share of features that a training step sets to zero),
    `layer_norm` and `conv_blocks` (residual blocks after each convolution) are options of some of them. For `conv`,
    `hidden[0]` are numbers of channels, and `image_shape` (height, width, channels), if it is not given, is as the
    data's.

    `prior` is that of the top layer, a name of `iwae.models.priors`, with `prior_components` components or
    pseudo-inputs; `posterior` is the family of the encoder's Gaussian layers, a name of `iwae.models.posteriors`.
    Flows have `flow_layers` coupling layers with `flow_hidden` hidden units.

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
    activation: Activation | None = None
    dropout: float = 0.0
    layer_norm: bool = False
    conv_blocks: int = 0
    image_shape: ImageShape | None = None
    prior: str = "standard"
    prior_components: int | None = None
    posterior: str = "diagonal"
    flow_layers: int | None = None
    flow_hidden: int | None = None

    def __post_init__(self) -> None:
        """Raises IWAEError when there is no layer, a size is not a positive integer, a kind is unknown, the lengths
        differ, an option does not go with the others, or one of the limits above is passed.
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
        self._check_options()
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

    def _check_options(self) -> None:
        names = {"network": NETWORKS, "prior": PRIORS, "posterior": POSTERIORS}
        words = {"mask": Mask, "missing": Missing} | ({} if self.activation is None else {"activation": Activation})
        for name, known in (names | {name: get_args(kind) for name, kind in words.items()}).items():
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in known:
                raise IWAEError(f"`{name}` must be {' or '.join(known)}, got {shortened(repr(getattr(self, name)))}")
        own = {name for of, kinds in names.items() for name in kinds[getattr(self, of)].options}
        for name, default in DEFAULTS.items():
            owners = {of: [key for key, kind in kinds.items() if name in kind.options] for of, kinds in names.items()}
            partners = [f"`{of}` {' or '.join(keys)}" for of, keys in owners.items() if keys]
            if partners and name not in own and getattr(self, name) != default:
                raise IWAEError(f"`{name}` {getattr(self, name)} goes with {' or '.join(partners)}")
            if name in own and getattr(self, name) is None:
                object.__setattr__(self, name, RESOLVED[name])
        for name, most in {"prior_components": MAX_UNITS, "flow_layers": MAX_LAYERS, "flow_hidden": MAX_UNITS}.items():
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), most=most)
                object.__setattr__(self, name, int(getattr(self, name)))
        check_count("conv_blocks", self.conv_blocks, 0, most=MAX_LAYERS)
        rate = self.dropout
        if isinstance(rate, bool) or not isinstance(rate, numbers.Real) or not 0.0 <= rate < 1.0:
            raise IWAEError(f"`dropout` must be at least 0 and below 1, got {rate!r:.100}")
        object.__setattr__(self, "dropout", float(rate))
        if not isinstance(self.layer_norm, bool):
            raise IWAEError(f"`layer_norm` must be true or false, got {self.layer_norm!r:.100}")
        if "bernoulli" in self.kinds and self.posterior != "diagonal":
            raise IWAEError(f"`posterior` {self.posterior} is for Gaussian latent layers, not for binary ones")
        if self.kinds[-1] == "bernoulli" and self.prior != "standard":
            raise IWAEError(f"`prior` {self.prior} is for a Gaussian top layer, not for a binary one")
        self._check_images()

    def _check_images(self) -> None:
        if NETWORKS[self.network].decoder is None:
            if self.image_shape is not None:
                raise IWAEError(f"`image_shape` goes with `network` conv, not with {self.network}")
            return
        if not self.hidden[0]:
            raise IWAEError(f"`network` {self.network} needs the channels of one convolution or more in `hidden`")
        if self.image_shape is None:
            return
        shape = tuple(self.image_shape) if isinstance(self.image_shape, tuple | list) else ()
        shape = (*shape, 1) if len(shape) == 2 else shape
        for side in shape:
            check_count("image_shape", side)
        if len(shape) != 3 or self.visible not in (None, math.prod(shape)):
            raise IWAEError(
                f"`image_shape` must be height, width and channels of the {self.visible} visible units, got {shape}"
            )
        object.__setattr__(self, "image_shape", tuple(map(int, shape)))

    def fitting(self, visible: int | None, image_shape: Sequence[int] | None) -> "Architecture":
        """The architecture for data of `visible` dimensions, which are images of a shape or None. Raises IWAEError
        where it is one for others.
        """
        if NETWORKS[self.network].decoder is None or self.image_shape is not None or image_shape is None:
            return replace(self, visible=visible)
        return replace(self, visible=visible, image_shape=tuple(image_shape))

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
                value = getattr(self, name)
                record[name] = list(value) if isinstance(value, tuple) else value
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


DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in fields(Architecture) if field.default not in (MISSING, ())
}
"""What an architecture has unless it says otherwise, and its record then leaves out."""
