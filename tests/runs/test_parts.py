"""Measurements in parts: joined to the bits of a whole one, whatever happens on the way."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import iwae
from helpers.small_runs import flip_byte, go, small_config, write_data
from iwae import IWAEError
from iwae.cli.app import main
from iwae.cli.worker import in_job
from iwae.evaluation import likelihood
from iwae.io.locks import Lock
from iwae.runs import anneal, evaluate
from iwae.runs import slurm as slurm_jobs
from iwae.runs.directory import Run
from iwae.runs.parts import Shard

LADDER = ["--split", "train", "--samples", "2,60", "--seed", "3"]
AIS = ["--split", "train", "--method", "ais", "--chains", "3", "--steps", "4", "--leapfrogs", "2", "--examples", "100"]
FILES = {
    "ladder": ("2-train-2-seed3", "2-train-60-seed3"),
    "ais": ("2-train-ais-3x4x2",),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("parts")
    go(directory / "run", small_config(write_data(directory / "d.npz", num_train=100)), stages=2)
    for words in (LADDER, AIS):
        assert main(["evaluate", str(directory / "run"), *words]) == 0
    (directory / "run" / "evaluations").rename(directory / "whole")
    (directory / "run" / "evaluations").mkdir()
    return directory / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(trained, tmp_path / "run"))


def part(run: Run, words: list[str], shard: str) -> int:
    return main(["evaluate", str(run.path), *words, "--shard", shard])


def same_as_whole(run: Run, trained: Path, kind: str) -> None:
    """Asserts that the figures have the same bits, the records say the same, and nothing else is left."""
    for name in FILES[kind]:
        mine, whole = (path / f"{name}.npz" for path in (run.evaluations_path, trained.parent / "whole"))
        assert mine.read_bytes() == whole.read_bytes()
        records = [json.loads(path.with_suffix(".json").read_text()) for path in (mine, whole)]
        assert all(record.pop("seconds") > 0 for record in records)
        assert records[0] == records[1]
    names = {path.name for path in run.evaluations_path.iterdir() if not path.name.endswith(".png")}
    assert names == {f"{name}.{suffix}" for name in FILES[kind] for suffix in ("npz", "json")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1/1", [(0, 100)]), ("3/3", [(0, 40), (40, 80), (80, 100)]), ("2/2", [(0, 40), (40, 100)])],
)
def test_parts_are_whole_batches_and_all_examples(text: str, expected: list[tuple[int, int]]) -> None:
    count = Shard.parse(text).count
    assert [Shard(index, count).bounds(100, 40) for index in range(1, count + 1)] == expected


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "١/٢"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(IWAEError, match="`shard` must be i/n, the i-th of n parts, such as 1/8, got"):
        Shard.parse(text)


@pytest.mark.parametrize(("kind", "words", "order"), [("ladder", LADDER, (2, 3, 1)), ("ais", AIS, (2, 1))])
def test_parts_join_to_the_bits_of_a_whole_measurement(
    run: Run, trained: Path, kind: str, words: list[str], order: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    count = len(order)
    for place, index in enumerate(order[:-1], 1):
        assert part(run, words, f"{index}/{count}") == 0
        out = capsys.readouterr().out
        missing = [str(other) for other in range(1, count + 1) if other not in order[:place]]
        what = f"{'parts' if len(missing) > 1 else 'part'} {', '.join(missing)}"
        assert f"Missing: {what}; the last one that is measured joins them" in out
        assert not list(run.evaluations_path.glob("*.json"))
    assert part(run, words, f"{order[-1]}/{count}") == 0
    assert f"train NLL, {'AIS' if kind == 'ais' else 'L_60'}: " in capsys.readouterr().out
    same_as_whole(run, trained, kind)


def test_what_is_there_is_not_measured_again(
    run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    firsts: list[int] = []
    real = likelihood.ladder

    def counted(*args: Any, **kwargs: Any) -> Any:
        firsts.append(kwargs["first"])
        return real(*args, **kwargs)

    monkeypatch.setattr(evaluate.evaluation, "ladder", counted)
    for shard in ("1/2", "1/2", "2/2", "1/2", "2/3"):
        assert part(run, LADDER, shard) == 0
    assert firsts == [0, 40]
    assert capsys.readouterr().out.count("train NLL, L_60: ") == 3
    same_as_whole(run, trained, "ladder")


@pytest.mark.parametrize("suffix", ["npz", "json"])
def test_a_damaged_part_is_missing(run: Run, trained: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert part(run, LADDER, "1/2") == 0
    (damaged,) = run.evaluations_path.glob(f"*.parts/1-of-2.{suffix}")
    flip_byte(damaged, 0)
    assert part(run, LADDER, "2/2") == 0
    assert "Missing: part 1;" in capsys.readouterr().out
    assert part(run, LADDER, "1/2") == 0
    same_as_whole(run, trained, "ladder")


def test_an_interrupted_part_goes_on_where_it_was(run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], iwae.ais

    def twice(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["indices"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(anneal, "ais", twice)
    assert part(run, AIS, "1/1") == 130
    assert part(run, AIS, "1/1") == 0
    assert [list(one[:1]) for one in calls] == [[0], [64], [64]]
    same_as_whole(run, trained, "ais")


def test_parts_of_other_settings_are_not_joined_and_named(
    run: Run, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert part(run, [*LADDER[:-1], "4"], "1/2") == 0
    assert part(run, LADDER, "1/3") == 0
    capsys.readouterr()
    assert part(run, LADDER, "2/2") == 0
    digest = run.checkpoint().weights_digest()[:16]
    said = (
        f"parts of other settings: 2-train-2+60-seed3.{digest}.parts/1-of-3, 2-train-2+60-seed4.{digest}.parts/1-of-2"
    )
    assert said in capsys.readouterr().out
    # Of another state of training there is nothing either.
    assert part(run, [*LADDER, "--checkpoint", "1"], "1/2") == 0
    assert "Missing: part 2;" in capsys.readouterr().out


def test_two_processes_do_not_measure_one_part(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert part(run, LADDER, "1/3") == 0
    (directory,) = run.evaluations_path.glob("*.parts")
    lock = Lock.acquire(directory / "2-of-3.lock")
    assert part(run, LADDER, "2/3") == 1
    assert "iwae: error: part 2 of 3 is being measured by another process (process" in capsys.readouterr().err
    lock.release()
    assert part(run, LADDER, "2/3") == 0


def test_a_process_that_finds_all_joined_by_another_has_its_figures(
    run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert part(run, LADDER, "2/2") == 0
    real = evaluate.measured_ladder

    def slow(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        # Meanwhile the whole was measured, and the other part is gone.
        for path in trained.parent.joinpath("whole").glob("2-train-[26]*"):
            shutil.copy(path, run.evaluations_path)
        next(run.evaluations_path.glob("*.parts/2-of-2.json")).unlink()
        return found

    monkeypatch.setattr(evaluate, "measured_ladder", slow)
    assert part(run, LADDER, "1/2") == 0
    assert "train NLL, L_60: " in capsys.readouterr().out
    same_as_whole(run, trained, "ladder")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shard", "1/4"], "4 parts are too many: 100 examples are measured 40 at a time, which makes at most 3"),
        (["--shard", "1/x"], "--shard must be i/n, the i-th of n parts, such as 1/8, got '1/x'"),
        (["--shards", "2"], "--shards goes with --on slurm: --shard 1/8 measures a part here"),
        (["--jobs", "2"], "--jobs goes with --on slurm"),
        (["--slurm", "partition=x"], "--slurm has options of sbatch, and goes with --on slurm"),
    ],
)
def test_what_has_no_meaning_is_one_line(
    run: Run, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run.path), *LADDER, *words]) == 1
    assert message in capsys.readouterr().err
    assert not list(run.evaluations_path.iterdir())


def test_other_rows_have_no_parts(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "other.npy", np.zeros((5, 6), np.uint8))
    assert main(["evaluate", str(run.path), "--dataset", str(tmp_path / "other.npy"), "--shard", "1/2"]) == 1
    assert "other rows are not measured in parts" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "words", "count"), [("ladder", LADDER, 3), ("ais", AIS, 2)])
def test_jobs_measure_the_parts_that_are_missing(
    run: Run,
    trained: Path,
    kind: str,
    words: list[str],
    count: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    submitted: list[Any] = []

    def submit(orders: list[Any], *rest: Any) -> list[str]:
        submitted.append((orders, rest))
        return [f"7_{index}" for index in range(len(orders))]

    monkeypatch.setattr(slurm_jobs, "_submit", submit)
    monkeypatch.setattr(slurm_jobs.shutil, "which", lambda _: "/usr/bin/sbatch")
    monkeypatch.setattr(slurm_jobs, "queued_runs", lambda _: {})
    assert part(run, words, f"2/{count}") == 0
    command = ["evaluate", str(run.path), *words, "--on", "slurm", "--shards", str(count), "--slurm", "time=10"]
    assert main([*command, "--jobs", "1"]) == 0
    out = capfd.readouterr().out
    assert f"Parts measured: 1 of {count}" in out
    assert f"Submitted: {count - 1}, Slurm's job 7" in out
    ((orders, (folder, own, jobs, _)),) = submitted
    assert (own["time"], jobs) == (10, 1)
    assert [order.target.name for order in orders] == [f"{i}-of-{count}" for i in range(1, count + 1) if i != 2]
    for order in orders:
        assert order.log_path.parent == folder
        assert in_job(order.to_text()) == 0
    assert "train NLL" in orders[-1].log_path.read_text()
    same_as_whole(run, trained, kind)
    # Nothing is left to do: the figures are printed.
    assert main(command) == 0
    assert "train NLL" in capfd.readouterr().out
    assert len(submitted) == 1
