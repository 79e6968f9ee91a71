"""What stands with every picture of a report: a heading, a caption that says what to look for, and a text that
says what the picture shows to those who do not see it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from iwae.evaluation.visualization import TRAVERSED_UNITS
from iwae.report import labels
from iwae.runs.records import AnalysisRecord


@dataclass(frozen=True)
class Caption:
    """`heading` and `caption` are the same for every run; `alt` is made from the run's analysis."""

    heading: str
    caption: str
    alt: Callable[[AnalysisRecord], str]


def _training_curve(analysis: AnalysisRecord) -> str:
    bound = labels.nats(analysis["train_bound"])
    return (
        f"Line chart of the training bound over {analysis['epochs']:,} epochs on a logarithmic axis, with"
        f" {analysis['stages_done']} stages marked; it ends at {bound} nats."
    )


def _log_variances(analysis: AnalysisRecord) -> str:
    layers = "; ".join(
        f"layer {layer['layer']}: {layer['active']} of {layer['units']} units above the threshold, largest variance"
        f" {max((v for v in layer['variances'] if v is not None), default=0.0):.2f}"
        for layer in analysis["layers"]
    )
    return f"Histograms of the variance of units' posterior means, threshold 0.01 marked. {layers}."


def _traversals(analysis: AnalysisRecord) -> str:
    rows = min(TRAVERSED_UNITS, analysis["layers"][-1]["active"])
    is_binary = analysis["architecture"].get("kinds", ["gaussian"])[-1:] == ["bernoulli"]
    return (
        f"Grid of decoded images: {rows} rows, one for each active unit of the top layer in order of variance;"
        f" columns for values from {'0 to 1' if is_binary else '−3 to 3'}."
    )


def _log_weights(analysis: AnalysisRecord) -> str:
    quantiles, above = analysis["log_weights"]["quantiles"], analysis["log_weights"]["weight_above_mean"]
    share = "an unknown part" if above is None else f"{above:.0%}"
    middle, low, high = (labels.nats(value) for value in (quantiles["0.5"], quantiles["0.05"], quantiles["0.95"]))
    return (
        "Two histograms of log weights relative to the log of the example's mean weight. Of the samples from q, half"
        f" lie below {middle} nats and nine tenths between {low} and {high}; {share} of the weight is on"
        " samples above 0."
    )


def _effective_sample_size(analysis: AnalysisRecord) -> str:
    found = analysis["effective_sample_size"]
    low, middle, high = (found["quantiles"][level] for level in ("0.05", "0.5", "0.95"))
    if low is None or middle is None or high is None:
        return "Histogram of effective sample sizes, none of which is finite."
    return (
        f"Histogram of the effective sample size of {found['examples']:,} test examples: median {middle:.3g},"
        f" nine tenths between {low:.3g} and {high:.3g}, of {found['num_samples']:,} samples."
    )


CAPTIONS: dict[str, Caption] = {
    "training_curve": Caption(
        "Training curve",
        "The mean training bound of every epoch; shaded bands are the stages of falling learning rate. Look for a"
        " step upwards where a stage begins, and for a curve that is still rising at the end: such a run would gain"
        " from more training.",
        _training_curve,
    ),
    "samples": Caption(
        "Samples",
        "100 draws from the prior, decoded; the grey values are the visible layer's means. Look for well-formed"
        " objects of every kind, and for smears or fragments: regions of the prior that no data reach.",
        lambda _: "Grid of 10 by 10 images: the visible layer's means for 100 draws from the prior.",
    ),
    "reconstructions": Caption(
        "Reconstructions",
        "Test images as the model saw them (binarized), and below each what the decoder makes of a draw from the"
        " posterior p(h | x), one of 1,000 samples of q taken by importance weight. Look for detail that is lost or"
        " replaced by something more usual.",
        lambda _: "Pairs of rows of test images: above the binarized original, below its reconstruction.",
    ),
    "log_variances": Caption(
        "Active units",
        "How much each unit's posterior mean varies over the training data. Units right of the line (variance above"
        " 0.01) carry information and count as active; the others follow the prior. Look for two clearly separate"
        " heaps: then the count does not depend on where exactly the line stands.",
        _log_variances,
    ),
    "traversals": Caption(
        "Latent traversals",
        "What each active unit of the top layer does: its value goes from −3 to 3 (a binary unit's from 0 to 1) while"
        " the other units stay at the prior's mean and the layers below at their means. Units are in order of their"
        f" variance (at most {TRAVERSED_UNITS} are shown). Look for one change per row, and for rows near the bottom in"
        " which little changes. Where the units are Gaussian, the middle column is the same in every row.",
        _traversals,
    ),
    "log_weights": Caption(
        "Distribution of log weights",
        "Importance weights of 100 test examples, each relative to its example's mean weight (0: a weight of average"
        " size). The solid line counts samples, the dashed one counts them by weight, as the estimate does. The"
        " further apart the two, the fewer samples carry the estimate; mass piled up at the right end says that more"
        " samples would still find larger weights.",
        _log_weights,
    ),
    "effective_sample_size": Caption(
        "Effective sample size",
        "(Σw)² / Σw² for every measured test example: how many equally weighted samples the k weighted ones are worth."
        " Look for examples at 1: there a single sample carries the estimate, and the true likelihood is higher.",
        _effective_sample_size,
    ),
    "encoder_weights": Caption(
        "First encoder weights",
        "Weights from the image to the units of the encoder's first layer, the 100 (or all) with the largest norm."
        " Red is positive, blue negative, white zero, on one scale. Look for strokes and spots, the features that are"
        " used; fine noise is what is left of the random start, most of all at pixels that never change.",
        lambda _: "Grid of weight images in red and blue: the first encoder layer's units, largest norm first.",
    ),
    "decoder_weights": Caption(
        "Last decoder weights",
        "Weights from the decoder's last tanh layer to the pixels, the 100 (or all) with the largest norm, coloured"
        " likewise: what a unit adds to the image (red) or takes away (blue).",
        lambda _: "Grid of weight images in red and blue: the last decoder layer's units, largest norm first.",
    ),
}
