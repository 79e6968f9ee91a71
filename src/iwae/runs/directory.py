"""A run: its directory's files, its lock, its checkpoints and its metrics.

run.json                    configuration, architecture, data and its checksums; written once training may begin
checkpoints/<n>.safetensors after n stages, 0 before the first; latest.safetensors in between; of a run with
                            `patience` best.safetensors, after its best epoch
metrics.jsonl               one line per epoch: stage, epoch, step, learning_rate, bound
tracking.json               how far the trackers of experiments have been told of it
evaluations/*.json, *.npz   what was measured, per checkpoint
results.json                the finished run's summary
samples.png, samples.npy    100 samples (samples.csv of a table)
.lock, .lock.<n>            which process works on it: see iwae.io.locks
replaced-<i>/               what a restart from an earlier checkpoint put aside
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from iwae.data import Column, Split
from iwae.errors import IWAEError, RunBusyError
from iwae.io.files import expanded, remove_leftovers, write_atomically, write_json
from iwae.io.json import shortened
from iwae.io.locks import STALE_SECONDS, Held, Holder, Lock, holder_of
from iwae.models.architecture import Architecture
from iwae.runs.config import RunConfig
from iwae.runs.data import DataRecord
from iwae.runs.metrics import Metrics
from iwae.runs.records import AnnealedRecord, EvaluationRecord, ResultsRecord, RunRecord, read_checked

if TYPE_CHECKING:
    from iwae.models.vae import HierarchicalVAE
    from iwae.runs.checkpoint import Checkpoint

T = TypeVar("T", AnnealedRecord, EvaluationRecord)
FORMAT = 1
LATEST = "latest"
LOCK = ".lock"
BEST = "best"
RESTORE = "restore it, or start over with `iwae train --fresh`"
# What a run writes into its directory beside its record and its checkpoints.
WRITTEN = (
    "metrics.jsonl",
    "results.json",
    "samples.png",
    "samples.npy",
    "samples.csv",
    "pruning.json",
    "analysis",
    "diagnostics",
)


class Run:
    """A run's directory. `Run.open` also reads and checks its record, once, which `record`, `config`, `data` and
    `architecture` are of; `Run(path)` may be a place where no run is yet. `~` in `path` is the home directory.

    Nothing is created until `create` or a write.
    """

    def __init__(self, path: str | Path):
        self.path = expanded(path)
        self.record_path = self.path / "run.json"
        self.results_path = self.path / "results.json"
        self.metrics = Metrics(self.path / "metrics.jsonl")
        self.checkpoints_path = self.path / "checkpoints"
        self.evaluations_path = self.path / "evaluations"
        self._lock: Lock | None = None

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """The run in a directory. Raises IWAEError where there is none, or its record is damaged or newer."""
        run = cls(path)
        _ = run.record
        return run

    # The record

    @property
    def exists(self) -> bool:
        """Whether a run was begun here: checkpoint 0 is written before the record, so it has one."""
        return self.record_path.is_file()

    @cached_property
    def record(self) -> RunRecord:
        """`run.json`, read when first asked for. Raises IWAEError as `open` does."""
        if not self.exists:
            what = "there is no run here" if self.path.is_dir() else "there is no such directory"
            raise IWAEError(f"{self.path}: {what} (a run has a run.json; `iwae train` makes one)")
        return read_checked(self.record_path, RunRecord, RESTORE, FORMAT)

    @cached_property
    def config(self) -> RunConfig:
        """The configuration that the run was begun with."""
        return RunConfig.from_json(self.record["config"])

    @property
    def data(self) -> DataRecord:
        """The data that it is trained on."""
        return self.record["data"]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the table that it is trained on; none for arrays."""
        recorded = self.data.get("columns", ())
        return tuple(Column(own["name"], own["kind"], own["type"], tuple(own.get("levels", ()))) for own in recorded)

    @cached_property
    def architecture(self) -> Architecture:
        """The model's sizes."""
        return Architecture.from_json(self.record["architecture"])

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Writes `run.json`."""
        write_json(self.record_path, {"format": FORMAT, **record})
        self._forget()

    def _forget(self) -> None:
        """Has the record read again."""
        for name in ("record", "config", "architecture"):
            self.__dict__.pop(name, None)

    def differences(self, config: RunConfig) -> list[str]:
        """`field: theirs, there` for every field in which `config` is another than this run's.

        Where the run that it started from lies is no difference while name and weights are the same: whole
        directories of results are moved, and reached through links.
        """
        there = self.config
        if config.init_from is not None and self._has_source(Path(config.init_from)):
            there = replace(there, init_from=config.init_from)
        return config.differences(there)

    def _has_source(self, path: Path) -> bool:
        """Whether the run in `path` is the one that this run started from, as far as can be told."""
        recorded = self.record.get("init_from")
        if recorded is None or Path(recorded["run"]).name != path.name:
            return False
        try:
            results = Run(path).results()
        except IWAEError:
            return True
        # A source that was trained on since has other weights, after other steps.
        if results is None or results["step"] != recorded["step"]:
            return True
        return results["weights_sha256"] == recorded["weights_sha256"]

    def results(self) -> ResultsRecord | None:
        """`results.json`, or None before the run has measured itself. Raises IWAEError for a damaged one."""
        if not self.results_path.exists():
            return None
        return read_checked(self.results_path, ResultsRecord, "delete it, and `iwae train` measures again")

    def annealed(
        self, digest: str | None = None, split: Split = "test", most_examples: int | None = None
    ) -> tuple[AnnealedRecord, Path] | tuple[None, None]:
        """Of the annealed measurements of a split with the weights of `digest`, by default those of `results.json`, the
        one of most examples, up to `most_examples`, and of these the longest, and its file; None where there is none.
        """
        if digest is None and (results := self.results()):
            digest = results["weights_sha256"]
        found = [
            (one, path)
            for one, path in self._measurements("*-ais-*.json", AnnealedRecord)
            if (one["weights_sha256"], one["split"]) == (digest, split)
            and (most_examples is None or one["num_examples"] <= most_examples)
        ]
        longest = max(
            found, key=lambda pair: (pair[0]["num_examples"], pair[0]["chains"] * pair[0]["steps"]), default=None
        )
        return longest or (None, None)

    def measured(self, results: ResultsRecord, split: Split) -> EvaluationRecord | None:
        """The measurement of a split with the weights of `results`, as many samples and the most examples; None where
        there is none.
        """
        wanted = (results["weights_sha256"], split, results["test"]["num_samples"])
        records = [one for one, _ in self._measurements(f"*-{split}-*.json", EvaluationRecord)]
        found = [one for one in records if (one["weights_sha256"], one["split"], one["num_samples"]) == wanted]
        return max(found, key=lambda one: one["num_examples"], default=None)

    def _measurements(self, pattern: str, kind: type[T]) -> Iterator[tuple[T, Path]]:
        """The intact records of a kind in `evaluations/`, by the names of their files."""
        for path in sorted(self.evaluations_path.glob(pattern)):
            with contextlib.suppress(OSError, IWAEError):
                yield read_checked(path, kind, "it is measured again"), path

    # The directory

    def check_no_file_in_the_way(self) -> None:
        """Raises IWAEError where the path is taken by something that is no directory."""
        if self.path.exists() and not self.path.is_dir():
            raise IWAEError(f"{self.path} is a file: a run needs a directory, choose another `run_dir`")

    def create(self) -> None:
        """Makes the directories. Raises IWAEError where something else is in the way, or OSError."""
        self.check_no_file_in_the_way()
        for directory in (self.path, self.checkpoints_path, self.evaluations_path):
            directory.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for this process, among those of all hosts that see the directory (see `iwae.io.locks`); what
        a dead process held is free.

        Raises RunBusyError when another process has it.
        """
        try:
            self._lock = Lock.acquire(self.path / LOCK)
        except Held as error:
            who = f" ({error.holder})" if error.holder is not None else ""
            raise RunBusyError(
                f"{self.path}: another process is working on this run{who}; wait for it, or choose another `run_dir`"
            ) from None
        try:
            for directory in (self.path, self.checkpoints_path, self.evaluations_path):
                remove_leftovers(directory)
            self._forget()
            yield
        finally:
            self._lock.release()

    def check_held(self) -> None:
        """Raises RunBusyError where another process has taken the run over from this one, which was suspended."""
        if self._lock is not None and not self._lock.is_held():
            raise RunBusyError(
                f"{self.path}: this process was suspended, or cut off from its files, for more than"
                f" {STALE_SECONDS:.0f} s, and another one has taken the run over; wait for that one"
            )

    @property
    def holder(self) -> Holder | None:
        """The process that works on the run now, on whatever host."""
        return holder_of(self.path / LOCK) if self.path.is_dir() else None

    def in_the_way(self) -> list[str]:
        """What a new run would write and is already here, though no run was begun: a run that died before its record
        was written has got as far as checkpoint 0, and no training was lost.
        """
        found = [name for name in WRITTEN if (self.path / name).exists()]
        numbers = [number for number in self.stage_checkpoints() if number > 0]
        checkpoints = [*numbers, *(name for name in (LATEST, BEST) if self.checkpoint_path(name).exists())]
        return found + [f"checkpoints/{name}.safetensors" for name in checkpoints]

    @property
    def is_put_aside(self) -> bool:
        """Whether another run was started in its place (`put_aside`)."""
        return re.search(r"\.replaced-\d+$", self.path.resolve().name) is not None

    def put_aside(self) -> Path:
        """Renames the directory to `<path>.replaced-<i>`, so that another run can start in its place; returns its new
        name.
        """
        aside = _first_free(self.path.with_name(f"{self.path.name}.replaced"))
        os.rename(self.path, aside)
        return aside

    # Checkpoints

    def checkpoint_path(self, name: int | str) -> Path:
        """The file of the checkpoint after `name` stages, or of `latest`."""
        return self.checkpoints_path / f"{name}.safetensors"

    def stage_checkpoints(self) -> list[int]:
        """Numbers of the stage checkpoints that are there, ascending."""
        stems = [path.stem for path in self.checkpoints_path.glob("*.safetensors")]
        # As `checkpoint_path` writes numbers: 0009 or other digits would be looked for as 9.
        return sorted(int(stem) for stem in stems if stem.isdecimal() and str(int(stem)) == stem)

    @property
    def has_best(self) -> bool:
        """Whether this is a run with `patience`, after its first epoch."""
        return self.checkpoint_path(BEST).exists() and self.config.patience is not None

    def checkpoint(self, number: int | None = None, *, newest: bool = False) -> "Checkpoint":
        """The checkpoint after `number` stages, or by default the one with the most steps; where there is a best one,
        that instead, unless the `newest` is asked for.

        Raises CheckpointError when it is missing or damaged, also when the one that must be the newest is: the message
        then names the newest intact one, and nothing older is used silently.
        """
        from iwae.runs.checkpoint import CheckpointError

        numbers = self.stage_checkpoints()
        try:
            if number is None and self.has_best and not newest:
                return self._load(BEST)
            return self._newest(numbers) if number is None else self._load(number)
        except CheckpointError as error:
            others = [n for n in numbers if n != number] if number is not None else numbers
            intact = self._newest_intact(others)
            if number is not None:
                advice = "no other is intact" if intact is None else f"the newest intact one is {intact} (of {others})"
            elif intact is None:
                advice = "no other is intact: restore one, or start over with `iwae train --fresh`"
            else:
                name = self.checkpoint_path(intact).name
                advice = f"the newest intact one is {name}: continue from it with `checkpoint` {intact}"
            raise CheckpointError(f"{error}; {advice}") from None

    def _newest(self, numbers: Sequence[int]) -> "Checkpoint":
        from iwae.runs.checkpoint import CheckpointError

        names = [*([LATEST] if self.checkpoint_path(LATEST).exists() else []), *numbers[-1:]]
        if not names:
            raise CheckpointError(f"{self.checkpoints_path}: all checkpoints of this run are missing")
        newest = max(map(self._load, names), key=lambda checkpoint: checkpoint.step)
        # A stage's first line of metrics is written once the checkpoint of the stage before is safe.
        lines, results = self.metrics.lines(), self.results()
        recorded = max(lines[-1]["stage"] if lines else 0, results["stages_done"] if results else 0)
        if newest.stages_done < recorded:
            raise CheckpointError(f"{self.checkpoint_path(recorded)}: there is no such checkpoint, but there was")
        return newest

    def _load(self, name: int | str) -> "Checkpoint":
        """An intact checkpoint of this run. Raises CheckpointError for any other."""
        from iwae.runs.checkpoint import CheckpointError, load_checkpoint

        checkpoint = load_checkpoint(self.checkpoint_path(name))
        if checkpoint.architecture != self.architecture:
            raise CheckpointError(
                f"{checkpoint.path}: the checkpoint is of another architecture,"
                f" {shortened(str(checkpoint.architecture.to_json()))}, than this run's,"
                f" {shortened(str(self.architecture.to_json()))}"
            )
        if checkpoint.seed != self.config.seed:
            raise CheckpointError(f"{checkpoint.path}: the checkpoint is of seed {checkpoint.seed}, not of this run's")
        return checkpoint

    def _newest_intact(self, numbers: Sequence[int]) -> int | None:
        for number in reversed(numbers):
            with contextlib.suppress(IWAEError):
                self._load(number)
                return number
        return None

    def put_aside_after(self, number: int, *, kept_best: bool = False) -> Path | None:
        """Moves what lies beyond checkpoint `number` into `replaced-<i>/`, and the best one unless it is to be kept;
        None when there was nothing.
        """
        later = [self.checkpoint_path(n) for n in self.stage_checkpoints() if n > number]
        names = (LATEST,) if kept_best else (LATEST, BEST)
        later += [path for path in (*map(self.checkpoint_path, names), self.results_path) if path.exists()]
        if not later:
            return None
        aside = _first_free(self.path / "replaced")
        aside.mkdir()
        if self.metrics.path.exists():
            write_atomically(aside / self.metrics.path.name, self.metrics.path.read_bytes())
        for path in later:
            os.replace(path, aside / path.name)
        return aside


def _first_free(path: Path) -> Path:
    """`<path>-<i>` with the smallest i from 1 that is not taken."""
    index = 1
    while (free := path.with_name(f"{path.name}-{index}")).exists():
        index += 1
    return free


def load(
    path: str | Path, checkpoint: int | None = None, *, into: "HierarchicalVAE | None" = None
) -> "HierarchicalVAE":
    """The model of a run (its newest checkpoint, or the one after `checkpoint` stages), of one checkpoint file, or of a
    file that `save` wrote; `into` is a model of the same structure, for weights of networks of your own.

    Raises IWAEError for a directory that holds no run, and CheckpointError for a missing or damaged checkpoint.
    """
    from iwae.runs.weights import load_weights

    path = expanded(path)
    return load_weights(path, into) if path.is_file() else Run.open(path).checkpoint(checkpoint).model()
