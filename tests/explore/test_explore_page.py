"""The page of `iwae explore` as a user meets it: written by the command, opened from the file system in Chromium."""

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.explorer import HOSTILE, OpenModel, rough_model
from helpers.numpy_model import SMALL
from helpers.small_runs import COMMAND, environment, go, small_config, write_data
from helpers.toy import toy_dataset
from iwae import load
from iwae.evaluation.visualization import TRAVERSED_PROBABILITIES, traverse
from iwae.explore.write import render
from iwae.report.captions import CAPTIONS

DEADLINE = 120
BINARY = dataclasses.replace(SMALL[2], kinds=("bernoulli", "bernoulli"))
# A run's directory may have any name.
NAME = 'a <b>run & "more" #1?'


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run on images of 5 by 6, with its page, as the command writes it."""
    directory = tmp_path_factory.mktemp("explore")
    data = write_data(directory / "d.npz", shape=(5, 6), num_train=200)
    go(directory / NAME, small_config(data, model="iwae", k=5, latent=(4,)), stages=3)
    command = [str(COMMAND), "explore", str(directory / NAME), "--no-open"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=DEADLINE, check=True)
    page = directory / NAME / "explore.html"
    assert done.stdout == f"Written: {page}\n"
    assert "error" not in done.stderr
    return page


class Page:
    """The open page, with what a user does and sees."""

    def __init__(self, browser: Any, path: Path):
        self.browser = browser
        self.console()
        browser.get_log("performance")
        browser.get(path.as_uri())
        self.start = self.picture("decoded")

    def element(self, name: str) -> Any:
        return self.browser.find_element("id", name)

    def elements(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def click(self, name: str) -> None:
        self.element(name).click()

    def picture(self, name: str) -> np.ndarray:
        """A canvas's pixels, `[height, width, 4]`."""
        script = """
            const canvas = document.getElementById(arguments[0]);
            const {width, height} = canvas;
            return [height, width, Array.from(canvas.getContext("2d").getImageData(0, 0, width, height).data)];
        """
        height, width, pixels = self.browser.execute_script(script, name)
        return np.array(pixels).reshape(height, width, 4)

    def label(self, name: str) -> str:
        return self.element(name).get_attribute("aria-label")

    def values(self) -> list[float]:
        return [float(slider.get_property("value")) for slider in self.elements("#sliders input")]

    def fill(self, name: str, text: str) -> None:
        self.element(name).clear()
        self.element(name).send_keys(text)

    def console(self) -> list[str]:
        messages = [entry["message"] for entry in self.browser.get_log("browser")]
        # It advises about this test's own reading of pixels.
        return [message for message in messages if "willReadFrequently" not in message]

    def window(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.fixture
def page(browser: Any, written: Path) -> Iterator[Page]:
    opened = Page(browser, written)
    yield opened
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert opened.console() == []


def greys(pixels: np.ndarray) -> np.ndarray:
    """An image's values in [0, 1]."""
    assert np.all(pixels[..., 3] == 255)
    assert np.ptp(pixels[..., :3], axis=-1).max() == 0
    return pixels[..., 0] / 255


def test_it_opens_with_a_labelled_slider_for_each_unit(page, written):
    assert page.element("title").text == NAME
    assert page.browser.title == f"{NAME} – iwae explore"
    labels = [label.text for label in page.elements("#sliders label")]
    assert labels
    assert all(label.startswith("Unit ") and "variance" in label for label in labels)
    variances = [float(label.split()[-1]) for label in labels]
    assert variances == sorted(variances, reverse=True)
    for control in page.elements("input, button, canvas"):
        assert control.accessible_name or not control.is_displayed()
    assert page.values() == [0.0] * len(labels)
    assert not page.element("error").is_displayed()
    assert not page.element("encoded-results").is_displayed()
    facts = page.element("facts").text
    assert "IWAE, k = 5, seed 0" in facts
    assert "after 3 stages" in facts


def test_it_loads_nothing(page):
    page.click("random")
    page.click("prior")
    sent = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
    requests = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    assert requests
    assert all(url.startswith(("file:", "data:")) for url in requests)


def test_moving_a_slider_shows_the_models_mean_there(page, written):
    slider = page.elements("#sliders input")[0]
    # The keyboard moves it: to its end.
    slider.send_keys("\ue010")
    assert page.values()[0] == 4.0
    assert page.elements("#sliders output")[0].text == "+4.00"
    assert page.values()[1:] == [0.0] * (len(page.values()) - 1)
    unit = int(page.elements("#sliders label")[0].text.split()[1])
    expected = traverse(load(written.parent), [unit], [0.0, 4.0])[0].reshape(2, 5, 6)
    for pixels, mean in zip((page.start, page.picture("decoded")), expected, strict=True):
        np.testing.assert_allclose(greys(pixels), mean, atol=0.51 / 255)


def test_the_prior_sets_the_sliders_and_reset_sets_them_back(page):
    page.click("prior")
    first = page.picture("decoded")
    assert not np.array_equal(first, page.start)
    assert all(page.values())
    assert page.element("status").text == "Draw 1 from the prior."
    page.click("prior")
    assert page.element("status").text == "Draw 2 from the prior."
    assert not np.array_equal(page.picture("decoded"), first)
    page.click("reset")
    np.testing.assert_array_equal(page.picture("decoded"), page.start)
    assert not any(page.values())


def test_encoding_shows_the_reconstruction_and_its_figures(page):
    page.fill("index", "7")
    page.fill("k", "30")
    page.click("encode")
    size, _, samples = page.element("ess").text.partition(" of ")
    assert 1.0 <= float(size) <= 30.0
    assert samples == "30"
    found = page.browser.execute_script("return encodeExample(7, 30)")
    assert page.element("log-likelihood").text == f"{found['logLikelihood']:.2f}".replace("-", "−")
    recorded = page.browser.execute_script("return about.examples.log_likelihood[7]")
    assert page.element("recorded").text == f"{recorded:.2f}".replace("-", "−")
    original, reconstruction = (greys(page.picture(name)) for name in ("stored", "reconstruction"))
    assert set(np.unique(original)) == {0.0, 1.0}
    assert 0 < np.abs(original - reconstruction).mean() < 0.5
    assert page.label("reconstruction").endswith("test image 7")
    # These data are binary: a binarized picture would be the stored one again.
    assert not page.element("binarized-figure").is_displayed()
    page.click("to-posterior")
    assert not np.array_equal(page.picture("decoded"), page.start)
    assert any(page.values())
    assert page.element("status").text == "The posterior mean of test image 7."


def test_a_random_image_is_encoded(page):
    page.click("random")
    assert page.element("encoded-results").is_displayed()
    assert page.label("stored").startswith(f"test image {page.element('index').get_property('value')}")


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(page, width, scheme):
    page.window(width, 900)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.click("random")
    assert page.browser.execute_script("return document.documentElement.scrollWidth") <= width
    color = page.browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    brightness = sum(json.loads(color.removeprefix("rgb").replace("(", "[").replace(")", "]"))) / 3
    assert (brightness < 128) == (scheme == "dark")


@pytest.mark.parametrize(("field", "value"), [("index", "99999"), ("index", "1.5"), ("index", ""), ("k", "0")])
def test_what_is_out_of_range_is_said_until_something_succeeds(page, field, value):
    ends = {"index": ("Index", "0 to 29"), "k": ("Samples k", "1 to 500")}[field]
    page.fill("index", "3")
    page.fill(field, value)
    page.click("encode")
    assert page.element("error").text == f"{ends[0]} must be a whole number from {ends[1]}."
    assert page.element("error").get_attribute("role") == "alert"
    assert page.element(field).get_attribute("aria-invalid") == "true"
    assert not page.element("encoded-results").is_displayed()
    page.fill(field, "5")
    page.click("encode")
    assert not page.element("error").is_displayed()
    assert page.element("encoded-results").is_displayed()


def test_no_part_of_the_page_hides_its_end_in_a_scrollbar_of_its_own(page):
    page.window(1400, 800)
    page.click("encode")
    inner = (
        "return [...document.querySelectorAll('main *')].filter(e => e.clientHeight && getComputedStyle(e).overflowY"
    )
    assert page.browser.execute_script(inner + " === 'auto').length") == 0
    page.browser.execute_script("window.scrollTo(0, document.documentElement.scrollHeight)")
    bottom = "return document.getElementById('encode-panel').getBoundingClientRect().bottom"
    assert page.browser.execute_script(bottom) <= 800


def test_figures_that_are_not_finite_are_said_in_words(page):
    page.browser.execute_script("about.decoder[0].outputs.bias.fill(NaN); about.examples.log_likelihood[0] = null")
    page.click("encode")
    assert page.element("log-likelihood").text == page.element("recorded").text == "not finite"
    assert page.element("ess").text == "not finite"
    assert not greys(page.picture("reconstruction")).any()


def test_a_damaged_page_is_said_in_words(browser, written, tmp_path):
    damaged = tmp_path / "damaged.html"
    damaged.write_text(written.read_text().replace('"units":[{', '"units":[{{', 1))
    browser.get(damaged.as_uri())
    error = browser.find_element("id", "error").text
    assert error.startswith("This page is damaged (")
    assert "iwae explore" in error


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_from_files_are_shown_as_they_are(browser, written, tmp_path, text):
    content = json.loads(written.read_text().partition('type="application/json">')[2].partition("</script>")[0])
    path = tmp_path / "hostile.html"
    path.write_text(render(text, [(text, text)], content))
    page = Page(browser, path)
    script = """
        const shown = ["#title", "#facts dt", "#facts dd"].map((part) => document.querySelector(part).textContent);
        const count = (tags) => document.querySelectorAll(tags).length;
        return [shown, count("script"), count("svg, img"), typeof hacked];
    """
    shown, scripts, pictures, hacked = browser.execute_script(script)
    assert shown == [text.replace("\udce9", "\\udce9")] * 3
    assert (scripts, pictures, hacked) == (3, 0, "undefined")
    assert page.values()
    assert page.console() == []


def test_no_script_but_its_own_runs_and_nothing_can_be_fetched(browser, written):
    page = Page(browser, written)
    page.browser.execute_script("""
        const script = document.createElement("script");
        script.textContent = "window.hacked = 1";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", "<img src=http://127.0.0.1:1/x onerror='window.hacked = 1'>");
    """)
    fetched = "const done = arguments[0]; fetch('http://127.0.0.1:1/').then(() => done(1), (e) => done(String(e)))"
    assert "Failed to fetch" in page.browser.execute_async_script(fetched)
    assert page.browser.execute_script("return typeof hacked") == "undefined"
    refused = [message for message in page.console() if "Content Security Policy" in message]
    assert len(refused) >= 3


# Other models and data


def test_vectors_that_are_no_images_are_strips_of_bars(browser, open_model: OpenModel):
    model = rough_model(SMALL[2])
    page = Page(browser, open_model(model, toy_dataset()))
    assert page.element("strip-note").is_displayed()
    assert page.element("encode-heading").text == "A test example"
    mean = traverse(model, [0], [0.0])[0, 0]
    assert page.start.shape == (48, 6, 4)
    np.testing.assert_allclose(page.start[..., 3].sum(axis=0) / 255 / 48, mean, atol=0.01)
    # Each column is opaque below its value and clear above.
    assert np.all(np.diff(page.start[..., 3], axis=0) >= 0)
    page.click("encode")
    assert page.element("binarized-figure").is_displayed()
    stored, bits = (page.picture(name)[..., 3].sum(axis=0) / 255 / 48 for name in ("stored", "binarized"))
    np.testing.assert_allclose(stored, toy_dataset().test[0] / 255, atol=0.01)
    assert set(bits) <= {0.0, 1.0}
    assert "layer 2, the top one" in page.element("units-note").text
    assert page.console() == []


def test_binary_units_move_between_zero_and_one(browser, open_model: OpenModel):
    model = rough_model(BINARY)
    page = Page(browser, open_model(model, toy_dataset()))
    labels = [int(label.text.split()[1]) for label in page.elements("#sliders label")]
    probabilities = np.asarray(jax.nn.sigmoid(model.prior.logits))[labels]
    np.testing.assert_allclose(page.values(), probabilities, atol=0.006)
    assert page.element("reset").text == "Reset to the prior's mean"
    assert "Each is 0 or 1" in page.element("units-note").text
    page.click("prior")
    assert set(page.values()) <= {0.0, 1.0}
    slider = page.elements("#sliders input")[0]
    slider.send_keys("\ue010")
    page.click("reset")
    np.testing.assert_allclose(page.values(), probabilities, atol=0.006)
    np.testing.assert_array_equal(page.picture("decoded"), page.start)
    assert page.console() == []


def test_without_test_examples_there_is_nothing_to_encode(browser, open_model: OpenModel):
    dataset = dataclasses.replace(toy_dataset(), test=np.zeros((0, 6), np.uint8))
    page = Page(browser, open_model(rough_model(SMALL[1]), dataset))
    assert not page.element("encode-panel").is_displayed()
    assert page.values()
    assert page.console() == []


def test_traversals_of_binary_units_go_from_zero_to_one():
    model = rough_model(BINARY)
    images = traverse(model, [1], (0.0, 1.0))
    for column, value in enumerate((0.0, 1.0)):
        top = np.asarray(model.prior.mean).copy()
        top[1] = value
        decoded = jnp.asarray(top)[None]
        for layer in reversed(model.decoder):
            decoded = layer(decoded).mean
        np.testing.assert_allclose(images[0, column], decoded[0], rtol=1e-5)
    assert (TRAVERSED_PROBABILITIES[0], TRAVERSED_PROBABILITIES[-1]) == (0, 1)
    analysis: Any = {"layers": [{"active": 2}], "architecture": {"kinds": ["gaussian", "bernoulli"]}}
    alt = CAPTIONS["traversals"].alt(analysis)
    assert "columns for values from 0 to 1" in alt
