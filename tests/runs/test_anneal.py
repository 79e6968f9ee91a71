"""Annealed importance sampling of a run: the record, what shows it, and an interrupted measurement that goes on."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import iwae
from helpers.small_runs import go, small_config, write_data
from iwae.cli.app import main
from iwae.data import load_dataset
from iwae.evaluation.chains import AnnealedSettings
from iwae.runs import anneal, evaluate
from iwae.runs.directory import Run
from iwae.runs.reporter import Reporter

SETTINGS = AnnealedSettings(chains=3, steps=4, leapfrogs=2)
OPTIONS = ["--method", "ais", "--chains", "3", "--steps", "4", "--leapfrogs", "2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("annealed")
    go(directory / "run", small_config(write_data(directory / "d.npz", num_train=100)), stages=2)
    return directory / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    return Run(shutil.copytree(trained, tmp_path / "run"))


def measure(run: Run, examples: int | None = None) -> Any:
    run = Run.open(run.path)
    data, checkpoint = load_dataset(run.config.dataset), run.checkpoint()
    how: dict[str, Any] = {"settings": SETTINGS, "examples": examples, "reporter": Reporter()}
    return anneal.anneal_checkpoint(run, checkpoint, data, "train", **how)


def test_the_record_is_of_the_librarys_figures(run: Run) -> None:
    found = measure(run)
    data = load_dataset(Run.open(run.path).config.dataset)
    expected = iwae.ais(iwae.load(run.path), data, "train", chains=3, steps=4, leapfrogs=2)
    with np.load(found.path.with_suffix(".npz")) as arrays:
        np.testing.assert_array_equal(arrays["log_weights"], expected.log_weights)
        np.testing.assert_array_equal(arrays["log_likelihood"], expected.log_likelihood)
        np.testing.assert_array_equal(arrays["acceptance"], expected.acceptance)
    record = json.loads(found.path.read_text())
    assert record == found.record
    assert record["nll"] == pytest.approx(expected.nll)
    assert record["stderr"] == pytest.approx(expected.nll_stderr)
    assert (record["num_examples"], record["split_examples"]) == (100, 100)
    assert found.path.name == "2-train-ais-3x4x2.json"
    assert not list(run.evaluations_path.glob("*unfinished*"))


def test_an_interrupted_measurement_goes_on_to_the_same_bits(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(run).path.with_suffix(".npz")
    expected = whole.read_bytes()
    for path in run.evaluations_path.glob("*-ais-*"):
        path.unlink()
    calls, real = [], iwae.ais

    def twice(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["indices"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(anneal, "ais", twice)
    with pytest.raises(KeyboardInterrupt):
        measure(run)
    (unfinished,) = run.evaluations_path.glob("*.unfinished.npz")
    assert not whole.exists()
    assert measure(run).path.with_suffix(".npz") == whole
    assert [len(part) for part in calls] == [64, 36, 36]
    assert whole.read_bytes() == expected
    assert not unfinished.exists()


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_damaged_part_is_measured_again(run: Run, content: bytes) -> None:
    expected = measure(run, examples=5)
    before = expected.path.with_suffix(".npz").read_bytes()
    digest = expected.record["weights_sha256"][:16]
    expected.path.with_suffix(f".{digest}.unfinished.npz").write_bytes(content)
    assert measure(run, examples=5).path.with_suffix(".npz").read_bytes() == before


def test_the_command_prints_it_and_show_results_and_analyze_have_it(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run.path), *OPTIONS, "--examples", "10", "--start", "prior", "--seed", "3"]) == 0
    assert main(["evaluate", str(run.path), *OPTIONS]) == 0
    out = capsys.readouterr().out
    assert "test NLL, AIS: " in out
    assert "Standard error over chains alone: 0." in out
    assert (run.evaluations_path / "2-test-ais-3x4x2-prior-seed3-first10.npz").exists()
    record = json.loads((run.evaluations_path / "2-test-ais-3x4x2.json").read_text())
    (row,) = iwae.results(run.path)
    assert (row["ais_nll"], row["ais_num_examples"], row["ais_steps"]) == (record["nll"], 30, 4)
    assert main(["analyze", str(run.path), "--samples", "5"]) == 0
    figure = f"{record['nll']:.2f} ± {record['stderr']:.2f}"
    line = f"Test NLL by AIS: {figure} nats, all 30 test examples, 3 chains of 4 steps"
    assert line in capsys.readouterr().out
    assert main(["show", str(run.path)]) == 0
    assert f"AIS {record['nll']:.2f} ± {record['stderr']:.2f}" in capsys.readouterr().out
    # Of other weights it says nothing.
    results = json.loads(run.results_path.read_text())
    run.results_path.write_text(json.dumps({**results, "weights_sha256": "0" * 64}))
    assert Run.open(run.path).annealed() == (None, None)


def test_a_ladder_of_k_is_a_record_each_and_a_picture_with_ais_of_the_same_examples(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(evaluate, "ladder_chart", lambda *given: drawn.append(given) or b"picture")
    for examples in ("10", "20"):
        assert main(["evaluate", str(run.path), *OPTIONS, "--examples", examples]) == 0
    annealed = json.loads((run.evaluations_path / "2-test-ais-3x4x2-first10.json").read_text())
    assert main(["evaluate", str(run.path), "--samples", "120,5", "--examples", "15"]) == 0
    out = capsys.readouterr().out
    assert "Pareto k-hat: median" in out
    assert f"NLL over k, of 10 examples: {run.evaluations_path / '2-test-ladder.png'}" in out
    data = load_dataset(Run.open(run.path).config.dataset)
    values = []
    for k in (5, 120):
        with np.load(run.evaluations_path / f"2-test-{k}-first15.npz") as arrays:
            alone = iwae.likelihoods(iwae.load(run.path), data, num_samples=k, max_examples=15)
            np.testing.assert_allclose(arrays["log_likelihood"], alone.log_likelihood, atol=1e-4)
            values.append(arrays["log_likelihood"])
        assert json.loads((run.evaluations_path / f"2-test-{k}-first15.json").read_text())["num_samples"] == k
    # AIS of 20 examples is of others than the 15 here: that of 10 serves, and L_k is that of the same 10.
    ((ks, lines, asymptote),) = drawn
    assert (ks, asymptote) == ([5, 120], (annealed["nll"], annealed["chain_stderr"]))
    assert lines["-L_k"] == [pytest.approx(-found[:10].mean()) for found in values]
    assert lines["JVI-2"][1] < lines["-L_k"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chains", "0"], "--chains must be an integer of at least 1, got 0"),
        (["--steps", "-1"], "--steps must be an integer of at least 1, got -1"),
        (["--examples", "0"], "--examples must be an integer of at least 1, got 0"),
    ],
)
def test_what_has_no_meaning_is_one_line(
    run: Run, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run.path), "--method", "ais", *options]) == 1
    assert message in capsys.readouterr().err
    assert not list(run.evaluations_path.glob("*-ais-*"))


def test_binary_latents_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"objective": "vimco", "k": 3, "latent_kind": "bernoulli"}
    go(tmp_path / "run", small_config(write_data(tmp_path / "d.npz"), **options), stages=1)
    assert main(["evaluate", str(tmp_path / "run"), *OPTIONS]) == 1
    assert "needs Gaussian latent layers" in capsys.readouterr().err


def test_moves_that_are_refused_are_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    text = anneal.low_acceptance(np.array([0.05, 0.5]))
    assert text is not None
    assert text.startswith("1 of 2 examples have moves that are accepted in under 10 % of cases")
    assert anneal.low_acceptance(np.array([0.5])) is None
