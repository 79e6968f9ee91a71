"""A sweep's directory: what is in it, what is still to do, and the table of what came of it."""

import contextlib
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.paper_runs import SIZES, write_run
from helpers.small_runs import environment
from iwae import IWAEError, MeasureOptions, RunConfig
from iwae.cli import main
from iwae.cli.app import parse
from iwae.cli.sweep import SweepCommand, table_text
from iwae.io.files import write_json
from iwae.io.locks import Lock
from iwae.paper.cells import Cell, Published
from iwae.runs.grid import Definition, read_axes, read_grid
from iwae.runs.orders import Order
from iwae.runs.sweep import Sweep

FEW = MeasureOptions(test_samples=5000)


def definition(*axes: str, seeds: tuple[int, ...] = (0, 1, 2), **options: Any) -> Definition:
    return Definition(options, read_grid(read_axes(axes)), seeds)


def create(path: Path, *axes: str, **given: Any) -> Sweep:
    return Sweep.create(path, definition(*axes, **given), None, FEW)


def finish(sweep: Sweep, index: int, *, test: float | None, valid: float | None, samples: int = 5000) -> None:
    """Makes a run look as if it were trained and measured; without a `valid` NLL not on validation examples."""
    own = sweep.record["runs"][index]
    cell = Cell("1", RunConfig.from_json(own["config"]), Published(1.0, None))
    figures = {"num_samples": samples}
    run = write_run(sweep.path, cell, test={"nll": test, **figures})
    if valid is not None:
        size = SIZES["valid"]
        found = {"nll": valid, "stderr": 0.1, **figures, "num_examples": size, "split_examples": size}
        results = run.results()
        assert results is not None
        more = {"split": "valid", "weights_sha256": results["weights_sha256"], "data": results["data"]}
        write_json(run.evaluations_path / f"8-valid-{samples}.json", {**found, **more})


def names(orders: list[Order]) -> list[str]:
    return [path.name for order in orders for path in order.runs]


def unfinished(sweep: Sweep) -> list[str]:
    return names(sweep.unfinished(save_every=1.0, datasets_dir=None))


def test_means_and_standard_errors_are_over_seeds_and_the_best_is_by_validation_examples(tmp_path: Path) -> None:
    sweep = create(tmp_path / "s", "k=1,5,50")
    tests = np.array([[86.0, 87.0, 88.5], [85.0, 85.5, 84.0], [84.0, 84.1, 84.2]])
    valids = np.array([[87.0, 87.5, 88.0], [85.1, 85.2, 85.3], [86.0, 86.1, 86.2]])
    for index, (test, valid) in enumerate(zip(tests.ravel(), valids.ravel(), strict=True)):
        finish(sweep, index, test=test, valid=valid)
    rows = sweep.table()
    for row, test, valid in zip(rows, tests, valids, strict=True):
        assert (row["seeds"], row["finished"]) == (3, 3)
        assert row["test_nll"] == pytest.approx(test.mean())
        assert row["test_nll_stderr"] == pytest.approx(test.std(ddof=1) / 3**0.5)
        assert row["valid_nll"] == pytest.approx(valid.mean())
        assert row["valid_nll_stderr"] == pytest.approx(valid.std(ddof=1) / 3**0.5)
    # Of the lowest test NLL is another.
    assert [row["is_best"] for row in rows] == [False, True, False]
    text = table_text(sweep)
    (best,) = [line for line in text.splitlines() if line.startswith("5 ")]
    assert best.split() == ["5", "3/3", "85.20", "±", "0.06", "*", "84.83", "±", "0.44", "25.0"]
    assert sweep.write_table(text).read_text() == text
    assert json.loads((sweep.path / "table.json").read_text()) == rows
    with open(sweep.path / "table.csv") as file:
        found = list(csv.DictReader(file))
    assert [float(row["test_nll"]) for row in found] == [row["test_nll"] for row in rows]


def test_each_choice_of_data_has_its_own_best(tmp_path: Path) -> None:
    sweep = create(tmp_path / "s", "dataset=mnist,omniglot", "k=1,5", seeds=(0,))
    for index, valid in enumerate([87.0, 86.0, 108.0, 109.0]):
        finish(sweep, index, test=valid, valid=valid)
    assert [(row["dataset"], row["k"]) for row in sweep.table() if row["is_best"]] == [("mnist", 5), ("omniglot", 1)]
    assert "the best by validation likelihood for each choice of data" in table_text(sweep)


