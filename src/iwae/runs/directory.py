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
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from iwae.architecture import Architecture
from iwae.errors import IWAEError, RunBusyError
from iwae.files import naming, remove_leftovers, write_atomically, write_json
from iwae.runs.config import RunConfig

if TYPE_CHECKING:
    from iwae.checkpoint import Checkpoint

FORMAT = 1
LATEST = "latest"
RESTORE = "restore it, or start over with `iwae train --fresh`"


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

    def read_record(self) -> dict[str, Any]:
        """`run.json`. Raises IWAEError when there is no run or the record is damaged or newer."""
        if not self.exists:
            what = "there is no run here" if self.path.is_dir() else "there is no such directory"
            raise IWAEError(f"{self.path}: {what} (a run has a run.json; `iwae train` makes one)")
        record = read_json(self.record_path)
        if not isinstance(record.get("format"), int) or record["format"] > FORMAT:
            raise IWAEError(
                f"{self.record_path}: format {record.get('format')!r} is not one that this version reads"
                f" (up to {FORMAT}): upgrade iwae"
            )
        if not isinstance(record.get("config"), dict) or not isinstance(record.get("data"), dict):
            raise IWAEError(f"{self.record_path}: damaged, it has no configuration; {RESTORE}")
        return record

    def config(self) -> RunConfig:
        """The configuration that the run was begun with."""
        record = self.read_record()
        try:
            return RunConfig.from_json(record["config"])
        except IWAEError as error:
            raise IWAEError(f"{self.record_path}: {error}") from None

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
        if not isinstance(recorded, dict) or Path(str(recorded.get("run"))).name != path.name:
            return False
        try:
            results = RunDirectory(path).results()
        except IWAEError:
            return True
        # A source that was trained on since has other weights, after other steps.
        if results is None or results.get("step") != recorded.get("step"):
            return True
        return results.get("weights_sha256") == recorded.get("weights_sha256")

    def write_record(self, record: dict[str, Any]) -> None:
        """Writes `run.json`."""
        write_json(self.record_path, {"format": FORMAT, **record})

    def results(self) -> dict[str, Any] | None:
        """`results.json`, or None before the run has measured itself. Raises IWAEError for a damaged one."""
        if not self.results_path.is_file():
            return None
        advice = "delete it, and `iwae train` measures again"
        results = read_json(self.results_path, advice)
        if not isinstance(results.get("stages_done"), int) or not isinstance(results.get("test"), dict):
            raise IWAEError(f"{self.results_path}: not a run's results; {advice}")
        return results

    # Checkpoints

    def checkpoint_path(self, name: int | str) -> Path:
        """The file of the checkpoint after `name` stages, or of `latest`."""
        return self.checkpoints_path / f"{name}.safetensors"

    def stage_checkpoints(self) -> list[int]:
        """Numbers of the stage checkpoints that are there, ascending."""
        stems = [path.stem for path in self.checkpoints_path.glob("*.safetensors")]
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def newest_checkpoint(self) -> "Checkpoint":
        """The checkpoint with the most steps.

        Raises CheckpointError when there is none, or when the one that must be the newest is damaged or missing:
        the message then names the newest intact one, and nothing older is used silently.
        """
        from iwae.checkpoint import CheckpointError

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
        from iwae.checkpoint import CheckpointError

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
        return max(lines[-1].get("stage", 0) if lines else 0, results["stages_done"] if results else 0)

    def _load(self, name: int | str) -> "Checkpoint":
        """An intact checkpoint of this run. Raises CheckpointError for any other."""
        from iwae.checkpoint import CheckpointError, load_checkpoint

        checkpoint = load_checkpoint(self.checkpoint_path(name))
        recorded = self.read_record().get("architecture")
        if not isinstance(recorded, dict) or checkpoint.architecture != Architecture.from_json(recorded):
            raise CheckpointError(
                f"{checkpoint.path}: the checkpoint is of another architecture, {checkpoint.architecture.to_json()},"
                f" than this run's, {recorded}"
            )
        if checkpoint.seed != self.config().seed:
            raise CheckpointError(f"{checkpoint.path}: the checkpoint is of seed {checkpoint.seed}, not of this run's")
        return checkpoint

    def _newest_intact(self, numbers: list[int]) -> int | None:
        from iwae.checkpoint import CheckpointError

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
        """Drops the lines after `step`, and a last line that was only half written."""
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        if not self.metrics_path.exists() or self.metrics_path.read_text(errors="replace") != text:
            write_atomically(self.metrics_path, text.encode())

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl` up to the first damaged one."""
        lines = []
        if self.metrics_path.is_file():
            for text in self.metrics_path.read_text(errors="replace").splitlines(keepends=True):
                try:
                    line = json.loads(text)
                    if not text.endswith("\n") or not isinstance(line["step"], int):
                        break
                except (ValueError, KeyError, TypeError):
                    break
                lines.append(line)
        return lines

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Appends one line, durably. Raises OSError, naming the file."""
        with naming(self.metrics_path), open(self.metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_json(path: Path, advice: str = RESTORE) -> dict[str, Any]:
    """A JSON object from a file. Raises IWAEError, naming the file and giving `advice`, for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise IWAEError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise IWAEError(f"{path}: not intact JSON ({error}); {advice}") from None
    if not isinstance(value, dict):
        raise IWAEError(f"{path}: expected a JSON object, found a {type(value).__name__}; {advice}")
    return value


def put_run_aside(path: Path) -> Path:
    """Renames a whole run to `<path>.replaced-<i>`, so that another can start in its place.

    Raises IWAEError for a directory that this process works in: it would go along.
    """
    if Path.cwd().is_relative_to(path.resolve()):
        raise IWAEError(f"{path} is or contains the working directory: --fresh can't replace it, call from elsewhere")
    index = 1
    while (aside := path.with_name(f"{path.name}.replaced-{index}")).exists():
        index += 1
    os.rename(path, aside)
    return aside
