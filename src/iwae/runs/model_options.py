"""A run's model on the command line and in its record: the part of its configuration that says what p and q are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from iwae.errors import IWAEError, check_count
from iwae.estimators.parameters import exact_number
from iwae.models.architecture import (
    DEFAULTS,
    MAX_HIDDEN_LAYERS,
    RESOLVED,
    Activation,
    Architecture,
    LatentKind,
    Mask,
    Missing,
)
from iwae.models.networks import NETWORKS

DEPTH = 2
# Channels of the first convolution, where nothing is said; each further one has twice as many.
CHANNELS = 32


@dataclass(frozen=True)
class ModelOptions:
    """What p and q are."""

    layers: int | None = None
    """Stochastic layers: 1, the default, or 2 for the paper's networks; as many as --latent has numbers otherwise."""
    latent: tuple[int, ...] = ()
    """Units of each stochastic layer, from the data upwards, instead of the paper's network."""
    hidden: tuple[int, ...] = ()
    """Units in each of the deterministic layers below every stochastic layer; as many numbers as --latent. 0 makes it
    linear, for --latent-kind bernoulli. For --network conv the first number is that of the first convolution's
    channels, and each further one has twice as many."""
    depth: int | None = None
    """Deterministic layers below every stochastic layer (default: 2)."""
    network: str = "tanh"
    """Kind of the deterministic layers: the paper's tanh, mlp (any activation), gated (Tomczak & Welling 2018),
    residual, or conv for images; see docs/models.md."""
    activation: Activation | None = None
    """Of mlp, residual and conv networks (default: silu)."""
    dropout: float = 0.0
    """Share of the features that a training step sets to zero; not with tanh networks, nor when measuring."""
    layer_norm: bool = False
    """Layer norm before every activation; not with tanh networks."""
    conv_blocks: int = 0
    """Residual blocks after every convolution of conv networks."""
    prior: str = "standard"
    """Of the top layer: the standard normal, a mixture of Gaussians, vampprior (Tomczak & Welling 2018), or flow."""
    prior_components: int | None = None
    """Components of the mixture, or pseudo-inputs of the VampPrior (default: 500)."""
    posterior: str = "diagonal"
    """Family of the encoder's Gaussians: diagonal, full-covariance, or a flow on diagonal ones."""
    flow_layers: int | None = None
    """Coupling layers of flows (default: 4)."""
    flow_hidden: int | None = None
    """Hidden units of every coupling layer (default: 100)."""
    latent_kind: LatentKind = "gaussian"
    """Distribution of the stochastic layers; bernoulli makes a sigmoid belief network."""
    mask: Mask = "zeros"
    """What the encoder sees of missing values: zeros, or these and which values are there (concatenate)."""
    missing: Missing = "at-random"
    """How values go missing: at-random, or with a probability that depends on them and is learned (self-masking)."""

    def check_model(self) -> None:
        """Writes out what is not said. Raises IWAEError for a model without meaning."""
        if self.layers is None:
            object.__setattr__(self, "layers", len(self.latent) or 1)
        check_count("layers", self.layers)
        check_count("depth", self.depth, most=MAX_HIDDEN_LAYERS, optional=True)
        found = self.architecture()
        for name in RESOLVED:
            object.__setattr__(self, name, getattr(found, name))

    def architecture(self, visible: int | None = None, image_shape: Sequence[int] | None = None) -> Architecture:
        """The network's sizes for data of `visible` dimensions, which may be images.

        Raises IWAEError when `layers`, `latent` and `hidden` don't agree, and as `Architecture` does.
        """
        assert self.layers is not None
        kinds = (self.latent_kind,) * self.layers
        options = {name: getattr(self, name) for name in DEFAULTS if name != "image_shape"}
        if not self.latent and not self.hidden:
            usual = Architecture.paper(self.layers, visible)
            widths = (self._channels(CHANNELS), *usual.hidden[1:]) if self._is_of_images else usual.hidden
            if self.depth is not None and not self._is_of_images:
                widths = tuple(own[:1] * self.depth for own in widths)
            return replace(usual, hidden=widths, kinds=kinds, **options).fitting(visible, image_shape)
        if len(self.latent) != self.layers or len(self.hidden) != self.layers:
            raise IWAEError(
                f"`layers` {self.layers} needs as many numbers in `latent` and in `hidden`,"
                f" got {len(self.latent)} and {len(self.hidden)}"
            )
        widths = [(width,) * (self.depth or DEPTH) if width else () for width in self.hidden]
        if self._is_of_images:
            widths[0] = self._channels(self.hidden[0])
        return Architecture(visible, self.latent, tuple(widths), kinds, **options).fitting(visible, image_shape)

    @property
    def _is_of_images(self) -> bool:
        return self.network in NETWORKS and NETWORKS[self.network].decoder is not None

    def _channels(self, first: int) -> tuple[int, ...]:
        return tuple(first * 2**i for i in range(min(self.depth or DEPTH, 24))) if first else ()

    def network_parts(self) -> Iterator[str]:
        """What tells the networks and distributions from the paper's, for a directory's name."""
        yield from (word for word in (self.network, self.mask, self.missing) if word not in DEFAULTS.values())
        if self.activation not in (None, RESOLVED["activation"]):
            yield str(self.activation)
        if self.dropout:
            yield f"dropout{exact_number(self.dropout)}"
        if self.layer_norm:
            yield "layernorm"
        if self.conv_blocks:
            yield f"blocks{self.conv_blocks}"
        if self.prior != "standard":
            yield f"{self.prior}{self.prior_components or ''}-prior".replace("vampprior", "vamp")
        if self.posterior != "diagonal":
            yield f"{self.posterior}-posterior"
        sizes = (self.flow_layers, self.flow_hidden)
        if sizes not in ((None, None), (RESOLVED["flow_layers"], RESOLVED["flow_hidden"])):
            yield f"flow{self.flow_layers}x{self.flow_hidden}"
        if self.depth not in (None, DEPTH):
            yield f"depth{self.depth}"


def usual_options() -> dict[str, Any]:
    """Options that a record leaves out where they have these values: those that came after 0.1."""
    return {
        name: getattr(ModelOptions, name) for name in (*DEFAULTS, "depth") if name not in ("network", "image_shape")
    }
