"""Diagnostics against closed forms and the results that are known of the estimators."""

import importlib.util
import json
import math
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.linear_gaussian import LinearGaussian
from iwae import bounds
from iwae.cli import main
from iwae.errors import IWAEError
from iwae.estimators.bound import Reparameterized
from iwae.estimators.objective import Objective
from iwae.evaluation.gradient_quality import (
    _gap,  # pyright: ignore[reportPrivateUsage]
    _Moments,  # pyright: ignore[reportPrivateUsage]
    gradient_quality,
    mean_effective_sample_size,
    pareto_k,
    pareto_limit,
    unbiased,
)


@pytest.fixture(scope="module")
def signal_to_noise():
    """The script that draws the documentation's figure."""
    path = Path(__file__).parents[2] / "docs" / "signal_to_noise.py"
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
    (found,) = gradient_quality(model, x, [Objective("iwae", k=4)], draws=6000, reference_k=4)
    draw = jax.jit(lambda key: Reparameterized(4, bounds.iwae)(model, x, key).gradient.encoder)
    rows = np.array(
        [
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(draw(key))]) / 3
            for key in jax.random.split(jax.random.key(7), 6000)
        ]
    )
    assert found.encoder.variance == pytest.approx(rows.var(axis=0, ddof=1).sum(), rel=0.2)
    expected = np.sqrt((rows.mean(0) ** 2).sum() - rows.var(axis=0, ddof=1).sum() / 6000)
    assert found.encoder.mean_norm == pytest.approx(expected, rel=0.1)
    assert not found.encoder.bias.is_visible


def test_the_elbos_decoder_is_biased_against_a_tight_bound_and_a_tight_bound_is_not():
    exact = LinearGaussian.random(1)
    model = jax.tree.map(jnp.float32, exact.model(shift=0.5, widen=1.3))
    x = jnp.asarray(exact.sample(3), jnp.float32)
    one, many = gradient_quality(
        model, x, [Objective("iwae", k=1), Objective("iwae", k=300)], draws=3000, reference_k=1000
    )
    assert one.decoder.to_large_k.norm > 4 * one.decoder.to_large_k.resolution
    assert not many.decoder.to_large_k.is_visible
    # Both are unbiased for their own bounds.
    assert not one.decoder.bias.is_visible
    assert not many.decoder.bias.is_visible


def test_bias_is_seen_where_there_is_one_and_nowhere_else():
    exact = LinearGaussian.random(2)
    model = jax.tree.map(jnp.float32, exact.model(shift=0.5, widen=1.2))
    x = jnp.asarray(exact.sample(3), jnp.float32)
    words = ["iwae", "iwae:dreg", "iwae:score", "vr-max", "piwae:m=2", "iwae:stl", "rws:rws-dreg", "iwae:dreg:alpha=1"]
    found = gradient_quality(model, x, [Objective.parse(word, 4) for word in words], draws=3000, reference_k=8)
    biased = {word for word, quality in zip(words, found, strict=True) if quality.encoder.bias.is_visible}
    # Wake-phi is its own objective, and no gradient of L_k.
    assert biased == {"iwae:stl", "iwae:dreg:alpha=1"}
    assert not any(quality.decoder.bias.is_visible for quality in found)


def test_what_noise_alone_does_is_rarely_called_visible():
    rng = np.random.default_rng(0)
    for mixing in (np.ones((1, 9)), np.eye(9), rng.normal(size=(9, 9))):
        seen = 0
        for _ in range(400):
            sides = [rng.normal(size=(100, len(mixing))) @ mixing for _ in range(2)]
            ours, theirs = (_Moments({"encoder": s.mean(0)}, {"encoder": s.var(0, ddof=1)}, 100) for s in sides)
            seen += _gap(ours, theirs, "encoder").is_visible
        # 5 % of 400, and four standard deviations.
        assert seen <= 38