def test_one_that_is_not_finished_is_not_the_best_and_one_that_is_not_finite_has_no_figure(tmp_path: Path) -> None:
    sweep = create(tmp_path / "s", "k=1,5,50", seeds=(0, 1))
    for index, (test, valid) in enumerate([(86.0, 87.0), (86.0, 87.0), (80.0, 80.0), (None, 90.0)]):
        finish(sweep, index, test=test, valid=valid)
    finish(sweep, 4, test=10.0, valid=10.0)
    rows = sweep.table()
    assert [row["finished"] for row in rows] == [2, 2, 1]
    assert [row["is_best"] for row in rows] == [False, True, False]
    assert [row["test_nll"] for row in rows] == [86.0, None, 10.0]
    assert [row["test_nll_stderr"] for row in rows] == [0.0, None, None]
    assert "not finite" in table_text(sweep)
    # Not measured on validation examples: that is still to be done, and there is no figure.
    finish(sweep, 5, test=10.0, valid=None)
    assert unfinished(sweep) == [sweep.runs[5].path.name]


def test_what_is_to_do_is_what_is_not_trained_or_not_measured_enough(tmp_path: Path) -> None:
    sweep = create(tmp_path / "s", "k=1,5", seeds=(0,))
    assert len(unfinished(sweep)) == 2
    finish(sweep, 0, test=86.0, valid=87.0, samples=100)
    assert len(unfinished(sweep)) == 2
    fewer = Sweep.create(sweep.path, definition("k=1,5", seeds=(0,)), None, MeasureOptions(test_samples=100))
    assert unfinished(fewer) == [sweep.runs[1].path.name]
    assert [one.state for one in fewer.progress()] == ["done", "waiting"]
    (order,) = fewer.unfinished(save_every=1.0, datasets_dir=tmp_path)
    assert Order.from_text(order.to_text()) == order
    # A damaged record is for the run's own process to tell of.
    fewer.runs[0].results_path.write_text("{")
    assert len(unfinished(fewer)) == 2


def test_more_values_and_seeds_are_added_and_fewer_are_refused(tmp_path: Path) -> None:
    sweep = create(tmp_path / "s", "k=1,5", seeds=(0,))
    finish(sweep, 1, test=86.0, valid=87.0)
    more = create(sweep.path, "k=1,5,50", seeds=(0, 1))
    assert len(more.runs) == 6
    assert len(unfinished(more)) == 5
    before = (sweep.path / "sweep.json").read_bytes()
    with pytest.raises(IWAEError, match=r"another sweep, with 3 runs that this one does not have \(mnist-vae-k1-"):
        create(sweep.path, "k=1,5,50", seeds=(1,))
    assert (sweep.path / "sweep.json").read_bytes() == before


def test_what_is_no_sweep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IWAEError, match="is a file: a sweep needs a directory"):
        create(tmp_path / "file", "k=1")
    sweep = create(tmp_path / "s", "k=1", seeds=(0,))
    finish(sweep, 0, test=86.0, valid=87.0)
    with pytest.raises(IWAEError, match="is a run's directory"):
        create(sweep.runs[0].path, "k=1")
    record = json.loads((sweep.path / "sweep.json").read_text())
    record["runs"][0]["run"] = "../elsewhere"
    (sweep.path / "sweep.json").write_text(json.dumps(record))
    with pytest.raises(IWAEError, match=r"'\.\./elsewhere' is no name of a directory"):
        Sweep(sweep.path)


def test_how_far_a_run_is_can_be_told_from_its_files(tmp_path: Path) -> None:
    sweep = create(tmp_path / "s", "k=1", seeds=(0, 1, 2), epochs=9)
    run, log = sweep.runs[0], sweep.path / f"{sweep.runs[0].path.name}.train.log"
    run.create()
    lock = Lock.acquire(run.path / ".lock")
    assert [one.state for one in sweep.progress()] == ["training", "waiting", "waiting"]
    assert "process " in sweep.progress()[0].detail
    line = {"stage": 0, "epoch": 9, "step": 1, "learning_rate": 0.1, "bound": -1.0}
    run.metrics.path.write_text(json.dumps(line) + "\n")
    assert (sweep.progress()[0].state, sweep.progress()[0].epochs, sweep.progress()[0].total) == ("measuring", 9, 9)
    lock.release()
    log.write_text("iwae: error: no memory: none\n")
    assert (sweep.progress()[0].state, sweep.progress()[0].detail) == ("failed", "no memory: none")
    with open(log, "a") as file:
        file.write("Run: again\n")
    assert sweep.progress()[0].state == "waiting"
    run.record_path.write_text("{}")
    assert sweep.progress()[0].state == "stopped"


# By real processes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A sweep of two runs, trained by two processes at once, and its command."""
    directory = tmp_path_factory.mktemp("sweep")
    rng = np.random.default_rng(0)
    np.save(directory / "d.npy", rng.integers(0, 2, size=(200, 6), dtype=np.uint8))
    fixed = f"--dataset {directory / 'd.npy'} --latent 3 --hidden 8 --epochs 2 --test-samples 20".split()
    words = ["sweep", "--grid", "k=2", "--seeds", "0:2", *fixed, "--sweep-dir", str(directory / "s")]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        with open(directory / "said.txt", "w") as said, contextlib.redirect_stderr(said):
            assert main([*words, "--jobs", "2"]) == 0
    return directory / "s", words


