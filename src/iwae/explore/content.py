"""What the page holds, as JSON: the model's weights, the units that get sliders, and a hundred test examples."""

import base64
import json
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from iwae.data import Dataset
from iwae.errors import IWAEError
from iwae.evaluation.active_units import ActiveUnits, active_units
from iwae.evaluation.batches import on_data, preparation_key, prepare_rows
from iwae.evaluation.likelihood import likelihoods
from iwae.io.json import finite_or_none
from iwae.models.distributions import Bernoulli, StandardNormal
from iwae.models.layers import BernoulliLayer, GaussianLayer
from iwae.models.likelihoods import BernoulliLikelihood, GaussianLikelihood
from iwae.models.networks.base import Linear
from iwae.models.networks.tanh import TanhNetwork
from iwae.models.vae import HierarchicalVAE
from iwae.runs.reporter import Reporter

LIMIT = 6_000_000
"""Bytes of a page."""
RESERVE = 100_000
"""Of them, for the page's own text and what is measured."""
SPLIT = "test"
MAX_EXAMPLES = 100
MAX_SAMPLES = 500
"""Importance samples: the most that the page draws, and as many as the library's figures beside it have."""
MAX_SLIDERS = 200


def page_content(
    model: HierarchicalVAE,
    dataset: Dataset,
    *,
    kept: tuple[np.ndarray, ...] | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """The page's data: plain numbers, texts and lists; arrays as `packed` makes them.

    Active units are measured on all training examples, L_500 of the first hundred test examples with the draws that
    `iwae evaluate` makes; `kept` is as in `iwae.likelihoods`.

    Raises IWAEError for a model with parts that the page can't compute, one that does not fit into 6 MB, and data that
    the model can't score.
    """
    reporter = reporter or Reporter()
    if model.mask != "zeros" or model.missing is not None:
        raise IWAEError("the page can't compute with masks of missing values, or with a model of them")
    if len(dataset.image_shape or ()) > 2:
        raise IWAEError("the page shows grey images, and these have colours; `iwae analyze` draws them")
    stored = dataset.split(SPLIT)[:MAX_EXAMPLES]
    model, _ = on_data(model, dataset, SPLIT if len(stored) else "train")
    examples = _examples(model, stored)
    content = {
        "visible": model.visible,
        "latent": list(model.latent),
        "image_shape": list(dataset.image_shape) if dataset.image_shape else None,
        "range": _range(model, stored if len(stored) else dataset.train[:MAX_EXAMPLES]),
        "max_samples": MAX_SAMPLES,
        "encoder": [_layer(layer) for layer in model.encoder],
        "decoder": [_visible_layer(model.decoder[0]), *(_layer(layer) for layer in model.decoder[1:])],
        "prior": _prior(model.prior),
        "examples": examples,
    }
    # Before minutes of measuring, not after.
    size = len(json.dumps(content)) + RESERVE
    if size > LIMIT:
        raise IWAEError(
            f"this model is too large to explore: with its weights and {examples['count']} test examples the page would"
            f" have {size / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f} MB; `iwae analyze` draws its traversals and"
            " reconstructions instead"
        )
    active = active_units(
        model, dataset, on_examples=lambda done, total: reporter.measuring("active units", done, total)
    )
    content["units"] = slider_units(active)
    content["num_active"] = active.counts[-1]
    if examples["count"]:
        measured = likelihoods(
            model,
            dataset,
            SPLIT,
            num_samples=MAX_SAMPLES,
            max_examples=MAX_EXAMPLES,
            kept=kept,
            on_examples=lambda done, total: reporter.measuring(f"test likelihood, k={MAX_SAMPLES}", done, total),
        )
        examples["log_likelihood"] = [finite_or_none(value) for value in measured.log_likelihood.tolist()]
    return content


def slider_units(active: ActiveUnits) -> list[dict[str, Any]]:
    """Index (from 0) and variance of the top layer's active units, the largest variance first, at most 200; where none
    is active, of all units.
    """
    variances, is_active = active.variances[-1], active.active[-1]
    order = np.argsort(-variances, kind="stable")
    shown = [i for i in order if is_active[i]] or list(order)
    return [{"index": int(i), "variance": finite_or_none(float(variances[i]))} for i in shown[:MAX_SLIDERS]]


def packed(array: Array | np.ndarray) -> dict[str, str]:
    """An array in row-major order: `type` is uint8 where that is lossless, else float32; `base64` has its bytes, the
    lowest first.
    """
    values = np.asarray(array)
    small = values.astype(np.uint8) if np.all((values >= 0) & (values <= 255)) else None
    kind = "uint8" if small is not None and np.array_equal(small, values) else "float32"
    content = values.astype({"uint8": "u1", "float32": "<f4"}[kind]).tobytes()
    return {"type": kind, "base64": base64.b64encode(content).decode()}


def _examples(model: HierarchicalVAE, stored: np.ndarray) -> dict[str, Any]:
    """Test examples as they are scored, and as they are stored (times `scale`) where they are binarized."""
    likelihood = model.likelihood
    if not len(stored):
        return {"count": 0}
    scored = prepare_rows(likelihood, jnp.asarray(stored), jnp.arange(len(stored)), preparation_key(SPLIT))
    found = {"count": len(stored), "scored": packed(scored), "stored": None}
    if isinstance(likelihood, BernoulliLikelihood) and likelihood.resample:
        found["stored"] = packed(stored)
        found["scale"] = 1.0 if stored.dtype.kind == "f" else likelihood.scale
    return found


def _range(model: HierarchicalVAE, rows: np.ndarray) -> list[float]:
    """The values that are shown as black and white: 0 and 1, or the least and the greatest of `rows`."""
    if isinstance(model.likelihood, BernoulliLikelihood) or np.all(np.isnan(rows)):
        return [0.0, 1.0]
    low, high = float(np.nanmin(rows)), float(np.nanmax(rows))
    return [low, high if high > low else low + 1.0]


# The model. What is not known here has no counterpart in model.js.


def _layer(layer: Any) -> dict[str, Any]:
    if type(layer) is GaussianLayer:
        heads = {"mean": _linear(layer.mean), "log_sigma": _linear(layer.log_sigma)}
        return {"kind": "gaussian", "hidden": _hidden(layer.network), **heads}
    if isinstance(layer, BernoulliLayer):
        return {"kind": "bernoulli", "hidden": _hidden(layer.network), "logits": _linear(layer.logits)}
    raise _unknown("a latent layer", layer, "Gaussian and Bernoulli layers")


def _visible_layer(layer: Any) -> dict[str, Any]:
    likelihood = layer.likelihood
    if type(likelihood) not in (BernoulliLikelihood, GaussianLikelihood):
        raise _unknown("a likelihood", likelihood, "the Bernoulli and the Gaussian likelihood")
    found = {"likelihood": likelihood.name, "hidden": _hidden(layer.network), "outputs": _linear(layer.outputs)}
    if isinstance(likelihood, GaussianLikelihood):
        units = layer.units
        found["shift"] = list(likelihood.shift) or [0.0] * units
        found["spread"] = list(likelihood.spread) or [1.0] * units
    return found


def _hidden(network: Any) -> list[dict[str, Any]]:
    if not isinstance(network, TanhNetwork):
        raise _unknown("a network", network, "tanh networks")
    return [_linear(linear) for linear in network.hidden]


def _linear(linear: Linear) -> dict[str, Any]:
    return {"weight": packed(linear.weight), "bias": packed(linear.bias)}


def _prior(prior: Any) -> dict[str, Any]:
    if type(prior) is StandardNormal:
        return {"kind": "gaussian"}
    if isinstance(prior, Bernoulli):
        return {"kind": "bernoulli", "logits": packed(prior.logits)}
    raise _unknown("a prior", prior, "Gaussian and Bernoulli priors")


def _unknown(what: str, part: Any, known: str) -> IWAEError:
    return IWAEError(
        f"this model can't be explored: it has {what} of type {type(part).__name__}, and the page computes only"
        f" {known}; `iwae analyze` draws any model"
    )
