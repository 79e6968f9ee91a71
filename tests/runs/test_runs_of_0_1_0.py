"""A small run that version 0.1.0 trained through the first of the quick schedule's stages: read, shown, measured and
continued as that version would have.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import iwae
from helpers.small_runs import go
from iwae.cli import main
from iwae.runs.directory import Run

HERE = Path(__file__).parent / "data"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copy(HERE / "small.npz", tmp_path)
    return shutil.copytree(HERE / "run-0.1.0", tmp_path / "run")


def test_it_is_read(run: Path) -> None:
    opened = Run.open(run)
    # That version's Adam had these; its records do not say so.
    assert opened.config.adam_moments == "current"
    assert opened.architecture.latent == (3,)
    results = opened.results()
    assert results is not None
    assert results["weights_sha256"] == opened.checkpoint().weights_digest() == opened.checkpoint(1).weights_digest()
    assert [line["epoch"] for line in opened.metrics.lines()] == [1, 2, 3, 4, 5]
    assert iwae.load(run).latent == (3,)
    (row,) = iwae.results(run.parent)
    assert (row["name"], row["stages_done"], row["stages_total"], row["nll"]) == ("run", 1, 4, results["test"]["nll"])


def test_it_is_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "1/4" in shown
    assert "3.90 ± 0.12" in shown


def test_it_is_measured_to_the_same_figures(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: np.load(run / "evaluations/1-test-10.npz")[name] for name in ("log_likelihood",)}
    assert main(["evaluate", str(run), "--samples", "10", "--dataset", str(run.parent / "small.npz")]) == 0
    assert "3.90 ± 0.12" in capsys.readouterr().out
    after = np.load(run / "evaluations/1-test-10.npz")
    np.testing.assert_allclose(after["log_likelihood"], before["log_likelihood"], rtol=0, atol=1e-4)


def test_it_is_continued_to_the_same_weights(run: Path) -> None:
    """Against the weights and moments to which 0.1.0 itself trained it on."""
    config = replace(Run.open(run).config, dataset=str(run.parent / "small.npz"))
    assert go(run, config, stages=2)["stages_done"] == 2
    expected, found = load_file(HERE / "continued-2.safetensors"), load_file(run / "checkpoints/2.safetensors")
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-6, err_msg=name)
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["epoch"] == 7