def test_a_sweep_trains_measures_and_tables(trained: tuple[Path, list[str]], capsys: Any) -> None:
    path, words = trained
    sweep = Sweep(path)
    said = (path.parent / "said.txt").read_text().splitlines()
    for run in sweep.runs:
        # Where there is no terminal, a line for each state, whatever else is said between.
        states = [line.partition(": ")[2] for line in said if line.startswith(run.path.name)]
        assert states[0] == "training"
        assert states[-1] == "done"
        assert len(set(states)) == len(states)
    (row,) = sweep.table()
    assert (row["k"], row["seeds"], row["finished"], row["is_best"]) == (2, 2, 2, True)
    logs = [run.path.with_name(f"{run.path.name}.train.log").read_text() for run in sweep.runs]
    assert all("measuring valid likelihood" in log for log in logs)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*.safetensors")}
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "2 runs, 2 of them finished" in err
    assert out.splitlines()[1].split()[:2] == ["2", "2/2"]
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_sweep_is_shown_and_watched(trained: tuple[Path, list[str]], capsys: Any) -> None:
    path, _ = trained
    assert main(["show", str(path), "--watch"]) == 0
    out = capsys.readouterr().out
    assert all(f"{run.path.name}: done" in out for run in Sweep(path).runs)
    assert f"{path}: 2 runs, 2 done" in out
    assert "valid NLL (nats)" in out
    assert main(["show", str(path), "--format", "json"]) == 0
    assert [record["seed"] for record in json.loads(capsys.readouterr().out)] == [0, 1]


def test_what_cannot_be_swept_is_one_line(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, said in [
        ("--grid kk=1", "--grid kk: there is no such option of a run: did you mean k?"),
        ("--epochs 3", "nothing to sweep over: give --grid, such as k=1,5,50, --seeds, such as 0:5, or a file"),
        ("--grid k=1 --seed 3", "--seed 3: a sweep has --seeds"),
        ("--grid k=1 --slurm time=5", "--slurm has options of sbatch, and goes with --on slurm"),
        ("--grid k=1 --on slurm --slurm time", "--slurm must be options of sbatch such as"),
        ("--grid k=1 --on slurm --slurm time=soon", "--slurm time must be minutes"),
        ("--grid k=1 --on slurm --slurm array=1", "--slurm array: that is set here"),
        ("gone.toml", "gone.toml: there is no such file"),
        ("--grid k=1 --stages 0", "--stages must be an integer of at least 1"),
    ]:
        assert main(["sweep", *words.split()]) == 1
        assert said in capsys.readouterr().err, words
    assert not list(tmp_path.rglob("run.json"))


def test_what_is_given_beside_a_file_wins(tmp_path: Path) -> None:
    """An option over its axis, an axis over its option, seeds over seeds."""
    (tmp_path / "kinds.toml").write_text("seeds = [0, 1]\n[options]\nlatent = [3]\nhidden = [8]\n[grid]\nk = [1, 5]")
    file = [str(tmp_path / "kinds.toml")]

    def given(*words: str) -> Definition:
        return parse(SweepCommand, [*file, *words], prog="iwae sweep")._definition()

    assert given("--k", "3").options["k"] == 3
    assert "k" not in given("--k", "3").grid
    wider = given("--grid", "latent=4,5", "--seeds", "7")
    assert (wider.grid, wider.seeds) == ({"k": (1, 5), "latent": ((4,), (5,))}, (7,))
    assert "latent" not in wider.options


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[options]\ntest-samples = 20", "kinds.toml: [options] test-samples: it is one for all runs, give --test-sam"),
        ("[options]\nepochss = 2", "kinds.toml: [options] epochss: there is no such option of a run: did you mean epo"),
        ("[grid]\nk = ['x']", "kinds.toml: [grid] k: expected a whole number, got 'x'"),
        ("seeds = [[1]]", "kinds.toml: seeds must be whole numbers, got [1]"),
        ("seeds = [1, 1]", "--seeds must differ, got 1,1"),
    ],
)
def test_a_files_faults_are_told_as_the_files(content: str, problem: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "kinds.toml").write_text(content)
    assert main(["sweep", str(tmp_path / "kinds.toml"), "--results-dir", str(tmp_path / "results")]) == 1
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_sweep_without_a_run_is_shown_from_the_first_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = create(tmp_path / "sweep", "k=1,5")
    assert main(["show", str(sweep.path)]) == 0
    assert capsys.readouterr().out.startswith(f"{sweep.path}: ")
