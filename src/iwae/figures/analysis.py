"""Every picture of an analysis, from arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from iwae.figures import charts, grids


@dataclass(frozen=True)
class Images:
    """What is shown of a model of images of `shape` (height, width, perhaps 3 colours), each array `[.., visible]`.

    `samples`, `originals` and `reconstructions` are as `grids.shades` takes them; `traversals` too, `[units, values,
    visible]`, with the `values` that each of `units` takes; the weights are one row a unit, and None of a network
    without such.
    """

    shape: tuple[int, ...]
    samples: np.ndarray
    originals: np.ndarray
    reconstructions: np.ndarray
    traversals: np.ndarray
    units: Sequence[int]
    values: Sequence[float]
    encoder_weights: np.ndarray | None
    decoder_weights: np.ndarray | None


@dataclass(frozen=True)
class Findings:
    """What the pictures show. `images` is None where the data are vectors, `curve` before the first epoch.

    `variances` `[units]` per layer, active above `threshold`; `relative_log_weights` `[examples, k]`, log w minus the
    log of the example's mean weight; `effective_sample_size` `[examples]`, of `num_samples`.
    """

    curve: charts.Curve | None
    variances: Sequence[np.ndarray]
    threshold: float
    relative_log_weights: np.ndarray
    effective_sample_size: np.ndarray
    num_samples: int
    images: Images | None


def draw(found: Findings) -> tuple[dict[str, bytes], dict[str, str]]:
    """PNG files by name, and for every picture that there can't be, the reason."""
    made, skipped = {}, {}
    for kind, make in PICTURES.items():
        content = make(found)
        if isinstance(content, bytes):
            made[f"{kind}.png"] = content
        else:
            skipped[kind] = content
    return made, skipped


def _of_images(make: Callable[[Images, Findings], bytes | str]) -> Callable[[Findings], bytes | str]:
    return lambda found: "the data are vectors, not images" if found.images is None else make(found.images, found)


def _traversals(images: Images, found: Findings) -> bytes | str:
    if not len(images.units):
        return "no unit of the top layer is active"
    labels = [f"{unit} ({found.variances[-1][unit]:.2f})" for unit in images.units]
    return charts.traversal_chart(images.traversals, images.shape, images.values, labels)


def _weights(of: Callable[[Images], np.ndarray | None], reason: str) -> Callable[[Findings], bytes | str]:
    def make(images: Images, _: Findings) -> bytes | str:
        weights = of(images)
        if len(images.shape) > 2:
            return "the images have colours"
        return reason if weights is None else grids.weight_grid(weights, images.shape)

    return _of_images(make)


def _log_weights(found: Findings) -> bytes | str:
    if not np.isfinite(found.relative_log_weights).any():
        return "no weight is finite"
    return charts.log_weight_chart(found.relative_log_weights)


# By kind, the picture, or a word on why there is none.
PICTURES: dict[str, Callable[[Findings], bytes | str]] = {
    "training_curve": lambda found: (
        "no epoch has been trained yet" if found.curve is None else charts.training_chart([found.curve])
    ),
    "samples": _of_images(lambda images, _: grids.sample_grid(images.samples, images.shape)),
    "reconstructions": _of_images(
        lambda images, _: grids.reconstruction_grid(images.originals, images.reconstructions, images.shape)
    ),
    "log_variances": lambda found: charts.log_variance_chart(found.variances, found.threshold),
    "traversals": _of_images(_traversals),
    "log_weights": _log_weights,
    "effective_sample_size": lambda found: charts.effective_sample_size_chart(
        found.effective_sample_size, found.num_samples
    ),
    "encoder_weights": _weights(lambda images: images.encoder_weights, "the network is not a tanh network"),
    "decoder_weights": _weights(lambda images: images.decoder_weights, "the visible layer is not linear"),
}
