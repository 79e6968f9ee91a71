"""A run's directory: its files, its lock, its checkpoints and its metrics.

run.json                    configuration, architecture, data and its checksums; written once training may begin
checkpoints/<n>.safetensors after n stages, 0 before the first; latest.safetensors in between
metrics.jsonl               one line per epoch: stage, epoch, step, learning_rate, bound
evaluations/*.json, *.npz   what was measured, per checkpoint
results.json                the finished run's summary
samples.png, samples.npy    100 samples
replaced-<i>/               what a restart from an earlier checkpoint put aside
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from filelock import FileLock, Timeout

from iwae.errors import IWAEError, RunBusyError
from iwae.io.files import naming, open_regular, read_bounded, remove_leftovers, write_atomically, write_json
from iwae.io.json import MAX_JSON_BYTES, Count, decode, read_json, shortened
from iwae.models.architecture import Architecture
from iwae.runs.config import RunConfig
from iwae.runs.records import MetricsLine, ResultsRecord, RunRecord, read_checked

if TYPE_CHECKING:
    from iwae.runs.checkpoint import Checkpoint

FORMAT = 1
LATEST = "latest"
LINE_BYTES = 4096
"""More than a line of metrics takes."""
RESTORE = "restore it, or start over with `iwae train --fresh`"


class _Versioned(TypedDict):
    format: Count


class RunDirectory:
    """Paths and small files of one run. Nothing is created until `create` or a write."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.record_path = self.path / "run.json"
        self.results_path = self.path / "results.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.checkpoints_path = self.path / "checkpoints"
        self.evaluations_path = self.path / "evaluations"

    @property
    def exists(self) -> bool:
        """Whether a run was begun here: checkpoint 0 is written before the record, so it has one."""
        return self.record_path.is_file()

    @property
    def is_put_aside(self) -> bool:
        """Whether another run was started in its place (`put_run_aside`)."""
        return re.search(r"\.replaced-\d+$", self.path.resolve().name) is not None

    def check_no_file_in_the_way(self) -> None:
        """Raises IWAEError where the path is taken by something that is no directory."""
        if self.path.exists() and not self.path.is_dir():
            raise IWAEError(f"{self.path} is a file: a run needs a directory, choose another with --run-dir")

    def create(self) -> None:
        """Makes the directories. Raises IWAEError where something else is in the way, or OSError."""
        self.check_no_file_in_the_way()
        for directory in (self.path, self.checkpoints_path, self.evaluations_path):
            directory.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for this process; the system releases it when the process dies.

        Raises RunBusyError when another process has it.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunBusyError(
                f"{self.path}: another process is working on this run; wait for it, or choose another --run-dir"
            ) from None
        try:
            for directory in (self.path, self.checkpoints_path, self.evaluations_path):
                remove_leftovers(directory)
            yield
        finally:
            lock.release()

    def read_record(self) -> RunRecord:
        """`run.json`. Raises IWAEError when there is no run or the record is damaged or newer."""
        if not self.exists:
            what = "there is no run here" if self.path.is_dir() else "there is no such directory"
            raise IWAEError(f"{self.path}: {what} (a run has a run.json; `iwae train` makes one)")
        # A newer version's record may have another shape: that it is newer is said first.
        version = read_json(self.record_path, _Versioned, RESTORE)["format"]
        if version > FORMAT:
            raise IWAEError(
                f"{self.record_path}: format {version} is not one that this version reads (up to {FORMAT}): upgrade"
                " iwae"
            )
        return read_checked(self.record_path, RunRecord, RESTORE)

    def config(self) -> RunConfig:
        """The configuration that the run was begun with. Raises IWAEError as `read_record` does."""
        return RunConfig.from_json(self.read_record()["config"])

    def differences(self, config: RunConfig) -> list[str]:
        """`field: theirs, there` for every field in which `config` is another than this run's.

        Where the run that it started from lies is no difference while name and weights are the same: whole
        directories of results are moved, and reached through links.
        """
        there = self.config()
        if config.init_from is not None and self._has_source(Path(config.init_from)):
            there = replace(there, init_from=config.init_from)
        return config.differences(there)

    def _has_source(self, path: Path) -> bool:
        """Whether the run in `path` is the one that this run started from, as far as can be told."""
        recorded = self.read_record().get("init_from")
        if recorded is None or Path(recorded["run"]).name != path.name:
            return False
        try:
            results = RunDirectory(path).results()
        except IWAEError:
            return True
        # A source that was trained on since has other weights, after other steps.
        if results is None or results["step"] != recorded["step"]:
            return True
        return results["weights_sha256"] == recorded["weights_sha256"]

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Writes `run.json`."""
        write_json(self.record_path, {"format": FORMAT, **record})

    def results(self) -> ResultsRecord | None:
        """`results.json`, or None before the run has measured itself. Raises IWAEError for a damaged one."""
        if not self.results_path.exists():
            return None
        return read_checked(self.results_path, ResultsRecord, "delete it, and `iwae train` measures again")

    # Checkpoints

    def checkpoint_path(self, name: int | str) -> Path:
        """The file of the checkpoint after `name` stages, or of `latest`."""
        return self.checkpoints_path / f"{name}.safetensors"

    def stage_checkpoints(self) -> list[int]:
        """Numbers of the stage checkpoints that are there, ascending."""
        stems = [path.stem for path in self.checkpoints_path.glob("*.safetensors")]
        # As `checkpoint_path` writes numbers: 0009 or other digits would be looked for as 9.
        return sorted(int(stem) for stem in stems if stem.isdecimal() and str(int(stem)) == stem)

    def newest_checkpoint(self) -> "Checkpoint":
        """The checkpoint with the most steps.

        Raises CheckpointError when there is none, or when the one that must be the newest is damaged or missing:
        the message then names the newest intact one, and nothing older is used silently.
        """
        from iwae.runs.checkpoint import CheckpointError

        numbers = self.stage_checkpoints()
        names: list[int | str] = [
            *([LATEST] if self.checkpoint_path(LATEST).exists() else []),
            *numbers[::-1][:1],
        ]
        if not names:
            raise CheckpointError(
                f"{self.checkpoints_path}: all checkpoints of this run are missing; restore one, or start over"
                " with `iwae train --fresh`"
            )
        try:
            newest = max((self._load(name) for name in names), key=lambda c: c.step)
            recorded = self._stages_recorded()
            if newest.stages_done < recorded:
                raise CheckpointError(f"{self.checkpoint_path(recorded)}: there is no such checkpoint, but there was")
            return newest
        except CheckpointError as error:
            intact = self._newest_intact(numbers)
            advice = (
                "no other is intact: restore one, or start over with `iwae train --fresh`"
                if intact is None
                else f"the newest intact one is {self.checkpoint_path(intact).name}: continue from it with"
                f" --checkpoint {intact}"
            )
            raise CheckpointError(f"{error}; {advice}") from None

    def load_checkpoint(self, number: int) -> "Checkpoint":
        """The checkpoint after `number` stages. Raises CheckpointError, naming those that are there."""
        from iwae.runs.checkpoint import CheckpointError

        try:
            return self._load(number)
        except CheckpointError as error:
            there = [n for n in self.stage_checkpoints() if n != number]
            newest = self._newest_intact(there)
            advice = "no other is intact" if newest is None else f"the newest intact one is {newest} (of {there})"
            raise CheckpointError(f"{error}; {advice}") from None

    def _stages_recorded(self) -> int:
        """Stages after which there must have been a checkpoint, by the metrics and the results.

        A stage's first line of metrics is written once the checkpoint of the stage before is safe.
        """
        lines, results = self.read_metrics(), self.results()
        return max(lines[-1]["stage"] if lines else 0, results["stages_done"] if results else 0)

    def _load(self, name: int | str) -> "Checkpoint":
        """An intact checkpoint of this run. Raises CheckpointError for any other."""
        from iwae.runs.checkpoint import CheckpointError, load_checkpoint

        checkpoint = load_checkpoint(self.checkpoint_path(name))
        recorded = Architecture.from_json(self.read_record()["architecture"])
        if checkpoint.architecture != recorded:
            raise CheckpointError(
                f"{checkpoint.path}: the checkpoint is of another architecture,"
                f" {shortened(str(checkpoint.architecture.to_json()))}, than this run's,"
                f" {shortened(str(recorded.to_json()))}"
            )
        if checkpoint.seed != self.config().seed:
            raise CheckpointError(f"{checkpoint.path}: the checkpoint is of seed {checkpoint.seed}, not of this run's")
        return checkpoint

    def _newest_intact(self, numbers: list[int]) -> int | None:
        from iwae.runs.checkpoint import CheckpointError

        for number in reversed(numbers):
            with contextlib.suppress(CheckpointError):
                self._load(number)
                return number
        return None

    def put_aside_after(self, number: int) -> Path | None:
        """Moves what lies beyond checkpoint `number` into `replaced-<i>/`; None when there was nothing."""
        later = [self.checkpoint_path(n) for n in self.stage_checkpoints() if n > number]
        later += [p for p in (self.checkpoint_path(LATEST), self.results_path) if p.exists()]
        if not later:
            return None
        index = 1
        while (aside := self.path / f"replaced-{index}").exists():
            index += 1
        aside.mkdir()
        if self.metrics_path.exists():
            write_atomically(aside / self.metrics_path.name, self.metrics_path.read_bytes())
        for path in later:
            os.replace(path, aside / path.name)
        return aside

    # Metrics

    def cut_metrics(self, step: int) -> None:
        """Drops the lines after `step`, and from the first damaged one on. Raises IWAEError as `read_metrics` does."""
        content = self._metrics_content()
        kept = b"".join(text for text, line in _intact(content) if line["step"] <= step)
        if not self.metrics_path.exists() or content != kept:
            write_atomically(self.metrics_path, kept)

    def read_metrics(self) -> list[MetricsLine]:
        """The lines of `metrics.jsonl` up to the first damaged one, or the last where that was only half written.

        Raises IWAEError where it is no regular file or larger than any that training writes, and OSError where it
        can't be read.
        """
        return [line for _, line in _intact(self._metrics_content())]

    def epochs_done(self) -> int:
        """Epochs done by the last whole line of `metrics.jsonl`: cheap to ask again and again while it grows.

        Raises what `read_metrics` does, but for a file that is too large.
        """
        try:
            with open_regular(self.metrics_path) as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LINE_BYTES))
                *lines, _ = file.read(LINE_BYTES).split(b"\n")
        except FileNotFoundError:
            return 0
        for text in reversed(lines):
            with contextlib.suppress(ValueError):
                return decode(text, MetricsLine)["epoch"]
        return 0

    def _metrics_content(self) -> bytes:
        try:
            return read_bounded(self.metrics_path, MAX_JSON_BYTES)
        except FileNotFoundError:
            return b""

    def append_metrics(self, line: MetricsLine) -> None:
        """Appends one line, durably. Raises OSError, naming the file."""
        with naming(self.metrics_path), open(self.metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _intact(content: bytes) -> Iterator[tuple[bytes, MetricsLine]]:
    """Lines of metrics, as text and read, up to the first that is damaged or not whole."""
    for text in content.splitlines(keepends=True):
        try:
            line = decode(text, MetricsLine)
        except ValueError:
            return
        if not text.endswith(b"\n"):
            return
        yield text, line


def check_may_be_put_aside(run: RunDirectory) -> None:
    """Raises IWAEError for anything that is no run, and for a directory that this process works in, which would go
    along.
    """
    if not run.exists and not run.checkpoints_path.is_dir():
        raise IWAEError(f"{run.path} is no run: --fresh replaces only runs, choose another --run-dir")
    if Path.cwd().is_relative_to(run.path.resolve()):
        raise IWAEError(
            f"{run.path} is or contains the working directory: --fresh can't replace it, call from elsewhere"
        )


def put_run_aside(path: Path) -> Path:
    """Renames a whole run to `<path>.replaced-<i>`, so that another can start in its place; returns its new name."""
    index = 1
    while (aside := path.with_name(f"{path.name}.replaced-{index}")).exists():
        index += 1
    os.rename(path, aside)
    return aside
