"""What `iwae explore` writes: the page's data, its text, its size; and the link to it."""

import base64
import dataclasses
import html
import json
import re
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
import pytest

from helpers.explorer import HOSTILE, rough_model
from helpers.numpy_model import SMALL
from helpers.toy import toy_dataset
from iwae import IWAEError, likelihoods
from iwae.evaluation.active_units import ActiveUnits
from iwae.explore.content import LIMIT, MAX_EXAMPLES, MAX_SLIDERS, packed, page_content, slider_units
from iwae.explore.write import NAME, check_output, explorer_link, render
from iwae.models.architecture import Architecture
from iwae.models.layers import GaussianLayer
from iwae.models.likelihoods import GaussianLikelihood


def unpacked(array: dict[str, str]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(array["base64"]), {"uint8": "u1", "float32": "<f4"}[array["type"]])


@pytest.mark.parametrize(
    ("values", "kind"), [([0, 1, 255], "uint8"), ([0.5], "float32"), ([-1], "float32"), ([256], "float32")]
)
def test_arrays_are_packed_without_loss(values, kind):
    array = np.array(values, np.float32)
    found = packed(array)
    assert found["type"] == kind
    np.testing.assert_array_equal(unpacked(found), array)


def test_arrays_that_are_not_finite_are_packed_too():
    array = np.array([np.nan, np.inf, 1], np.float32)
    np.testing.assert_array_equal(unpacked(packed(array)), array)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_content_is_the_model_and_its_data(layers):
    model, dataset = rough_model(SMALL[layers]), toy_dataset(test=130)
    content = page_content(model, dataset)
    assert (content["visible"], content["latent"]) == (6, list(model.latent))
    for layer, found in zip(model.encoder, content["encoder"], strict=True):
        np.testing.assert_array_equal(unpacked(found["mean"]["weight"]), np.ravel(layer.mean.weight))
        np.testing.assert_array_equal(unpacked(found["log_sigma"]["bias"]), layer.log_sigma.bias)
    outputs = content["decoder"][0]["outputs"]
    np.testing.assert_array_equal(unpacked(outputs["weight"]), np.ravel(model.decoder[0].outputs.weight))
    examples = content["examples"]
    assert examples["count"] == MAX_EXAMPLES
    np.testing.assert_array_equal(unpacked(examples["stored"]), np.ravel(dataset.test[:MAX_EXAMPLES]))
    assert set(unpacked(examples["scored"])) == {0, 1}
    measured = likelihoods(model, dataset, num_samples=500, max_examples=MAX_EXAMPLES)
    np.testing.assert_allclose(examples["log_likelihood"], measured.log_likelihood, rtol=1e-6)


def test_binary_data_are_held_once():
    model, dataset = rough_model(SMALL[1]), toy_dataset(binary=True)
    examples = page_content(model, dataset)["examples"]
    assert examples["stored"] is None
    np.testing.assert_array_equal(unpacked(examples["scored"]), np.ravel(dataset.test))


def test_data_without_test_examples_can_still_be_explored():
    dataset = dataclasses.replace(toy_dataset(), test=np.zeros((0, 6), np.uint8))
    assert page_content(rough_model(SMALL[1]), dataset)["examples"] == {"count": 0}


def test_active_units_have_sliders_the_largest_variance_first():
    active = ActiveUnits((np.zeros(4),), (np.array([0.5, 0.001, 0.9, 0.2]),))
    assert slider_units(active) == [{"index": i, "variance": v} for i, v in [(2, 0.9), (0, 0.5), (3, 0.2)]]


def test_where_no_unit_is_active_all_have_sliders_and_the_number_is_bounded():
    active = ActiveUnits((np.zeros(3),), (np.array([0.001, 0.003, 0.002]),))
    assert [unit["index"] for unit in slider_units(active)] == [1, 2, 0]
    many = ActiveUnits((np.zeros(1000),), (np.linspace(1, 2, 1000),))
    assert [unit["index"] for unit in slider_units(many)] == list(range(999, 999 - MAX_SLIDERS, -1))


# What can't be explored


def refused(model: Any, dataset: Any) -> str:
    with pytest.raises(IWAEError) as raised:
        page_content(model, dataset)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_model_that_is_too_large_is_one_line_before_anything_is_measured():
    model = rough_model(Architecture(1500, (20,), ((400,),)))
    message = refused(model, toy_dataset(dim=1500))
    size, limit = re.findall(r"([\d.]+) MB", message)
    assert float(size) > float(limit) == LIMIT / 1e6
    assert "`iwae analyze`" in message


class OddLayer(eqx.Module):
    """A layer of another kind."""

    layer: GaussianLayer

    @property
    def units(self) -> int:
        return self.layer.units

    def __call__(self, given: Any) -> Any:
        return self.layer(given)

    def log_prob(self, value: Any, given: Any) -> Any:
        return self.layer.log_prob(value, given)


class OddLikelihood(GaussianLikelihood):
    """A likelihood of another kind."""


@pytest.mark.parametrize("part", ["latent layer", "network", "likelihood"])
def test_a_part_that_the_page_does_not_know_is_one_line(part):
    model, dataset = rough_model(SMALL[2]), toy_dataset()
    if part == "latent layer":
        name, model = "OddLayer", eqx.tree_at(lambda m: m.encoder[1], model, replace_fn=OddLayer)
    elif part == "network":
        name, model = "Identity", eqx.tree_at(lambda m: m.decoder[1].network, model, eqx.nn.Identity())
    else:
        name, model = "OddLikelihood", rough_model(SMALL[2], OddLikelihood())
        dataset = dataclasses.replace(dataset, likelihood=OddLikelihood())
    message = refused(model, dataset)
    assert f"it has a {part} of type {name}, and the page computes only" in message


# The page's text


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_from_files_are_no_markup(text):
    plain = render("a", [("b", "c")], {"units": []})
    page = render(text, [(text, text)], {"units": []})
    assert page.count("<") == plain.count("<")
    assert page.count(">") >= plain.count(">")
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    about = json.loads(data[1])
    shown = text.replace("\udce9", "\\udce9")
    assert (about["title"], about["facts"]) == (shown, [{"name": shown, "text": shown}])
    title = re.search("<title>(.*?)</title>", page, re.DOTALL)
    assert title is not None
    assert html.unescape(title[1]) == f"{shown} – iwae explore"


def test_the_page_names_nothing_to_load():
    page = render("a", [], {})
    assert "http" not in page.replace("http-equiv", "")
    assert set(re.findall(r'(?:src|href)="(.*?)"', page)) == {"data:,"}


# Where it lies


@pytest.mark.parametrize("name", [".", "missing/page.html"])
def test_where_no_page_can_be_written_is_one_line(tmp_path, name):
    with pytest.raises(IWAEError, match="choose another `output`") as raised:
        check_output(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_the_link_to_a_page(tmp_path):
    for name in ("a run: #1? 100%", "caf\udce9"):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        assert explorer_link(run, run) is None
        (run / NAME).touch()
        assert explorer_link(run, run) == NAME
    run = tmp_path / "runs" / "a run: #1? 100%"
    assert explorer_link(run, tmp_path) == "runs/a%20run%3A%20%231%3F%20100%25/explore.html"
    assert explorer_link(run, tmp_path / "other") == "../runs/a%20run%3A%20%231%3F%20100%25/explore.html"
    assert explorer_link(tmp_path / "runs" / "caf\udce9", tmp_path) == "runs/caf%E9/explore.html"
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / NAME).symlink_to(Path("/etc/passwd"))
    assert explorer_link(linked, linked) is None
