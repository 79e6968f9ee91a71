"""`iwae diagnose`: its figures and numbers, and what it refuses."""

import json
import shutil
import sys

import numpy as np
import pytest

from iwae.cli import main
from iwae.errors import IWAEError
from iwae.evaluation import importance_weights
from iwae.runs.diagnose import diagnose_run
from iwae.runs.options import DiagnoseOptions


@pytest.fixture(scope="module", params=["gaussian", "bernoulli"])
def trained(request, tmp_path_factory):
    """A short run on small data of one's own."""
    directory = tmp_path_factory.mktemp("diagnosed")
    data = directory / "own.npy"
    np.save(data, (np.random.default_rng(0).random((60, 6)) < 0.4).astype(np.uint8))
    binary = ["--hidden", "4", "--objective", "vimco", "--latent-kind", "bernoulli"]
    objective = binary if request.param == "bernoulli" else ["--hidden", "4"]
    arguments = ["--dataset", str(data), "--k", "2", "--latent", "3", "--test-samples", "20"]
    path = directory / "run"
    assert main(["train", *arguments, *objective, "--stages", "1", "--run-dir", str(path)]) == 0
    return path, request.param


ONE = pytest.mark.parametrize("trained", ["bernoulli"], indirect=True)
QUICK = ["--k", "3", "--draws", "20", "--reference-k", "10", "--examples", "4", "--weight-samples", "100"]


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
    assert set(record["weights"]["effective_sample_size"]) == {"3", "100"}
    for name in record["pictures"]:
        assert (path / "diagnostics" / name).read_bytes().startswith(b"\x89PNG")


@ONE
def test_a_shape_that_is_not_defined_is_null(trained, monkeypatch):
    path, _ = trained
    options = DiagnoseOptions(k=(3,), estimators=("rws",), draws=10, reference_k=3, examples=2, weight_samples=100)
    for shapes, expected in (
        ([np.nan] * 2, {"median": None, "share_above_limit": None, "examples": 0}),
        ([np.nan, 0.1, np.inf, np.inf], {"median": None, "share_above_limit": 2 / 3, "examples": 3}),
    ):
        monkeypatch.setattr(importance_weights, "pareto_k", lambda _, shapes=shapes: np.array(shapes))
        assert diagnose_run(path, options=options)["weights"]["pareto_k"] == {"limit": 0.5, **expected}


@ONE
def test_what_is_not_installed_is_said_before_any_work(trained, tmp_path, monkeypatch):
    path = shutil.copytree(trained[0], tmp_path / "run", ignore=shutil.ignore_patterns("diagnostics"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(IWAEError, match=r'this needs matplotlib, .*: pip install "iwae\[report\]"'):
        diagnose_run(path)
    assert not (path / "diagnostics").exists()


@pytest.mark.parametrize("trained", ["gaussian"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--estimators", "iwae:magic"], "estimator must be one of"),
        (["--estimators", "nowhere:Mine"], "'nowhere:Mine': expected a known objective, or a module"),
        (["--estimators", "iwae.bounds:elbo"], "makes an iwae.Estimator of a number of samples"),
        (["--estimators", "iwae:power=2"], "'iwae:power=2': expected a word such as"),
        (["--estimators", "ciwae:beta=much"], "beta must be a number, got 'much'"),
        (["--estimators", "vimco", "--k", "1"], "nothing to diagnose at k = 1, since vimco compare samples"),
        (["--estimators", "miwae"], "'miwae': objective miwae needs m"),
        (["--estimators", "vae"], "'vae': objective must be one of elbo, iwae"),
        (["--estimators", "iwae:beta=1"], "'iwae:beta=1': beta 1.0 goes with objective ciwae"),
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


@ONE
def test_a_custom_estimator_is_a_module_and_a_class(trained, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text("from iwae.estimators.score import VIMCO\n\nclass Mine(VIMCO):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    words = ["vimco", "mine:Mine", "mine:Mine:elbo"]
    assert main(["diagnose", str(trained[0]), *QUICK, "--estimators", *words]) == 0
    record = json.loads((trained[0] / "diagnostics" / "diagnostics.json").read_text())
    assert [one["estimator"] for one in record["gradients"]] == words
    assert "mine:Mine:elbo" in capsys.readouterr().out


@ONE
def test_what_is_left_out_at_one_sample_is_said(trained, capsys):
    path, _ = trained
    assert main(["diagnose", str(path), *QUICK, "--k", "1", "3", "--estimators", "vimco", "rws:sleep=1"]) == 0
    captured = capsys.readouterr()
    assert "vimco compares samples: it is left out at k = 1." in captured.err
    record = json.loads((path / "diagnostics" / "diagnostics.json").read_text())
    found = [(one["estimator"], one["k"]) for one in record["gradients"]]
    assert found == [("vimco", 3), ("rws:sleep=1", 1), ("rws:sleep=1", 3)]


@ONE
def test_binary_latents_refuse_path_derivatives(trained, capsys):
    path, _ = trained
    assert main(["diagnose", str(path), "--estimators", "iwae:dreg"]) == 1
    assert "this run's latents are binary: choose among iwae:score" in capsys.readouterr().err
