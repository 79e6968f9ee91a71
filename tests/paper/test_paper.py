"""The paper's tables as data, how far each cell is, what may stand for the paper's figure, and what is left to do."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.paper_runs import PRUNED, write_run
from iwae.cli import main
from iwae.errors import IWAEError
from iwae.paper.cells import Cell, Published, cells_of, published
from iwae.paper.plan import make_plan
from iwae.paper.status import row, status_of, to_json, to_markdown
from iwae.runs.config import RunConfig
from iwae.runs.options import MeasureOptions

FULL = MeasureOptions()


def cell_of(results_dir: Path, **fields: Any) -> Cell:
    """The first cell of Table 1 and the fixed binarization with these values in its configuration."""
    cells = [c for table in ("1", "fixed") for c in cells_of(table, results_dir=results_dir)]
    return next(c for c in cells if all(getattr(c.config, name) == value for name, value in fields.items()))


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
    assert iwae.source == RunConfig.of(model="vae", k=1)
    assert vae.config.init_from == str(tmp_path / RunConfig.of(model="iwae", k=50).name())


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(IWAEError, match="`table` must be one of 1, 2, fixed, got '3'"):
        cells_of("3", results_dir=tmp_path)  # pyright: ignore[reportArgumentType]


# What may stand for the paper's figure


def test_what_was_done_as_the_paper_did_is_a_reproduction(tmp_path):
    cell = cell_of(tmp_path, model="iwae", k=50)
    write_run(tmp_path, cell, gap={})
    status = status_of(cell, tmp_path)
    assert status.is_reproduction
    assert status.complete
    assert row(status)[4:] == ("84.78 (25)", "84.90 ± 0.24", "25", "+0.31 ± 0.35", "up to 0.75", "0", "8/8")
    (found,) = to_json([status])
    assert (found["is_reproduction"], found["deviations"], found["problem"]) == (True, [], None)
    assert found["gap"]["train_examples"] == 10_000
    assert "partial" not in to_markdown([status])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reached": 5}, "through 5 of the paper's 8 stages (121 of 3,280 epochs)"),
        ({"test": {"num_samples": 10}}, "measured with 10 samples, not 5,000"),
        ({"test": {"num_examples": 100}}, "only 100 of 10,000 test examples were measured"),
        ({"record": {"pruned": PRUNED}}, "its inactive units were removed"),
        ({"record": {"schedule": [{"epochs": 1, "learning_rate": 1.0}] * 8}}, "another schedule than the paper's"),
        ({"mark": "own"}, "its data are not the paper's"),
    ],
)
def test_whatever_deviates_is_marked_and_said(tmp_path, capsys, changes, expected):
    cell = cell_of(tmp_path, model="iwae", k=50)
    write_run(tmp_path, cell, **changes)
    status = status_of(cell, tmp_path)
    (deviation,) = status.deviations
    assert expected in deviation
    assert not status.is_reproduction
    assert row(status)[5] == "84.90 ± 0.24 partial"
    assert f"- partial: {deviation} (1 run)" in to_markdown([status])
    (found,) = to_json([status])
    assert found["deviations"] == [deviation]
    assert status.results is not None
    assert all(found[name] == status.results["test"][name] for name in ("nll", "num_samples", "num_examples"))
    assert main(["paper", "--results-dir", str(tmp_path), "--k", "50", "--models", "iwae"]) == 0
    printed = capsys.readouterr().out
    assert "84.90 ± 0.24*" in printed
    assert expected in " ".join(printed.split())


def test_a_figure_older_than_the_run_says_so(tmp_path):
    cell = cell_of(tmp_path, model="iwae", k=50)
    write_run(tmp_path, cell, reached=6, measured=5)
    status = status_of(cell, tmp_path)
    assert row(status)[5] == "84.90 ± 0.24 partial (after stage 5)"
    assert row(status)[-1] == "6/8"


def test_a_gap_of_fewer_examples_is_marked_by_itself(tmp_path):
    cell = cell_of(tmp_path, model="iwae", k=50)
    few = {"nll": 84.0, "stderr": 1.0, "num_samples": 5000, "num_examples": 100, "split_examples": 10_000}
    write_run(tmp_path, cell, gap={"test": few, "train": few})
    status = status_of(cell, tmp_path)
    assert status.is_reproduction
    assert row(status)[7] == "+0.31 ± 0.35 partial"
    assert "with 5,000 samples on 100 test and 100 training examples" in to_markdown([status])
    write_run(tmp_path / "other", cell, gap={"weights_sha256": "of another checkpoint"})
    assert status_of(cell, tmp_path / "other").gap is None


def test_omniglot_from_other_data_is_called_rebuilt_and_never_beside_the_paper(tmp_path, capsys):
    cell = cell_of(tmp_path, dataset="omniglot", k=50)
    write_run(tmp_path, cell, mark="unverified", gap={})
    status = status_of(cell, tmp_path)
    assert not status.is_reproduction
    assert row(status)[0] == "OMNIGLOT (rebuilt)"
    assert (row(status)[4], row(status)[8]) == ("–", "–")
    assert row(status)[5].endswith("partial")
    (found,) = to_json([status])
    assert (found["published"], found["published_gap"]) == (None, None)
    assert main(["paper", "--results-dir", str(tmp_path), "--datasets", "OMNI", "--k", "50", "--models", "vae"]) == 0
    assert "OMNIGLOT (rebuilt), 1 layer\n" in "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("stages", [1, 7])
def test_a_warm_start_from_an_unfinished_source_is_marked(tmp_path, stages):
    cell = cells_of("2", results_dir=tmp_path)[0]
    write_run(tmp_path, cell, source_stages=stages)
    status = status_of(cell, tmp_path)
    assert status.complete
    assert not status.is_reproduction
    assert f"({stages} stages done)" in status.deviations[0]
    assert "partial" in row(status)[5]
    assert status_of(cell, tmp_path).is_reproduction is False


# Directories


def test_moved_and_linked_results_keep_table_2(tmp_path):
    old = tmp_path / "old"
    write_run(old, cells_of("2", results_dir=old)[0])
    old.rename(tmp_path / "new")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for place in ("new", "link"):
        cell = cells_of("2", results_dir=tmp_path / place)[0]
        assert status_of(cell, tmp_path / place).is_reproduction


def test_a_source_with_other_weights_is_another_one(tmp_path):
    cell = cells_of("2", results_dir=tmp_path)[0]
    assert cell.source is not None
    write_run(tmp_path, Cell("1", cell.source, cell.published))
    moved = replace(cell, config=replace(cell.config, init_from=str(tmp_path / "elsewhere" / cell.source.name())))
    write_run(tmp_path, moved)
    assert status_of(cell, tmp_path).problem is None
    results = tmp_path / cell.source.name() / "results.json"
    results.write_text(json.dumps({**json.loads(results.read_text()), "weights_sha256": "trained again"}))
    assert "another run than the paper's (init_from" in (status_of(cell, tmp_path).problem or "")


def damage(run, how):
    if how == "no json":
        run.record_path.write_text("{")
    elif how == "other configuration":
        run.write_record({"config": RunConfig.of(k=7).to_json(), "data": {}})
    elif how == "unknown configuration":
        run.write_record({"config": {"k": 1}, "data": {}})
    elif how == "no data":
        run.write_record({"config": RunConfig.of(model="iwae", k=50).to_json()})
    elif how == "results":
        run.results_path.write_text("[1]")
    elif how == "results without figures":
        run.results_path.write_text(json.dumps({"stages_done": 8, "test": {}}))
    elif how == "unreadable file":
        run.record_path.write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    "how",
    [
        "no json",
        "other configuration",
        "unknown configuration",
        "no data",
        "results",
        "results without figures",
        "unreadable file",
    ],
)
def test_a_bad_directory_is_one_row_and_the_others_are_shown(tmp_path, capsys, how):
    bad, good = cell_of(tmp_path, model="iwae", k=50), cell_of(tmp_path, model="vae", k=50)
    damage(write_run(tmp_path, bad), how)
    write_run(tmp_path, good)
    assert main(["paper", "--results-dir", str(tmp_path), "--k", "50"]) == 1
    captured = capsys.readouterr()
    assert "unreadable" in captured.out
    assert "84.90 ± 0.24" in captured.out
    assert captured.err == f"iwae: error: not readable: {bad.config.name()}\n"
    assert main(["paper", "--results-dir", str(tmp_path), "--k", "50", "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    (broken,) = [cell for cell in found if cell["problem"]]
    assert broken["config"]["model"] == "iwae"
    assert broken["problem"].count(str(tmp_path)) == 1
    assert not broken["is_reproduction"]
    plan = make_plan([bad, good], tmp_path, None, FULL)
    assert plan.blocked == (broken["problem"],)
    assert [cell.config.model for cell in plan.work] == ["vae"]  # It has no gap yet.


# What is left to do


def test_what_was_measured_with_less_is_to_be_measured_again(tmp_path):
    cell = cell_of(tmp_path, model="iwae", k=50)
    write_run(tmp_path, cell, gap={})
    assert make_plan([cell], tmp_path, None, FULL).finished == (cell,)
    few = {"nll": 84.0, "stderr": 1.0, "num_samples": 10, "num_examples": 100, "split_examples": 10_000}
    write_run(tmp_path / "few", cell, test=few, gap={})
    assert make_plan([cell], tmp_path / "few", None, FULL).work == (cell,)
    assert make_plan([cell], tmp_path / "few", None, MeasureOptions(10, 100)).finished == (cell,)
    write_run(tmp_path / "no gap", cell)
    assert make_plan([cell], tmp_path / "no gap", None, FULL).work == (cell,)
    write_run(tmp_path / "pruned", cell, record={"pruned": PRUNED})
    (reason,) = make_plan([cell], tmp_path / "pruned", None, FULL).blocked
    assert "holds a pruned model" in reason


def test_table_2_waits_for_all_stages_of_its_sources(tmp_path):
    cells = cells_of("2", results_dir=tmp_path)
    sources = [Cell("1", cell.source, cell.published) for cell in cells if cell.source is not None]
    write_run(tmp_path, sources[0], reached=1)
    plan = make_plan(cells, tmp_path, None, FULL)
    assert not plan.work
    assert f"waits for all 8 stages of {sources[0].config.name()}, which has 1" in plan.blocked[0]
    assert "iwae paper run --table 1 --datasets mnist --models vae --k 1 --layers 1" in plan.blocked[0]
    # Both are trained in one call, the sources first, unless their stages are limited.
    assert make_plan([*cells, *sources], tmp_path, None, FULL).work == (*sources, *cells)
    limited = make_plan([*cells, *sources], tmp_path, 4, FULL)
    assert limited.work == (*sources,)
    assert limited.blocked == ()
    assert f"is left out: it starts from all 8 stages of {sources[0].config.name()}" in limited.left_out[0]
    shutil.rmtree(tmp_path / sources[0].config.name())
    write_run(tmp_path, sources[0])
    assert make_plan(cells, tmp_path, None, FULL).work == (cells[0],)


def test_a_warm_start_begun_too_early_is_not_continued(tmp_path):
    cell = cells_of("2", results_dir=tmp_path)[0]
    assert cell.source is not None
    write_run(tmp_path, Cell("1", cell.source, cell.published))
    write_run(tmp_path, cell, reached=0, source_stages=1)
    (reason,) = make_plan([cell], tmp_path, None, FULL).blocked
    assert "was begun from" in reason
    assert "after only 1 of its 8 stages: move it elsewhere" in reason


# The command


def test_the_command_lists_the_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["paper", "--results-dir", str(tmp_path), "--format", "json"]) == 0
    cells = json.loads(capsys.readouterr().out)
    assert len(cells) == 29
    assert all(cell["nll"] is None and not cell["is_reproduction"] for cell in cells)
    for cell in cells_of("1", results_dir=tmp_path):
        write_run(tmp_path, cell, reached=6, measured=5, mark="unverified", test={"nll": 123.45}, gap={})
    assert main(["paper", "--results-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "vae→iwae" in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert "…" not in printed
    assert "up to 3.5" in printed
    assert "6/8 (5)" in printed
    assert "the figure is the one after that stage" in printed
    assert main(["paper", "--results-dir", str(tmp_path), "--k", "7"]) == 1
    assert "the paper has no result like that" in capsys.readouterr().err
    assert main(["paper", "--format", "markdown", "--results-dir", str(tmp_path / "none")]) == 0
    assert "| mnist | iwae | 50 | 2 | 82.90 (26+7) |" in capsys.readouterr().out


def test_before_it_starts_it_says_what_it_will_do(tmp_path, capsys):
    cells = cells_of("2", results_dir=tmp_path)
    write_run(tmp_path, cells[0], gap={})
    assert main(["paper", "run", "--table", "2", "--results-dir", str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "To train or measure: 0 runs. Finished: 1. Left out: 1, because:"
    assert lines[1].startswith("  mnist-vae-k1-1layer-from-mnist-iwae-k50-1layer-seed0-seed0 waits for all 8 stages")
    assert lines[2].startswith("iwae: error: ")
    assert main(["paper", "run", "--table", "2", "--stages", "2", "--results-dir", str(tmp_path)]) == 0