@pytest.mark.parametrize(
    ("word", "binary", "expected"),
    [
        ("iwae:stl", False, "iwae:dreg"),
        ("iwae:dreg:alpha=0.5", False, "iwae:dreg"),
        ("vimco", False, "iwae:dreg"),
        ("ovis:gamma=0.3", True, "vimco"),
        ("iwae:score", True, "vimco"),
        ("renyi:score:alpha=0.5", False, "renyi:dreg:alpha=0.5"),
        ("ciwae:score:beta=0.5", True, "ciwae:score:beta=0.5"),
        ("vr-max:stl", False, "vr-max"),
        ("miwae:stl:m=2", False, "miwae:dreg:m=2"),
        ("piwae:m=2", False, "piwae:dreg:m=2"),
        ("rws", False, "rws:rws-dreg"),
        ("rws", True, "rws"),
        ("rws:sleep=0.5", False, "rws:sleep=0.5"),
    ],
)
def test_the_reference_is_unbiased_for_the_same_objective(word, binary, expected):
    assert unbiased(Objective.parse(word, 3), binary) == Objective.parse(expected, 3)


def test_with_one_sample_binary_latents_have_the_score_function():
    assert unbiased(Objective.parse("iwae:score", 1), binary=True) == Objective.parse("iwae:score", 1)


def test_effective_sample_size_by_hand():
    # (1 + 1 + 2)^2 / (1 + 1 + 4) and 1: weights of any size, one that is zero.
    log_weights = np.add(np.log([[1.0, 1.0, 2.0], [1.0, 1e-300, 1e-300]]), [[-900.0], [500.0]])
    assert mean_effective_sample_size(log_weights) == pytest.approx((16 / 6 + 1) / 2)


def test_the_limit_of_pareto_k_falls_with_the_number_of_samples():
    assert pareto_limit(100) == pytest.approx(0.5)
    assert pareto_limit(1000) == pytest.approx(2 / 3)
    assert pareto_limit(10_000) == 0.7


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
    assert record["gradient_examples"] == 4
    assert 0 <= record["weights"]["pareto_k"]["share_above_limit"] <= 1
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
        (["--estimators", "iwae:magic"], "estimator must be one of"),
        (["--estimators", "iwae:power=2"], "'iwae:power=2': expected a word such as"),
        (["--estimators", "ciwae:beta=much"], "beta must be a number, got 'much'"),
        (["--estimators", "vimco", "--k", "1"], "nothing to diagnose at k = 1, since vimco compare samples"),
        (["--estimators", "miwae"], "'miwae': miwae needs m"),
        (["--estimators", "vae"], "'vae': objective must be one of elbo, iwae"),
        (["--estimators", "iwae:beta=1"], "'iwae:beta=1': beta 1.0 goes with ciwae, not with iwae"),
        (["--weight-samples", "50"], "--weight-samples must be an integer of at least 100, got 50"),
        (["--draws", "0"], "--draws must be an integer of at least 1, got 0"),
        (["--draws", "9"], "--draws must be at least 10, got 9"),
        (["--reference-k", "3", "--k", "4"], "--reference-k must be at least the largest k, 4, got 3"),
        (["--seed", "-1"], "--seed must be an integer from 0 to 2^32 - 1, got -1"),
        (["--estimators", "miwae:m=2.5"], "m must be an integer, got '2.5'"),
    ],
)
def test_the_command_refuses_what_has_no_meaning_in_one_line(trained, arguments, problem, tmp_path, capsys):
    path = shutil.copytree(trained[0], tmp_path / "run", ignore=shutil.ignore_patterns("diagnostics"))
    assert main(["diagnose", str(path), *arguments]) != 0
    error = capsys.readouterr().err
    assert problem in error
    assert len(error.strip().splitlines()) == 1
    assert not (path / "diagnostics").exists()


def test_what_is_left_out_at_one_sample_is_said(trained, capsys):
    path, kind = trained
    words = ["vimco", "rws:sleep=1"] if kind == "bernoulli" else ["jvi", "rws:sleep=1"]
    assert main(["diagnose", str(path), *QUICK, "--estimators", *words]) == 0
    captured = capsys.readouterr()
    assert f"{words[0]} compares samples: it is left out at k = 1." in captured.err
    record = json.loads((path / "diagnostics" / "diagnostics.json").read_text())
    found = [(one["estimator"], one["k"]) for one in record["gradients"]]
    assert found == [(words[0], 3), (words[1], 1), (words[1], 3)]


def test_binary_latents_refuse_path_derivatives(trained, capsys):
    path, kind = trained
    if kind == "gaussian":
        pytest.skip("Gaussian latents have them")
    assert main(["diagnose", str(path), "--estimators", "iwae:dreg"]) == 1
    assert "this run's latents are binary: choose among iwae:score" in capsys.readouterr().err
