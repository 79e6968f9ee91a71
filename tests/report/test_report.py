"""The HTML report: well-formed, self-contained, honest about what was not trained through, and in a real browser."""

import json
import shlex
import shutil
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import iwae
from helpers.html_checker import Checker
from helpers.small_runs import go, small_config, write_data
from iwae.cli.app import parse
from iwae.cli.report import Report
from iwae.cli.train import Train
from iwae.paper.cells import published
from iwae.paper.reproduction import deviations, published_for
from iwae.report import page, write
from iwae.report.comparison import Analyzed, number_rows, training_rows
from iwae.report.write import write_report
from iwae.runs.analyze import AnalyzeOptions, analyze_run
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.training.schedule import schedule_to_json

HOSTILE = "<img src=x onerror=alert(1)>&\"'{{7*7}}"


def make_runs(directory: Path) -> None:
    """Trains `run` on images through two stages of the paper's schedule, analyzes it, and copies it: as `again`, under
    a hostile name, and under the same name elsewhere.
    """
    data = write_data(directory / "d.npz", shape=(5, 4))
    go(directory / "run", small_config(data, model="iwae", k=3), stages=2)
    analyze_run(directory / "run", options=AnalyzeOptions(samples=25))
    for name in ("again", HOSTILE, "elsewhere/run"):
        shutil.copytree(directory / "run", directory / name)


