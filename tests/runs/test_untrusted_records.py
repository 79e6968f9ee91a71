"""A stranger's run: whatever its JSON files hold, every command does its work or says in one line why not.

`make test` tries some values for every field, each with one of the commands that read it, as chance decides;
`make test-all` tries all with all.
"""

import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.paper_runs import PRUNED, source_record, write_run
from helpers.small_runs import QUICK_MEASURE, go, small_config, write_data
from helpers.untrusted_json import mutants
from iwae.cli.analyze import Analyze
from iwae.cli.app import guarded
from iwae.cli.evaluate import Evaluate
from iwae.cli.paper import Paper
from iwae.cli.report import Report
from iwae.cli.sample import Sample
from iwae.cli.show import Show
from iwae.cli.train import Train
from iwae.data import load_dataset
from iwae.errors import IWAEError
from iwae.figures.charts import training_chart
from iwae.paper.cells import cells_of
from iwae.report import write
from iwae.runs import analyze
from iwae.runs.analyze import AnalyzeOptions, analyze_run
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.runs.evaluate import find_measurement
from iwae.runs.options import TrainOptions

ANALYSIS = "analysis/analysis.json"
COMMANDS = ("show", "sample", "evaluate", "train", "report", "analyze")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished, analyzed run of images. Tests only read it."""
    directory = tmp_path_factory.mktemp("made")
    data = write_data(directory / "d.npz", shape=(5, 4))
    go(directory / "run", small_config(data), stages=1)
    analyze_run(directory / "run", options=AnalyzeOptions(samples=20))
    return directory / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to damage. No pictures are drawn, and a report of what is not analyzed ends there: both take long, and
    are tested elsewhere.
    """

    def not_now(path: Path, **_: Any) -> None:
        raise IWAEError(f"{path}: would be analyzed")

    monkeypatch.setattr(write, "analyze_run", not_now)
    monkeypatch.setattr(analyze, "draw", lambda _: ({}, {}))
    monkeypatch.setattr(analyze, "_images", lambda *_: None)
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def command(name: str, run: Path) -> Callable[[], int]:
    """What a command line that names the run does once it is parsed."""
    data = run.parent / "d.npz"
    made: dict[str, Any] = {
        "show": Show(paths=(run,)),
        "sample": Sample(run),
        "evaluate": Evaluate(run, samples=(2,), examples=3),
        "train": Train(small_config(data), training=TrainOptions(stages=1), measuring=QUICK_MEASURE, run_dir=run),
        "report": Report((run,)),
        "analyze": Analyze(run, samples=2, examples=3),
    }
    return lambda: made[name].run([])


def check(name: str, run: Path, where: str, capsys: pytest.CaptureFixture[str]) -> int:
    """Runs a command, which must end with status 0, or with 1 and one line."""
    try:
        status = guarded(command(name, run))
    except Exception as error:
        raise AssertionError(f"{name} with {where}: {error!r}") from error
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("iwae: error: ")]
    assert (status, len(errors)) in ((0, 0), (1, 1)), f"{name} with {where}: {status}, {err}"
    assert "\x1b" not in out + err, f"{name} with {where}"
    assert "\x07" not in out + err, f"{name} with {where}"
    return status


@pytest.fixture(params=["one", pytest.param("all", marks=pytest.mark.slow)])
def by(request: pytest.FixtureRequest) -> str:
    """How many of the commands each text is given to: to one, of a third of the texts, or to all."""
    return request.param


def chosen(texts: Iterator[tuple[str, str]], by: str) -> Iterator[tuple[str, str]]:
    """The texts to try: with fourteen for each field, hardly one is left without any."""
    rng = random.Random(1)
    return (text for text in texts if by == "all" or rng.random() < 1 / 3)


