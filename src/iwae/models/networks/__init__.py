"""Networks from an input to features, by name (no JAX is imported here). A new one is a file, and a line below.

Its class has `takes_batches`; `create(sizes, key, **options)`, which makes one of `sizes[0]` inputs with random
weights; `widths`, the other sizes; `settings`, the options that it was made with, if it takes some; and a call,
`[*rows, n_in]` to `[*rows, n_features]`.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from iwae.errors import IWAEError
from iwae.models.registry import Kind, class_at, name_in

if TYPE_CHECKING:
    from iwae.models.architecture import Architecture

NETWORKS = {
    "tanh": Kind("networks.tanh.TanhNetwork"),
    "mlp": Kind("networks.mlp.MLP", ("activation", "dropout", "layer_norm")),
    "gated": Kind("networks.gated.GatedNetwork", ("dropout", "layer_norm")),
    "residual": Kind("networks.residual.ResidualNetwork", ("activation", "dropout", "layer_norm")),
    "conv": Kind(
        "networks.conv.ConvEncoder",
        ("activation", "dropout", "layer_norm", "conv_blocks"),
        decoder="networks.conv.ConvDecoder",
    ),
}
"""A network of images, which has a `decoder`, is made with their `image_shape` too, for the encoder's first layer and
the visible one; the layers above have networks of `mlp`.
"""


def makers_of(architecture: "Architecture") -> tuple[list[Any], list[Any]]:
    """What makes the networks of sizes and a key: of every layer of the encoder, and of the decoder, h_1 first.

    Raises IWAEError for a network of images where their shape is not known.
    """
    kind = NETWORKS[architecture.network]
    options = {name: getattr(architecture, name) for name in kind.options}
    if kind.decoder is None:
        makers = [partial(class_at(kind.home).create, **options)] * architecture.num_layers
        return makers, makers
    if architecture.image_shape is None:
        raise IWAEError(
            f"`network` {architecture.network} is for images, and the data are none: give an array [n, height, width]"
            " or [n, height, width, channels], or another `network`"
        )
    dense = NETWORKS["mlp"]
    above = partial(class_at(dense.home).create, **{name: options[name] for name in dense.options})
    first, visible = (
        partial(class_at(home).create, image_shape=architecture.image_shape, **options)
        for home in (kind.home, kind.decoder)
    )
    upper = [above] * (architecture.num_layers - 1)
    return [first, *upper], [visible, *upper]


def name_of(networks: Sequence[Any]) -> str | None:
    """The name of a model's networks; None for custom ones, and for those of several kinds."""
    names = {name_in(NETWORKS, network) for network in networks}
    if any(name is not None and NETWORKS[name].decoder is not None for name in names):
        names.discard("mlp")
    return names.pop() if len(names) == 1 else None