def make_pages(directory: Path) -> dict[str, Path]:
    """Reports of one of these runs and of three."""
    return {
        "one": write_report([directory / "run"], out=directory / "one.html"),
        "three": write_report([directory / name for name in ("run", "again", HOSTILE)], out=directory / "three.html"),
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with these runs. Tests only read them."""
    directory = tmp_path_factory.mktemp("report")
    make_runs(directory)
    return directory


@pytest.fixture(scope="module")
def pages(place: Path) -> dict[str, Path]:
    return make_pages(place)


@pytest.mark.parametrize("name", ["one", "three"])
def test_the_page_is_accessible_and_self_contained(pages: dict[str, Path], name: str) -> None:
    text = pages[name].read_text()
    found = Checker(text)
    assert len(text.encode()) < 5_000_000
    assert text.startswith("<!DOCTYPE html>")
    assert found.of("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in found.of("meta")
    assert not found.of("script")
    for _, attributes in found.elements:
        for attribute in ("src", "href", "srcset", "data"):
            value = attributes.get(attribute)
            assert value is None or value.startswith(("data:", "#")), value
    assert "url(" not in text
    assert "@import" not in text
    images = found.of("img")
    assert len(images) == {"one": 9, "three": 28}[name]
    for image in images:
        assert (image["src"] or "").startswith("data:image/png;base64,")
        assert len(image["alt"] or "") > 30
        assert int(image["width"] or 0) > 0 < int(image["height"] or 0)
    levels = [int(tag[1]) for tag, _ in found.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = [link["href"] for link in found.of("a")]
    references += [f"#{a['aria-labelledby']}" for _, a in found.elements if "aria-labelledby" in a]
    assert {(reference or "").removeprefix("#") for reference in references} <= set(ids)
    assert all(header.get("scope") in ("row", "col") for header in found.of("th"))
    assert len(found.of("caption")) == len(found.of("table")) == 2
    scrolling = [a for _, a in found.elements if a.get("class") == "scroll"]
    assert all(a["tabindex"] == "0" and a["role"] == "region" for a in scrolling)
    assert found.of("a")[0] == {"class": "skip", "href": "#main"}


def test_a_hostile_name_is_only_text(pages: dict[str, Path]) -> None:
    text = pages["three"].read_text()
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;" in text
    assert "{{7*7}}" in text


def test_what_is_no_reproduction_says_so(pages: dict[str, Path]) -> None:
    text = pages["one"].read_text()
    assert "Not a reproduction of the paper" in text
    assert "it was trained through 2 of the paper&#39;s 8 stages (4 of 3,280 epochs)" in text
    assert "2 of 8" in text
    assert "all eight stages" not in text


def test_the_commands_that_repeat_it(pages: dict[str, Path], place: Path) -> None:
    found = Checker(pages["one"].read_text())
    train, analyze, report = "".join(found.text["code"]).splitlines()
    words = shlex.split(train)
    assert words[:2] == ["iwae", "train"]
    asked = parse(Train, words[2:], prog="iwae train")
    assert asked.configuration == Run(place / "run").config
    assert asked.training.stages == 2
    assert asked.run_dir == place / "run"
    assert analyze == shlex.join(["iwae", "analyze", str(place / "run"), "--samples", "25", "--checkpoint", "2"])
    assert report == shlex.join(["iwae", "report", str(place / "run")])


def as_the_paper_did(place: Path, **config: Any) -> Analyzed:
    """A made-up run that followed the paper to the letter, but for what `config` changes."""
    analysis = json.loads((place / "run/analysis/analysis.json").read_text())
    data = {**analysis["data"], "name": "mnist", "mark": "verified"}
    measured = {**analysis["test"], "nll": 85.0, "stderr": 0.2, "num_samples": 5000}
    analysis |= {"data": data, "test": measured, "stages_done": 8, "stages_total": 8, "epochs": 3280}
    configuration = RunConfig.of(**{"dataset": "mnist", "model": "iwae", "k": 50, **config})
    record: Any = {
        "config": configuration.to_json(),
        "schedule": schedule_to_json(configuration.full_schedule()),
        "data": data,
    }
    return Analyzed(place / "run", "run", record, analysis, [])


def cells(run: Analyzed, label: str) -> tuple[str, str]:
    rows = [*training_rows([run]), *number_rows([run], published)]
    (row,) = [row for row in rows if row.label == label]
    return row.cells[0].text, row.cells[0].note


def test_a_whole_run_stands_beside_the_paper(place: Path) -> None:
    run = as_the_paper_did(place)
    assert run.deviations == []
    assert cells(run, "The paper's test NLL") == ("84.78", "ours lies +0.22 nats from it")
    assert cells(run, "The paper's active units")[0] == "25"
    assert "up to 0.75" in cells(run, "Gap, test − training")[1]
    html = page.render([run])
    assert "Trained through all eight stages and measured as the paper did" in html
    assert "ot a reproduction" not in html


@pytest.mark.parametrize(
    ("config", "analysis", "expected"),
    [
        ({}, {"stages_done": 7, "epochs": 1093}, "through 7 of the paper's 8 stages (1,093 of 3,280 epochs)"),
        ({"schedule": "quick"}, {"epochs": 10}, "10 epochs of the quick schedule, not the paper's 3,280"),
        ({"k": 7}, {}, "the paper has no result for this model"),
        ({"batch_size": 10}, {}, "minibatches had 10 examples, not 20"),
        ({"beta1": 0.9}, {}, "beta1 was 0.9, not the 0.99"),
        ({"latent": (3,), "hidden": (8,)}, {}, "network is not one of the paper's"),
    ],
)
def test_every_deviation_is_named(place: Path, config: dict[str, Any], analysis: dict[str, Any], expected: str) -> None:
    run = as_the_paper_did(place, **config)
    run = replace(run, analysis={**run.analysis, **analysis})
    (found,) = run.deviations
    assert expected in found
    if cells(run, "The paper's active units")[0] != "none given":
        assert "after its whole protocol" in cells(run, "The paper's active units")[1]
    assert "ours lies" not in cells(run, "The paper's test NLL")[1]
    assert "not a reproduction" in page.render([run]).lower()


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ({"num_examples": 20}, "only 20 of 30 test examples were measured"),
        ({"num_samples": 500}, "measured with 500 samples, not 5,000"),
    ],
)
def test_a_smaller_measurement_is_named(place: Path, test: dict[str, int], expected: str) -> None:
    run = as_the_paper_did(place)
    analysis: Any = {**run.analysis, "test": {**run.analysis["test"], **test}}
    (found,) = deviations(run.config, run.record, analysis)
    assert expected in found


def test_unverified_data_never_stand_beside_the_paper(place: Path) -> None:
    run = as_the_paper_did(place, dataset="omniglot")
    data = {**run.analysis["data"], "name": "omniglot", "mark": "unverified"}
    run = replace(run, analysis={**run.analysis, "data": data})
    assert published_for(run.config, run.record, run.analysis) is None
    assert cells(run, "The paper's test NLL") == ("none", "not the paper's data")
    assert cells(run, "Data")[0] == "OMNIGLOT (rebuilt)"
    assert "the paper" not in cells(run, "Gap, test − training")[1]
    assert any("not verified" in found for found in run.deviations)
    assert "on OMNIGLOT (rebuilt)</h1>" in page.render([run])


def test_a_pruned_run_is_no_reproduction(place: Path) -> None:
    run = as_the_paper_did(place)
    pruned = {
        "source": "/runs/source",
        "checkpoint": "8.safetensors",
        "num_samples": 5000,
        "nll_before": 85.0,
        "nll_after": 85.01,
        "difference": 0.0123,
        "difference_stderr": 0.0045,
        "num_examples": 100,
        "split_examples": 10_000,
        "kept_inactive": [2],
    }
    run = replace(run, record={**run.record, "pruned": pruned})
    assert run.deviations == ["its inactive units were removed"]
    assert cells(run, "Started from")[0] == "source, pruned"
    note = cells(run, "Started from")[1]
    assert "85.00 nats before and 85.01 after: +0.0123 ± 0.0045" in note
    assert "but for one in layer 2, which has no active one" in note
    train, prune, *_ = "".join(Checker(page.render([run])).text["code"]).splitlines()
    assert train.startswith("iwae train --dataset mnist --model iwae --k 50")
    assert train.endswith("--run-dir /runs/source")
    assert prune == (f"iwae prune /runs/source --output {place / 'run'} --samples 5000 --examples 100 --checkpoint 8")


def warm_start(place: Path, **config: Any) -> Analyzed:
    """Table 2's VAE, from the IWAE with k = 50."""
    source = RunConfig.of(dataset="mnist", model="iwae", k=50)
    start = {"run": "/runs/source", "config": source.to_json(), "checkpoint": "8.safetensors"}
    start |= {"stages_done": 8, "step": 9_774_400, "weights_sha256": "0" * 64}
    run = as_the_paper_did(place, **{"model": "vae", "k": 1, "init_from": "/runs/source", **config})
    analysis = {**run.analysis, "stages_done": 1, "stages_total": 1, "epochs": 2187}
    return replace(run, analysis=analysis, record={**run.record, "init_from": start})


def test_warm_starts_stand_beside_table_2(place: Path) -> None:
    run = warm_start(place)
    assert run.deviations == []
    assert cells(run, "The paper's test NLL") == ("86.02", "ours lies −1.02 nats from it")
    assert cells(run, "Started from")[0] == "source: IWAE, k = 50"
    html = page.render([run])
    assert "Trained on from the other objective&#39;s weights" in html
    assert "--init-from /runs/source" in html


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"epochs": 3, "learning_rate": 1e-3}, "3 epochs at learning rate 0.001, not the paper's 2,187 at 0.0001"),
        ({"fresh_optimizer": True}, "moments were not kept"),
        ({"k": 5}, "the paper has no result for this model"),
    ],
)
def test_other_warm_starts_are_no_reproduction(place: Path, config: dict[str, Any], expected: str) -> None:
    (found,) = warm_start(place, **config).deviations
    assert expected in found


