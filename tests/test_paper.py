"""The paper's tables as data, their state, and the training of what is missing by real processes."""

import json
import signal
import subprocess
import sys

import pytest

from iwae.cli import main
from iwae.errors import IWAEError
from iwae.paper import Cell, Published, cells_of, published, row, status_of, to_json, to_markdown
from iwae.paper.runner import train_cells, train_command
from iwae.runs.config import RunConfig
from iwae.runs.directory import RunDirectory
from small_runs import cached_compilation, environment, go, small_config, write_data

EXTRA = ("--test-samples", "10")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    directory = tmp_path_factory.mktemp("paper")
    return directory, write_data(directory / "d.npz")


def small_cells(data, **changes):
    configs = [small_config(data, schedule="quick", seed=seed, **changes) for seed in (0, 1, 2)]
    return [Cell("1", config, Published(86.76, "19")) for config in configs]


def test_the_tables_have_the_papers_cells(tmp_path):
    sizes = {table: len(cells_of(table, results_dir=tmp_path)) for table in ("1", "2", "fixed")}
    assert sizes == {"1": 24, "2": 2, "fixed": 3}
    assert published("mnist", "iwae", 50, 2) == Published(82.90, "26+7")
    assert published("omniglot", "vae", 5, 1) == Published(107.62, "28")
    assert published("binfixmnist", "iwae", 1, 1) == Published(88.71, None)
    assert published("mnist", "iwae", 7, 1) is None
    names = [cell.config.name() for cell in cells_of("1", results_dir=tmp_path)]
    assert len(set(names)) == 24


def test_table_2_starts_each_model_from_the_other(tmp_path):
    iwae, vae = cells_of("2", results_dir=tmp_path)
    assert (iwae.config.model, iwae.config.k, iwae.published) == ("iwae", 50, Published(84.88, "22"))
    assert (vae.config.model, vae.config.k, vae.published) == ("vae", 1, Published(86.02, "23"))
    assert iwae.source == RunConfig(model="vae", k=1)
    assert vae.config.init_from == str(tmp_path / RunConfig(model="iwae", k=50).name())


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(IWAEError, match="--table must be one of 1, 2, fixed, got '3'"):
        cells_of("3", results_dir=tmp_path)  # pyright: ignore[reportArgumentType]


def test_missing_cells_are_trained_and_finished_ones_left_alone(small, monkeypatch):
    directory, data = small
    for name, value in environment(directory / "cache").items():
        monkeypatch.setenv(name, value)
    results = directory / "results"
    cells = small_cells(data)
    seen = []
    sizes = ["--latent", "3", "--hidden", "8", *EXTRA]
    assert train_cells(cells[:2], results, stages=1, jobs=2, extra=EXTRA, on_cells=seen.append) == []
    assert [cell.state for cell in seen[-1]] == ["done", "done"]
    assert max(sum(cell.state == "training" for cell in step) for step in seen) == 2
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.safetensors")}
    assert train_cells(cells, results, stages=1, extra=EXTRA) == []
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert all(RunDirectory(cell.directory(results)).results() for cell in cells)
    status = status_of(cells[0], results)
    assert (status.stages_done, status.stages_total, status.measured_stages) == (1, 4, 1)
    assert not status.complete
    assert not status.is_reproduction
    assert "partial" in row(status)[5]
    assert "partial" in to_markdown([status])
    assert json.loads(json.dumps(to_json([status])))[0]["nll"] == status.nll
    assert sizes[0] in train_command(cells[0].config, results, 1)


def test_a_cell_that_fails_is_told_in_one_line_and_the_others_go_on(small, tmp_path, monkeypatch):
    directory, data = small
    for name, value in environment(directory / "cache").items():
        monkeypatch.setenv(name, value)
    broken = Cell("1", small_config(tmp_path / "gone.npz", schedule="quick"), Published(1.0, None))
    good = small_cells(data)[0]
    failures = train_cells([broken, good], tmp_path / "results", stages=1, extra=EXTRA)
    assert len(failures) == 1
    assert "gone.npz" in failures[0]
    assert "\n" not in failures[0]
    assert status_of(good, tmp_path / "results").measured_stages == 1


def test_a_cell_whose_source_is_missing_says_how_to_make_it(small, tmp_path):
    _, data = small
    source = small_config(data, schedule="quick")
    config = small_config(data, init_from=str(tmp_path / source.name()), epochs=1)
    (failure,) = train_cells([Cell("2", config, Published(1.0, None), source)], tmp_path)
    assert "its source is missing; make it with: iwae train" in failure


def test_another_run_in_a_cells_place_is_refused(small, tmp_path):
    directory, data = small
    cell = small_cells(data)[0]
    with cached_compilation(directory / "inner"):
        go(cell.directory(tmp_path), small_config(data, schedule="quick", k=2), stages=1)
    with pytest.raises(IWAEError, match="is not the paper's run: k: 1, there 2"):
        status_of(cell, tmp_path)


def test_interrupted_it_stops_its_processes_and_goes_on_later(small, tmp_path):
    directory, data = small
    program = f"""
import sys
from pathlib import Path
from iwae.cli.app import guarded
from iwae.paper import Cell, Published
from iwae.paper.runner import train_cells
from iwae.runs.config import RunConfig
config = RunConfig(dataset={str(data)!r}, latent=(3,), hidden=(8,), k=5, batch_size=1)
train = lambda: train_cells([Cell("1", config, Published(1.0, None))], Path({str(tmp_path)!r}),
    extra={EXTRA!r}, on_cells=lambda cells: print(cells[0].state, cells[0].epochs, flush=True))
sys.exit(guarded(lambda: len(train())))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment(directory / "cache"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line.split()[1]) >= 1:
            process.send_signal(signal.SIGINT)
            break
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert error.startswith("iwae: error: interrupted; all is saved")
    (run,) = [path.parent for path in tmp_path.glob("*/run.json")]
    assert (run / "checkpoints/latest.safetensors").exists() or (run / "checkpoints/1.safetensors").exists()


def test_the_command_lists_the_tables(tmp_path, capsys):
    assert main(["paper", "--results-dir", str(tmp_path), "--format", "json"]) == 0
    cells = json.loads(capsys.readouterr().out)
    assert len(cells) == 29
    assert all(cell["nll"] is None and not cell["is_reproduction"] for cell in cells)
    assert main(["paper", "--results-dir", str(tmp_path), "--table", "1", "--datasets", "OMNI", "--k", "50"]) == 0
    printed = capsys.readouterr().out
    assert "103.38 (44+7)" in printed
    assert "82.90" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert main(["paper", "--results-dir", str(tmp_path), "--k", "7"]) == 1
    assert "the paper has no result like that" in capsys.readouterr().err
    assert main(["paper", "--format", "markdown", "--results-dir", str(tmp_path)]) == 0
    assert "| mnist | iwae | 50 | 2 | 82.90 (26+7) |" in capsys.readouterr().out