def check_all(
    run: Path, file: str, texts: Iterator[tuple[str, str]], names: tuple[str, ...], by: str, capsys: Any
) -> None:
    """Runs commands on the run with each text in one of its files, and puts all back."""
    whole = {path: path.read_bytes() for path in run.rglob("*.json*")}
    rng, statuses = random.Random(0), set()
    for where, text in chosen(texts, by):
        (run / file).write_text(text)
        for name in names if by == "all" else rng.sample(names, 1):
            statuses.add(check(name, run, f"{file}: {where}", capsys))
            if name in ("train", "analyze"):
                # They write such files themselves.
                (run / file).write_text(text)
        for path, content in whole.items():
            if path.read_bytes() != content:
                path.write_bytes(content)
    assert statuses == {0, 1}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_run_json(run: Path, by: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_all(run, "run.json", mutants(read(run / "run.json")), COMMANDS, by, capsys)


@pytest.mark.parametrize("part", ["pruned", "init_from"])
def test_run_json_of_a_run_that_came_from_another(
    run: Path, part: str, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = read(run / "run.json")
    if part == "pruned":
        first = {**PRUNED, "units": [4], "kept_units": [[0, 1, 2]]}
        record["pruned"] = {**first, "source_pruned": first}
    else:
        config = RunConfig.of(**{**small_config(run.parent / "d.npz").to_json(), "init_from": "/runs/source"})
        record["config"], record["init_from"] = config.to_json(), source_record(config, RunConfig(), 8)
    (run / "run.json").write_text(json.dumps(record))
    analysis = read(run / ANALYSIS)
    (run / ANALYSIS).write_text(json.dumps({**analysis, "config": record["config"]}))
    check_all(run, "run.json", mutants(record, (part,)), ("show", "evaluate", "report"), by, capsys)


def test_results_json(run: Path, by: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_all(run, "results.json", mutants(read(run / "results.json")), ("show", "train"), by, capsys)


def test_metrics_jsonl(run: Path, by: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:

    def curve(found: Any) -> tuple[dict[str, bytes], dict[str, str]]:
        return ({"training_curve.png": training_chart([found.curve])} if found.curve else {}), {}

    monkeypatch.setattr(analyze, "draw", curve)
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    texts = ((where, f"{text}\n") for where, text in mutants(line))
    check_all(run, "metrics.jsonl", texts, ("show", "train", "analyze"), by, capsys)


def test_analysis_json(run: Path, by: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_all(run, ANALYSIS, mutants(read(run / ANALYSIS)), ("report",), by, capsys)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the mean of what is infinite.
def test_evaluations(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A measurement that can't be used is made again: the command succeeds whatever lies there."""
    assert guarded(command("analyze", run)) == 0
    (path,) = (run / "evaluations").glob("*-test-2-first3.json")
    record, arrays = read(path), path.with_suffix(".npz").read_bytes()
    directory = Run(run)
    checkpoint, data = directory.checkpoint(), load_dataset(directory.config.dataset)
    found = set()
    for _, text in mutants(record):
        path.write_text(text)
        found.add(find_measurement(directory, checkpoint, data, "test", samples=2, examples=3) is None)
    assert found == {True, False}
    damaged = [arrays[:300], arrays[:60] + bytes([arrays[60] ^ 1]) + arrays[61:], b"", b"PK"]
    for values in (np.full(3, np.nan), np.full(3, np.inf), np.full(3, 1e308), np.zeros((3, 1)), np.zeros(2), "x"):
        packed = io.BytesIO()
        np.savez(packed, log_likelihood=values, effective_sample_size=values)
        damaged.append(packed.getvalue())
    for content in damaged:
        path.write_text(json.dumps(record))
        path.with_suffix(".npz").write_bytes(content)
        assert check("analyze", run, repr(content[:400]), capsys) == 0


@pytest.mark.parametrize("file", ["run.json", "results.json", ANALYSIS])
def test_the_papers_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, by: str) -> None:
    cell = next(c for c in cells_of("1", results_dir=tmp_path) if (c.config.model, c.config.k) == ("iwae", 50))
    written = write_run(tmp_path, cell, gap={}).path
    listing = Paper(table=("1",), k=(50,), models=("iwae",), datasets=("mnist",), layers=(1,), results_dir=tmp_path)
    # Another form for every text, so that each field is seen in all three.
    listings = cycle([replace(listing, format=form) for form in ("table", "markdown", "json")])
    for (where, text), listing in zip(chosen(mutants(read(written / file)), by), listings, strict=False):
        (written / file).write_text(text)
        status = guarded(partial(listing.run, []))
        out, err = capsys.readouterr()
        assert (status, err.count("iwae: error: ")) in ((0, 0), (1, 1)), f"{where}: {err}"
        assert "\x1b" not in out + err
        assert "<script>" not in out or listing.format != "markdown"
        if listing.format == "json":
            json.loads(out, parse_constant=pytest.fail)


def test_a_bad_run_does_not_hide_the_others(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run, run.parent / "bad")
    (run.parent / "bad/results.json").write_text('{"x":' + "[" * 2000)
    assert guarded(lambda: Show(results_dir=run.parent).run([])) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1].startswith("run ")
    (line,) = err.splitlines()
    assert f"{run.parent / 'bad/results.json'}: " in line
    assert "nested too deep" in line
    assert "delete it, and `iwae train` measures again" in line