def test_a_warm_start_is_no_better_than_its_source(place: Path) -> None:
    run = warm_start(place)
    start = {**run.record.get("init_from", {}), "stages_done": 5}
    (found,) = replace(run, record={**run.record, "init_from": start}).deviations
    assert "had not followed the paper's protocol to its end (5 stages done)" in found


def test_runs_of_the_same_name_are_told_apart(place: Path) -> None:
    written = write_report([place / "run", place / "elsewhere/run", place / "run"], out=place / "same.html")
    headers = "".join(Checker(written.read_text()).text["th"])
    assert str(place / "run") in headers
    assert str(place / "elsewhere/run") in headers
    assert "2 runs side by side" in written.read_text()


def test_many_pictures_do_not_make_the_page_large(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "LIMIT", page.RESERVE + 100_000)
    written = write_report([place / "run", place / "again"], out=place / "small.html")
    assert written.stat().st_size < page.LIMIT
    text = written.read_text()
    assert "left out to keep this page small" in text
    # The first kinds of picture are there for both runs.
    assert text.count("<h3>Training curve</h3>") == 2


def test_only_what_is_not_analyzed_is_analyzed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(place / "run", copy)
    asked: list[AnalyzeOptions] = []

    def analyze(path: Path, *, options: AnalyzeOptions, **_: Any) -> dict[str, Any]:
        asked.append(options)
        shutil.copytree(place / "run/analysis", path / "analysis", dirs_exist_ok=True)
        return json.loads((path / "analysis/analysis.json").read_text())

    def times_analyzed(**options: int) -> int:
        asked.clear()
        write_report([copy], options=AnalyzeOptions(**options))
        return len(asked)

    monkeypatch.setattr(write, "analyze_run", analyze)
    assert times_analyzed() == 0
    assert times_analyzed(samples=25, examples=100) == 0
    # More samples than asked for, or more examples, are good enough.
    assert times_analyzed(samples=24) == times_analyzed(examples=3) == times_analyzed(samples=1, examples=1) == 0
    # What is made anew has nothing less than what was there.
    assert times_analyzed(samples=26, examples=3) == 1
    assert asked == [AnalyzeOptions(samples=26, examples=30)]
    written = copy / "analysis/analysis.json"
    whole = json.loads(written.read_text())
    written.write_text(json.dumps({**whole, "test": {**whole["test"], "num_examples": 7}}))
    assert times_analyzed(samples=20, examples=9) == 1
    assert asked == [AnalyzeOptions(samples=25, examples=9)]
    (copy / "analysis/log_weights.png").unlink()
    assert times_analyzed(samples=2) == 1
    assert asked == [AnalyzeOptions(samples=25, examples=30)]
    for damaged in ('{"format": 1}', "{", "[]"):
        (copy / "analysis/analysis.json").write_text(damaged)
        assert times_analyzed() == 1
    shutil.rmtree(copy / "analysis")
    assert times_analyzed() == 1
    # Trained on since: the newest weights are others than those that were analyzed.
    written.write_text(json.dumps({**json.loads(written.read_text()), "weights_sha256": "0"}))
    assert times_analyzed(samples=2) == 1
    assert asked == [AnalyzeOptions(samples=2)]


