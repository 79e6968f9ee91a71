"""Diagnostics against closed forms and the results that are known of the estimators."""

import importlib.util
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iwae import bounds
from iwae.cli import main
from iwae.diagnostics import gradient_quality, pareto_k
from iwae.errors import IWAEError
from iwae.estimators import Reparameterized
from iwae.objectives import Objective
from linear_gaussian import LinearGaussian


@pytest.fixture(scope="module")
def signal_to_noise():
    """The script that draws the documentation's figure."""
    path = Path(__file__).parents[1] / "docs" / "signal_to_noise.py"
    spec = importlib.util.spec_from_file_location("signal_to_noise", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_signal_to_noise_falls_and_grows_as_theory_says(signal_to_noise):
    words, found = signal_to_noise.measure(draws=2000, ks=(3, 100))

    def slope(word: str, group: str) -> float:
        low, high = (getattr(q, group).signal_to_noise for w, q in zip(words, found, strict=True) if w == word)
        return math.log(high / low) / math.log(100 / 3)

    assert slope("iwae", "encoder") == pytest.approx(-0.5, abs=0.15)
    for word in ("iwae:stl", "iwae:dreg", "rws:rws-dreg"):
        assert 0.3 < slope(word, "encoder") < 0.6
    for word in signal_to_noise.WORDS:
        assert slope(word, "decoder") == pytest.approx(0.5, abs=0.15)


def test_mean_and_variance_are_those_of_a_loop():
    exact = LinearGaussian.random(2)
    model = jax.tree.map(jnp.float32, exact.model(shift=0.3, widen=1.2))
    x = jnp.asarray(exact.sample(3), jnp.float32)
    (found,) = gradient_quality(model, x, [Objective("iwae", k=4)], draws=400, reference_k=4)
    draw = jax.jit(lambda key: Reparameterized(4, bounds.iwae)(model, x, key).gradient.encoder)
    rows = np.array(
        [
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(draw(key))]) / 3
            for key in jax.random.split(jax.random.key(7), 400)
        ]
    )
    assert found.encoder.variance == pytest.approx(rows.var(axis=0, ddof=1).sum(), rel=0.2)
    expected = np.sqrt((rows.mean(0) ** 2).sum() - rows.var(axis=0, ddof=1).sum() / 400)
    assert found.encoder.mean_norm == pytest.approx(expected, rel=0.1)
    # The reference is the same estimator with the same k: there is no bias to be seen.
    assert found.encoder.bias < 2 * found.encoder.bias_resolution


def test_the_elbos_decoder_is_biased_against_a_tight_bound_and_a_tight_bound_is_not():
    exact = LinearGaussian.random(1)
    model = jax.tree.map(jnp.float32, exact.model(shift=0.5, widen=1.3))
    x = jnp.asarray(exact.sample(3), jnp.float32)
    one, many = gradient_quality(
        model, x, [Objective("iwae", k=1), Objective("iwae", k=300)], draws=3000, reference_k=1000
    )
    assert one.decoder.bias > 4 * one.decoder.bias_resolution
    assert many.decoder.bias < 2 * many.decoder.bias_resolution


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_pareto_k_is_the_shape_of_the_tail(shape):
    rng = np.random.default_rng(0)
    weights = 1 + rng.pareto(1 / shape, size=(20, 5000))
    assert np.mean(pareto_k(np.log(weights))) == pytest.approx(shape, abs=0.06)


def test_pareto_k_has_no_answer_for_weights_without_a_tail():
    rows = np.zeros((3, 200))
    rows[1, 0] = -np.inf
    rows[2] = np.random.default_rng(0).normal(size=200)
    assert np.isnan(pareto_k(rows)).tolist() == [True, True, False]
    with pytest.raises(IWAEError, match="at least 100 samples, got 99"):
        pareto_k(rows[:, :99])


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"draws": 9}, "--draws must be at least 10, got 9"),
        ({"reference_k": 2}, "--reference-k must be at least the largest k, 3, got 2"),
    ],
)
def test_counts_without_meaning_are_refused(settings, problem):
    model = jax.tree.map(jnp.float32, LinearGaussian.random(1).model())
    with pytest.raises(IWAEError, match=problem):
        gradient_quality(model, jnp.zeros((1, 4)), [Objective("iwae", k=3)], **settings)


@pytest.fixture(scope="module", params=["gaussian", "bernoulli"])
def trained(request, tmp_path_factory):
    """A short run on small data of one's own."""
    directory = tmp_path_factory.mktemp("diagnosed")
    data = directory / "own.npy"
    np.save(data, (np.random.default_rng(0).random((60, 6)) < 0.4).astype(np.uint8))
    binary = ["--hidden", "4", "0", "--objective", "vimco", "--latent-kind", "bernoulli"]
    objective = binary if request.param == "bernoulli" else ["--hidden", "4", "3"]
    arguments = ["--dataset", str(data), "--k", "2", "--latent", "3", "2", "--test-samples", "20"]
    path = directory / "run"
    assert main(["train", *arguments, *objective, "--stages", "1", "--run-dir", str(path)]) == 0
    return path, request.param


QUICK = ["--k", "1", "3", "--draws", "20", "--reference-k", "10", "--examples", "4", "--weight-samples", "100"]


def test_the_command_writes_figures_and_numbers(trained, tmp_path, capsys):
    path, kind = trained
    moved = tmp_path / "moved.npy"
    moved.write_bytes((path.parent / "own.npy").read_bytes())
    capsys.readouterr()
    assert main(["diagnose", str(path), "--dataset", str(moved), *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "Gradient of the encoder" in printed
    assert all(
        len(line) <= 80 for line in printed.splitlines() if not line.startswith(("Written", "Effective", "Pareto"))
    )
    record = json.loads((path / "diagnostics" / "diagnostics.json").read_text())
    words = {one["estimator"] for one in record["gradients"]}
    assert words == (
        {"iwae", "iwae:stl", "iwae:dreg", "rws:rws-dreg"}
        if kind == "gaussian"
        else {"iwae:score", "vimco", "ovis:gamma=0", "rws"}
    )
    assert all(one["encoder"]["variance"] >= 0 for one in record["gradients"])
    assert set(record["weights"]["effective_sample_size"]) == {"1", "3", "100"}
    for name in record["pictures"]:
        assert (path / "diagnostics" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--estimators", "iwae:magic"], "--estimator must be one of"),
        (["--estimators", "iwae:power=2"], "'iwae:power=2': expected a word such as"),
        (["--estimators", "ciwae:beta=much"], "beta must be a number, got 'much'"),
        (["--estimators", "vimco", "--k", "1"], "vimco need --k of at least 2"),
        (["--weight-samples", "50"], "--weight-samples must be at least 100, got 50"),
        (["--draws", "0"], "--draws must be an integer of at least 1, got 0"),
    ],
)
def test_the_command_refuses_what_has_no_meaning_in_one_line(trained, arguments, problem, capsys):
    path, _ = trained
    assert main(["diagnose", str(path), *arguments]) != 0
    error = capsys.readouterr().err
    assert problem in error
    assert len(error.strip().splitlines()) == 1


def test_binary_latents_refuse_path_derivatives(trained, capsys):
    path, kind = trained
    if kind == "gaussian":
        pytest.skip("Gaussian latents have them")
    assert main(["diagnose", str(path), "--estimators", "iwae:dreg"]) == 1
    assert "this run's latents are binary: choose among iwae:score" in capsys.readouterr().err
