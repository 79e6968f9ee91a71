"""Certificates of a run: the record and its sentence, and an interrupted one that goes on."""

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
from iwae.runs import certify
from iwae.runs.directory import Run
from iwae.runs.records import read_checked

NAME = "1-certify-9-3x2.json"
OPTIONS = ["--samples", "4,100", "--steps", "5,2", "--chains", "3", "--leapfrogs", "2", "--examples", "9"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certified")
    go(directory / "run", small_config(write_data(directory / "d.npz")), stages=1)
    return directory / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(trained, tmp_path / "run"))


def test_the_record_is_of_the_librarys_figures_and_the_sentence_of_the_record(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certify", str(run.path), *OPTIONS]) == 0
    out = capsys.readouterr().out
    record = read_checked(run.evaluations_path / NAME, certify.CertificateRecord, "")
    model, data = iwae.load(run.path), load_dataset(run.config.dataset)
    settings = AnnealedSettings(chains=3, leapfrogs=2)
    expected = list(iwae.certify(model, num_examples=9, ks=[4, 100], steps=[2, 5], settings=settings))
    on_test = [iwae.likelihoods(model, data, num_samples=k, max_examples=9).nll for k in (4, 100)]
    on_test += [iwae.ais(model, data, chains=3, steps=n, leapfrogs=2, indices=range(9)).nll for n in (2, 5)]
    for row, bracket, nll in zip(record["budgets"], expected, on_test, strict=True):
        assert (row["method"], row["samples"], row["steps"]) == (bracket.method, bracket.samples, bracket.steps)
        assert (row["gap"], row["gap_stderr"]) == (pytest.approx(bracket.gap), pytest.approx(bracket.stderr))
        assert (row["lower"], row["upper"]) == (
            pytest.approx(bracket.lower.mean()),
            pytest.approx(bracket.upper.mean()),
        )
        assert row["test_nll"] == pytest.approx(nll, abs=1e-4)
    said = record["conclusion"]
    assert f"on average {expected[3].gap:.2f} ± {expected[3].stderr:.2f} nats, and L_100 no further than" in said
    assert f"than {expected[1].gap:.2f} ± {expected[1].stderr:.2f}, up to these standard errors" in said
    assert f"the NLL is at most {on_test[3]:.2f} nats by AIS" in said
    assert record["conclusion"] in out
    assert "on real data only the lower bound holds" in out


def test_an_interrupted_certificate_goes_on_to_the_same_figures(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    assert main(["certify", str(run.path), *OPTIONS]) == 0
    expected = json.loads((run.evaluations_path / NAME).read_text())
    for path in run.evaluations_path.glob("1-*"):
        path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(certify, "evaluate_ladder", stop)
        assert main(["certify", str(run.path), *OPTIONS]) == 130
    (unfinished,) = run.evaluations_path.glob("*.unfinished.npz")
    kept = unfinished.read_bytes()
    with np.load(unfinished) as arrays:
        assert {len(arrays[name]) for name in arrays} == {9}
        assert len(arrays) == 8
    with monkeypatch.context() as patch:
        # Nothing on simulated data is computed again.
        patch.setattr(certify, "importance_brackets", stop)
        patch.setattr(certify, "annealed_bracket", stop)
        assert main(["certify", str(run.path), *OPTIONS]) == 0
    found = json.loads((run.evaluations_path / NAME).read_text())
    assert (found["budgets"], found["conclusion"]) == (expected["budgets"], expected["conclusion"])
    assert not unfinished.exists()
    # Nor is what is whole on the test set; a damaged part is.
    unfinished.write_bytes(kept[:100])
    monkeypatch.setattr(certify, "anneal_checkpoint", stop)
    assert main(["certify", str(run.path), *OPTIONS]) == 0
    assert json.loads((run.evaluations_path / NAME).read_text())["budgets"] == expected["budgets"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chains", "0"], "--chains must be an integer of at least 1, got 0"),
        (["--steps", "3,0"], "--steps must be an integer of at least 1, got 0"),
        (["--samples", "0"], "--samples must be an integer of at least 1, got 0"),
        (["--examples", "0"], "--examples must be an integer of at least 1, got 0"),
    ],
)
def test_what_has_no_meaning_is_one_line(
    run: Run, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certify", str(run.path), *options]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert message in line


def test_binary_latents_are_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"objective": "vimco", "k": 3, "latent_kind": "bernoulli"}
    go(tmp_path / "run", small_config(write_data(tmp_path / "d.npz"), **options), stages=1)
    assert main(["certify", str(tmp_path / "run"), *OPTIONS]) == 1
    assert "needs Gaussian latent layers" in capsys.readouterr().err
    assert not list((tmp_path / "run/evaluations").glob("*certify*"))