def test_a_runs_explorer_is_linked_from_where_the_page_lies(place: Path, tmp_path: Path) -> None:
    for name in ("a #1", "b"):
        shutil.copytree(place / "run", tmp_path / name)
    (tmp_path / "a #1/explore.html").write_text("x")

    def links(written: Path) -> list[str | None]:
        return [link["href"] for link in Checker(written.read_text()).of("a") if "explore" in (link["href"] or "")]

    assert links(write_report([tmp_path / "a #1"])) == ["explore.html"]
    assert links(write_report([tmp_path / "b"])) == []
    (tmp_path / "pages").mkdir()
    both = write_report([tmp_path / "a #1", tmp_path / "b"], out=tmp_path / "pages/both.html")
    assert links(both) == ["../a%20%231/explore.html"]


@pytest.mark.parametrize("module", ["jinja2", "matplotlib"])
def test_what_is_not_installed_is_said_before_any_work(
    place: Path, tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    shutil.copytree(place / "run", tmp_path / "run", ignore=shutil.ignore_patterns("analysis"))
    with pytest.raises(iwae.IWAEError, match=f'this needs {module}, .*: pip install "iwae\\[report\\]"'):
        write_report([tmp_path / "run"], options=AnalyzeOptions(samples=3))
    assert not (tmp_path / "run/analysis").exists()
    assert not (tmp_path / "run/report.html").exists()


def test_bad_input_is_one_line_before_any_work(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def analyze(*_: Any, **__: Any) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr(write, "analyze_run", analyze)
    run = place / "run"
    other = AnalyzeOptions(samples=3)
    for paths, out, message in (
        ([], None, "at least one run"),
        ([run, place / "nowhere"], None, "there is no such directory"),
        ([run], place / "no" / "x.html", "there is no directory"),
        ([run], place, "is a directory"),
    ):
        with pytest.raises(iwae.IWAEError, match=message):
            write_report(paths, out=out, options=other)
    with pytest.raises(iwae.IWAEError, match="which runs"):
        Report().run([])


def test_the_command_writes_beside_the_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Report((place / "run",)).run([]) == 0
    assert capsys.readouterr().out == f"Written: {place / 'run/report.html'}\n"
    assert (place / "run/report.html").stat().st_size > 10_000
