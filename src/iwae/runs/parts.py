"""A measurement in parts, each by a process of its own wherever it runs, and joined to the bits of a whole one.

evaluations/<name>.<weights>.parts/<i>-of-<n>.npz    every example's figures; .json: what made them; .lock: who does

The process that finds all parts there writes the record of the whole, and removes them.
"""

import contextlib
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np

from iwae.data import Dataset, Split
from iwae.errors import IWAEError, RunBusyError, check_count
from iwae.evaluation import likelihood as evaluation
from iwae.evaluation.chains import AnnealedSettings
from iwae.evaluation.examples import EXAMPLES_AT_ONCE
from iwae.io.files import check_writable, write_arrays, write_json
from iwae.io.json import Count, Seconds, read_json
from iwae.io.locks import Held, Lock, holder_of
from iwae.runs import anneal, evaluate
from iwae.runs.checkpoint import Checkpoint
from iwae.runs.config import check_seed
from iwae.runs.directory import Run
from iwae.runs.records import Made, OfWeights
from iwae.runs.reporter import Reporter

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """The part of number `index`, from 1, of `count`."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Of `3/8`. Raises IWAEError for anything else."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        shard = cls(*map(int, found.groups())) if found else cls(0, 0)
        if not 1 <= shard.index <= shard.count:
            raise IWAEError(f"`shard` must be i/n, the i-th of n parts, such as 1/8, got {text!r}")
        return shard

    def bounds(self, total: int, unit: int) -> tuple[int, int]:
        """The first of its examples and the one after its last, of `total` that are measured `unit` at a time: whole
        batches, since a batch of other examples may round otherwise.

        Raises IWAEError where there are fewer batches than parts.
        """
        batches = -(-total // unit)
        if self.count > batches:
            raise IWAEError(
                f"{self.count} parts are too many: {total:,} examples are measured {unit:,} at a time, which makes at"
                f" most {batches:,}"
            )
        first, stop = (batches * edge // self.count * unit for edge in (self.index - 1, self.index))
        return first, min(stop, total)


class PartRecord(TypedDict):
    """The JSON file of a part, which is written last: what made it, and which examples it has."""

    first: Count
    stop: Count
    versions: dict[str, str]
    device: str
    seconds: Seconds


@dataclass(frozen=True)
class Waiting:
    """A part is measured, and others are not: `missing` are their numbers, `others` what is there in parts too."""

    parts: "Parts"
    missing: list[int]
    others: list[str]


@dataclass(frozen=True)
class Parts:
    """The parts of one measurement of `total` examples, `unit` at a time, whose records will be `wholes`; `shard` is
    ours. `leading` are the arrays that each has, by name, with their axes before that of the examples.
    """

    wholes: Sequence[Path]
    directory: Path
    shard: Shard
    total: int
    unit: int
    leading: Mapping[str, tuple[int, ...]]

    def path(self, index: int | None = None) -> Path:
        """The record of a part, by default of ours."""
        return self.directory / f"{index or self.shard.index}-of-{self.shard.count}.json"

    def is_joined(self) -> bool:
        """Whether the records of the whole are there: of these weights, as far as they say."""
        digest = self.directory.suffixes[-2].removeprefix(".")
        with contextlib.suppress(OSError, IWAEError):
            records = [read_json(path, OfWeights, "it is measured again") for path in self.wholes]
            return all(record["weights_sha256"].startswith(digest) for record in records)
        return False

    def missing(self) -> list[int]:
        """Numbers of the parts that are not measured yet."""
        return [index for index in range(1, self.shard.count + 1) if self._read(index) is None]

    def measure(self, figures: Callable[[int, int], dict[str, np.ndarray]]) -> None:
        """Has the figures of our examples computed and kept, unless they are. Raises RunBusyError where another process
        does that now.
        """
        first, stop = self.shard.bounds(self.total, self.unit)
        self.directory.mkdir(exist_ok=True)
        check_writable(self.directory)
        with self._held():
            if self._read(self.shard.index) is not None:
                return
            start = time.perf_counter()
            write_arrays(self.path().with_suffix(".npz"), np.savez, **figures(first, stop))
            record: PartRecord = {
                "first": first,
                "stop": stop,
                "versions": evaluate.versions(),
                "device": evaluate.device(),
                "seconds": round(time.perf_counter() - start, 3),
            }
            write_json(self.path(), record)

    def join(self, whole: Callable[[], T | None], write: Callable[[dict[str, np.ndarray], Made], T]) -> T | Waiting:
        """What `write` makes of all parts, or what is there of the `whole`, joined by another process; then no part is
        kept. Where some are missing, what it waits for.
        """
        read = {index: self._read(index) for index in range(1, self.shard.count + 1)}
        found = [part for part in read.values() if part is not None]
        if len(found) == len(read):
            arrays = {name: np.concatenate([own[name] for own, _ in found], axis=-1) for name in self.leading}
            made = write(arrays, _made_by([record for _, record in found]))
        elif (made := whole()) is None:
            return Waiting(self, [index for index, part in read.items() if part is None], self._others())
        shutil.rmtree(self.directory, ignore_errors=True)
        return made

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        path = self.path().with_suffix(".lock")
        try:
            lock = Lock.acquire(path)
        except Held as error:
            who = f" ({error.holder or holder_of(path)})" if error.holder or holder_of(path) else ""
            raise RunBusyError(
                f"part {self.shard.index} of {self.shard.count} is being measured by another process{who}: wait for"
                " it, or measure another part"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _read(self, index: int) -> tuple[dict[str, np.ndarray], PartRecord] | None:
        """The arrays and the record of a part; None where it is not whole, or damaged: it is measured again."""
        first, stop = Shard(index, self.shard.count).bounds(self.total, self.unit)
        shapes = {name: (*axes, stop - first) for name, axes in self.leading.items()}
        path = self.path(index)
        try:
            record = read_json(path, PartRecord, "it is measured again")
        except (OSError, IWAEError):
            return None
        arrays = evaluate.read_kept(path.with_suffix(".npz"), tuple(shapes), sum(map(math.prod, shapes.values())))
        fits = {name: array.shape for name, array in arrays.items()} == shapes
        return (arrays, record) if fits and (record["first"], record["stop"]) == (first, stop) else None

    def _others(self) -> list[str]:
        """Parts of other measurements, and of other divisions of this one: what was meant to be one of ours may be
        there.
        """
        found = self.directory.parent.glob("*.parts/*-of-*.json")
        ours = (self.directory, f"of-{self.shard.count}")
        return sorted(f"{p.parent.name}/{p.stem}" for p in found if (p.parent, p.stem.partition("-")[2]) != ours)


def _made_by(records: Sequence[PartRecord]) -> Made:
    """What made the whole: several versions or devices are named side by side, and seconds are added."""

    def together(values: Sequence[str]) -> str:
        return ", ".join(dict.fromkeys(values))

    names = dict.fromkeys(name for record in records for name in record["versions"])
    return {
        "versions": {name: together([record["versions"].get(name, "?") for record in records]) for name in names},
        "device": together([record["device"] for record in records]),
        "seconds": round(sum(record["seconds"] for record in records), 3),
    }


def ladder_parts(
    run: Run,
    checkpoint: Checkpoint,
    split: Split,
    shard: Shard,
    *,
    samples: Sequence[int],
    seed: int = 0,
    examples: int | None = None,
) -> Parts:
    """The parts of `evaluate_ladder`. Raises IWAEError as that does, and where there are fewer batches than parts."""
    check_seed(seed)
    ks, total = evaluation.check_ks(samples, "samples"), run.data["examples"][split]
    count = _count(total, examples)
    joined, *wholes = (
        evaluate.measurement_path(run, checkpoint, split, named, seed, count, total)
        for named in ("+".join(map(str, ks)), *ks)
    )
    leading = {f"{name}_{k}": () for k in ks for name in evaluation.ARRAYS}
    unit = min(count, evaluation.examples_at_once(ks))
    return _parts(wholes, joined, checkpoint, shard, count, unit, leading)


def annealed_parts(
    run: Run,
    checkpoint: Checkpoint,
    split: Split,
    shard: Shard,
    *,
    settings: AnnealedSettings,
    examples: int | None = None,
) -> Parts:
    """The parts of `anneal_checkpoint`. Raises IWAEError as that does, and where there are fewer batches than parts."""
    check_seed(settings.seed)
    total = run.data["examples"][split]
    count = _count(total, examples)
    path = anneal.measurement_path(run, checkpoint, split, settings, count, total)
    leading = {"log_weights": (settings.chains,), "acceptance": ()}
    return _parts([path], path, checkpoint, shard, count, EXAMPLES_AT_ONCE, leading)


def _count(total: int, examples: int | None) -> int:
    check_count("examples", examples, optional=True)
    return min(total, examples or total)


def _parts(wholes: Sequence[Path], named: Path, checkpoint: Checkpoint, shard: Shard, *rest: Any) -> Parts:
    found = Parts(wholes, named.with_suffix(f".{checkpoint.weights_digest()[:16]}.parts"), shard, *rest)
    shard.bounds(found.total, found.unit)
    return found


def evaluate_part(
    run: Run,
    checkpoint: Checkpoint,
    dataset: Dataset,
    split: Split,
    shard: Shard,
    *,
    samples: Sequence[int],
    seed: int = 0,
    examples: int | None = None,
    reporter: Reporter,
) -> list[evaluate.Measurement] | Waiting:
    """Measures a part of what `evaluate_ladder` does, and joins all parts where the others are there, to the same bits.
    A part, and a whole, that is there already is not measured again.

    Raises IWAEError as `ladder_parts`, RunBusyError where another process measures the part, and OSError.
    """
    parts = ladder_parts(run, checkpoint, split, shard, samples=samples, seed=seed, examples=examples)
    ks = evaluation.check_ks(samples)

    def whole() -> list[evaluate.Measurement] | None:
        found = [evaluate.read_measurement(path, checkpoint, parts.total) for path in parts.wholes]
        there = [one for one in found if one is not None]
        return there if len(there) == len(found) else None

    def figures(first: int, stop: int) -> dict[str, np.ndarray]:
        rungs = evaluate.measured_ladder(run, checkpoint, dataset, split, ks, seed, stop, reporter, first)
        return {f"{name}_{rung.num_samples}": array for rung in rungs for name, array in rung.arrays.items()}

    def write(arrays: dict[str, np.ndarray], made: Made) -> list[evaluate.Measurement]:
        rungs = [
            evaluation.Likelihoods(num_samples=k, **{name: arrays[f"{name}_{k}"] for name in evaluation.ARRAYS})
            for k in ks
        ]
        return [evaluate.write_measurement(run, checkpoint, dataset, split, one, seed, **made) for one in rungs]

    if (found := whole()) is not None:
        return found
    parts.measure(figures)
    return parts.join(whole, write)


def anneal_part(
    run: Run,
    checkpoint: Checkpoint,
    dataset: Dataset,
    split: Split,
    shard: Shard,
    *,
    settings: AnnealedSettings,
    examples: int | None = None,
    reporter: Reporter,
) -> anneal.AnnealedMeasurement | Waiting:
    """As `evaluate_part`, of what `anneal_checkpoint` does: an interrupted part goes on from where it was."""
    parts = annealed_parts(run, checkpoint, split, shard, settings=settings, examples=examples)
    unfinished = anneal.unfinished_path(parts.path(), checkpoint)

    def whole() -> anneal.AnnealedMeasurement | None:
        return anneal.find_annealed(run, checkpoint, dataset, split, settings, parts.total)

    def figures(first: int, stop: int) -> dict[str, np.ndarray]:
        model = checkpoint.model()
        found = anneal.measured_chains(model, dataset, split, settings, unfinished, stop, reporter, first)
        return dict(zip(("log_weights", "acceptance"), found, strict=True))

    def write(arrays: dict[str, np.ndarray], made: Made) -> anneal.AnnealedMeasurement:
        return anneal.write_measurement(run, checkpoint, dataset, split, settings, **arrays, **made)

    if (found := whole()) is not None:
        return found
    parts.measure(figures)
    anneal.remove_unfinished(unfinished)
    return parts.join(whole, write)
