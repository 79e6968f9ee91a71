"""Estimators compared: which runs that takes, and what their gradients are measured as."""

import json
from pathlib import Path

import pytest

from helpers.small_runs import SMALL, Messages, go, write_data
from iwae import IWAEError, MeasureOptions, RunConfig
from iwae.cli import main
from iwae.report.estimators import write_page
from iwae.runs.estimators import FIGURES, GRADIENTS, Contest, compared, measure_gradients
from iwae.runs.options import DiagnoseOptions
from iwae.runs.sweep import Sweep

FEW = DiagnoseOptions(draws=10, examples=4, reference_k=5)


def test_every_estimator_has_every_k_and_seed_but_for_those_that_compare_samples():
    contest = Contest.of(["iwae", "elbo:rloo", "ciwae:dreg:beta=0.5"], [1, 4], [0, 7], {"latent": (3,), "hidden": (8,)})
    points = contest.points()
    assert [(p["point"]["estimator"], p["point"]["k"]) for p in points[::2]] == [
        ("iwae", 1),
        ("iwae", 4),
        ("elbo:rloo", 4),
        ("ciwae:dreg:beta=0.5", 1),
        ("ciwae:dreg:beta=0.5", 4),
    ]
    assert [p["seed"] for p in points[:2]] == [0, 7]
    config = RunConfig.from_json(points[-1]["config"])
    objective = config.objective
    assert (objective.name, objective.estimator, objective.k, objective.beta) == ("ciwae", "dreg", 4, 0.5)
    assert (config.seed, config.latent) == (7, (3,))


@pytest.mark.parametrize(
    ("words", "ks", "problem"),
    [
        ([], [1], "what is to be compared"),
        (["iwae", "iwae"], [1], "`estimators` must be one or more that differ, got iwae,iwae"),
        (["iwae"], [5, 5], "`k` must be one or more that differ, got 5,5"),
        (["gan"], [2], "'gan': objective must be one of"),
        (["iwae", "iwae:reparameterized"], [2], "is the same run as another"),
        (["vimco"], [1], "nothing to compare at k = 1, since vimco compare samples: give a larger `k`"),
        (["iwae:disarm"], [2], "needs one layer of binary latents"),
    ],
)
def test_what_can_not_be_compared_is_refused(words, ks, problem):
    with pytest.raises(IWAEError, match=problem):
        Contest.of(words, ks, [0], {}).points()


def test_gradients_are_measured_once_and_stand_in_the_table_and_on_the_page(tmp_path: Path) -> None:
    contest = Contest.of(["iwae", "iwae:dreg"], [2, 3], [0], {"dataset": str(write_data(tmp_path / "d.npz")), **SMALL})
    sweep = Sweep.create(tmp_path / "s", contest, 1, MeasureOptions(test_samples=20))
    assert measure_gradients(sweep, FEW, None, Messages()) is None
    assert all(row["encoder_bias"] is None for row in compared(sweep, None))
    # The first estimator's run with the most samples.
    chosen = sweep.record["runs"][1]
    go(sweep.path / chosen["run"], RunConfig.from_json(chosen["config"]), stages=1)
    found = measure_gradients(sweep, FEW, None, Messages())
    assert found is not None
    assert (found["run"], found["examples"]) == (chosen["run"], 4)
    assert [(one["estimator"], one["k"]) for one in found["gradients"]] == [
        ("iwae", 2), ("iwae", 3), ("iwae:dreg", 2), ("iwae:dreg", 3)
    ]  # fmt: skip
    for row, one in zip(compared(sweep, found), found["gradients"], strict=True):
        bias = one["encoder"]["bias"]
        assert row["encoder_bias"] == bias["norm" if bias["is_visible"] else "resolution"]
        assert row["decoder_noise"] == pytest.approx(one["decoder"]["variance"] ** 0.5)
        assert row["seconds"] > 0.0
        assert set(FIGURES) < set(row)
    times = (sweep.path / GRADIENTS).stat().st_mtime_ns
    assert measure_gradients(sweep, FEW, None, Messages()) == found
    assert (sweep.path / GRADIENTS).stat().st_mtime_ns == times
    (sweep.path / GRADIENTS).write_text("{}")
    again = measure_gradients(sweep, FEW, None, Messages())
    assert again is not None
    strip = [{name: value for name, value in one.items() if name != "seconds"} for one in found["gradients"]]
    assert [{name: value for name, value in one.items() if name != "seconds"} for one in again["gradients"]] == strip
    page = write_page(sweep, ["estimator", "k"], [["<b>", "2"]], ["a note"]).read_text()
    assert "&lt;b&gt;" in page
    assert page.count("data:image/png") == 2
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.slow
def test_the_command_goes_on_where_it_stopped(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_data(tmp_path / "d.npz")
    words = ["estimators", "iwae", "vimco", "--dataset", str(data), "--k", "1,3", "--seeds", "0,1", "--stages", "1"]
    words += ["--latent", "3", "--hidden", "8", "--draws", "10", "--reference-k", "5", "--test-samples", "20"]
    words += ["--sweep-dir", str(tmp_path / "s")]
    assert main(words) == 0
    out, said = capsys.readouterr()
    assert "6 runs, 0 of them finished" in said
    rows = json.loads((tmp_path / "s/table.json").read_text())
    assert [(row["estimator"], row["k"], row["finished"]) for row in rows] == [
        ("iwae", 1, 2), ("iwae", 3, 2), ("vimco", 3, 2)
    ]  # fmt: skip
    assert all(row["test_nll_stderr"] > 0 and row["encoder_noise"] > 0 for row in rows)
    assert (tmp_path / "s/estimators.html").read_text().count("data:image/png") == 3
    assert main(words) == 0
    again, said = capsys.readouterr()
    assert "6 runs, 6 of them finished" in said
    assert again == out


def test_options_of_objectives_are_not_the_commands(capsys):
    assert main(["estimators", "iwae", "--objective", "iwae"]) != 0
    assert "--objective" in capsys.readouterr().err
