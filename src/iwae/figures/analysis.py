"""Every picture of an analysis, from arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from iwae.figures import charts, grids

OF_IMAGES = ("samples", "reconstructions", "traversals", "encoder_weights", "decoder_weights")


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
    weights = found.relative_log_weights
    pictures: dict[str, bytes | str] = {
        "training_curve": charts.training_chart([found.curve]) if found.curve else "no epoch has been trained yet",
        "log_variances": charts.log_variance_chart(found.variances, found.threshold),
        "log_weights": charts.log_weight_chart(weights) if np.isfinite(weights).any() else "no weight is finite",
        "effective_sample_size": charts.effective_sample_size_chart(found.effective_sample_size, found.num_samples),
    }
    if found.images is None:
        pictures |= dict.fromkeys(OF_IMAGES, "the data are vectors, not images")
    else:
        pictures |= zip(OF_IMAGES, _of_images(found.images, found.variances[-1]), strict=True)
    made = {f"{kind}.png": content for kind, content in pictures.items() if isinstance(content, bytes)}
    return made, {kind: reason for kind, reason in pictures.items() if isinstance(reason, str)}


def _of_images(images: Images, variances: np.ndarray) -> Iterator[bytes | str]:
    """The pictures of a model of images, whose top layer's units have these variances."""
    yield grids.sample_grid(images.samples, images.shape)
    yield grids.reconstruction_grid(images.originals, images.reconstructions, images.shape)
    labels = [f"{unit} ({variances[unit]:.2f})" for unit in images.units]
    if labels:
        yield charts.traversal_chart(images.traversals, images.shape, images.values, labels)
    else:
        yield "no unit of the top layer is active"
    for weights, reason in (
        (images.encoder_weights, "the network is not a tanh network"),
        (images.decoder_weights, "the visible layer is not linear"),
    ):
        if len(images.shape) > 2:
            yield "the images have colours"
        else:
            yield reason if weights is None else grids.weight_grid(weights, images.shape)
