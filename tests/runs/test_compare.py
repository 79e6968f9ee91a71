"""`iwae compare`: paired differences per test example."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel

from iwae.cli import main
from iwae.errors import IWAEError
from iwae.runs.compare import compare_runs


def changed(run: Path, place: Path, change: Any, **record: Any) -> tuple[Path, np.ndarray]:
    """A copy of a run with other values of its test examples, which are returned too."""
    shutil.copytree(run, place)
    evaluation = place / json.loads((place / "results.json").read_text())["test"]["evaluation"]
    with np.load(evaluation.with_suffix(".npz")) as arrays:
        values = change(arrays["log_likelihood"])
        size = arrays["effective_sample_size"][: len(values)]
    np.savez(evaluation.with_suffix(".npz"), log_likelihood=values, effective_sample_size=size)
    found = json.loads(evaluation.read_text())
    evaluation.write_text(json.dumps({**found, "num_examples": len(values), **record}))
    return place, values


def test_differences_are_paired(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).normal(0.5, 1.0, 30)
    first, before = changed(whole, tmp_path / "first", lambda values: values)
    better, after = changed(whole, tmp_path / "better", lambda values: values + noise)
    worse, _ = changed(whole, tmp_path / "worse", lambda values: values - 1.0)
    assert main(["compare", str(first), str(better), str(worse), "--format", "json"]) == 0
    own, one, other = json.loads(capsys.readouterr().out)
    assert own["nll"] == pytest.approx(-before.mean())
    assert own["difference"] is None
    assert one["difference"] == pytest.approx(-noise.mean())
    assert one["difference"] / one["difference_stderr"] == pytest.approx(ttest_rel(before, after).statistic)
    assert one["better"] == np.mean(noise > 0)
    assert (other["difference"], other["better"]) == (pytest.approx(1.0), 0.0)
    assert other["difference_stderr"] == pytest.approx(0.0, abs=1e-12)
    assert main(["compare", str(first), str(worse)]) == 0
    shown = capsys.readouterr().out
    assert "+1.00 ± 0.00" in shown
    assert "On the first 30 test examples, L_20 of each." in shown
    assert main(["compare", str(first), str(worse), "--format", "markdown"]) == 0
    assert capsys.readouterr().out.startswith("| run | test NLL (nats) |")


def test_the_examples_that_all_have_are_compared(whole: Path, tmp_path: Path) -> None:
    first, before = changed(whole, tmp_path / "first", lambda values: values)
    few, _ = changed(whole, tmp_path / "few", lambda values: values[:12] + 2.0)
    own, other = compare_runs([first, few])
    assert (own["num_examples"], own["nll"]) == (12, pytest.approx(-before[:12].mean()))
    assert other["difference"] == pytest.approx(-2.0)


def test_an_impossible_example_leaves_no_difference(whole: Path, tmp_path: Path) -> None:
    ruined, _ = changed(whole, tmp_path / "ruined", lambda values: np.where(np.arange(30) == 3, -np.inf, values))
    assert compare_runs([whole, ruined])[1]["difference"] is None
    assert compare_runs([whole, ruined])[1]["nll"] is None


def test_what_cannot_be_compared_is_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(IWAEError, match="two runs or more"):
        compare_runs([whole])
    other, _ = changed(whole, tmp_path / "samples", lambda values: values, num_samples=7)
    with pytest.raises(IWAEError, match=r"samples was measured with 7 samples, .* with 20"):
        compare_runs([whole, other])
    other, _ = changed(whole, tmp_path / "weights", lambda values: values, weights_sha256="0" * 64)
    with pytest.raises(IWAEError, match=r"is of other weights than results\.json"):
        compare_runs([whole, other])
    other = shutil.copytree(whole, tmp_path / "data")
    results = json.loads((other / "results.json").read_text())
    results["data"]["files"][0]["checksum"] = "sha256:00"
    (other / "results.json").write_text(json.dumps(results))
    with pytest.raises(IWAEError, match="were measured on different test examples"):
        compare_runs([whole, other])
    (other / "results.json").unlink()
    with pytest.raises(IWAEError, match="is not measured yet"):
        compare_runs([whole, other])
