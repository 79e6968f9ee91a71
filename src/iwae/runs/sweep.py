"""A sweep: runs over a grid of options and seeds, in one directory.

sweep.json     what was asked for, and the configuration of every run
<run>/         the runs, and <run>.train.log, what their processes said
table.*        means over seeds, as text, CSV and JSON
slurm/         what was submitted to a cluster
"""

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypedDict

from iwae.errors import IWAEError
from iwae.io.files import expanded, write_atomically, write_json
from iwae.io.json import Count, read_json
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.runs.grid import Definition, PointRecord, Value, label, plain
from iwae.runs.options import MeasureOptions
from iwae.runs.orders import Order
from iwae.runs.progress import RunProgress, progress_of
from iwae.runs.records import measured_enough

FORMAT = 1
FILE = "sweep.json"
RESTORE = "restore it, or begin another sweep in an empty directory"

# Where these differ, likelihoods are of other things, and none is better than another.
OF_THE_DATA = ("dataset", "likelihood", "columns", "target", "split_seed")


class SweepRecord(TypedDict):
    """`sweep.json`."""

    format: Count
    grid: dict[str, list[Value]]
    runs: list[PointRecord]
    stages: Count | None
    measure: dict[str, Count | None]


class Sweep:
    """A sweep's directory, opened: what it is over, and its runs. Raises IWAEError for one that can't be read."""

    def __init__(self, path: str | Path):
        self.path = expanded(path)
        self.record = read_json(self.path / FILE, SweepRecord, RESTORE, FORMAT)
        for own in self.record["runs"]:
            if Path(own["run"]).name != own["run"]:
                raise IWAEError(f"{self.path / FILE}: {own['run']!r} is no name of a directory; {RESTORE}")
        self.measure = MeasureOptions(**self.record["measure"])  # pyright: ignore[reportArgumentType]

    @staticmethod
    def is_here(path: Path) -> bool:
        """Whether a directory is a sweep's."""
        return (expanded(path) / FILE).is_file()

    @classmethod
    def create(cls, path: Path, definition: Definition, stages: int | None, measure: MeasureOptions) -> "Sweep":
        """The sweep in a directory, begun or gone on with; more values and more seeds than it had are added.

        Raises IWAEError where another sweep, or something else, is there.
        """
        path = expanded(path)
        points = definition.points()
        if path.exists() and not path.is_dir():
            raise IWAEError(f"{path} is a file: a sweep needs a directory, choose another `sweep_dir`")
        if cls.is_here(path):
            wanted = {point["run"] for point in points}
            gone = [own["run"] for own in cls(path).record["runs"] if own["run"] not in wanted]
            if gone:
                raise IWAEError(
                    f"{path} holds another sweep, with {len(gone)} runs that this one does not have ({gone[0]}, ...):"
                    " give all that it has, or choose another `sweep_dir`"
                )
        elif Run(path).exists:
            raise IWAEError(f"{path} is a run's directory: choose another `sweep_dir`")
        path.mkdir(parents=True, exist_ok=True)
        grid = {name: [*map(plain, values)] for name, values in definition.grid.items()}
        record = {"format": FORMAT, "grid": grid, "runs": points, "stages": stages, "measure": asdict(measure)}
        write_json(path / FILE, record)
        return cls(path)

    @property
    def runs(self) -> list[Run]:
        """Its runs, in their order, begun or not."""
        return [Run(self.path / own["run"]) for own in self.record["runs"]]

    def unfinished(
        self, *, save_every: float, datasets_dir: Path | None, command: str = "the same iwae sweep"
    ) -> list[Order]:
        """An order for each run that is not trained or not measured yet: alone, so that it has the bits that
        `iwae train` gives it. `command` is what goes on with them.
        """
        return [
            Order(
                runs={Path(os.path.abspath(run.path)): config},
                then="validate",
                command=command,
                measure=self.measure,
                stages=self._stages(config),
                save_every=save_every,
                datasets_dir=datasets_dir,
            )
            for run, config in zip(self.runs, self._configs, strict=True)
            if not self._is_done(run, config)
        ]

    def progress(self) -> list[RunProgress]:
        """How far each run is, from its files: on any machine that sees them."""
        return [
            progress_of(run, config.full_schedule(self._stages(config)), is_done=self._is_done(run, config))
            for run, config in zip(self.runs, self._configs, strict=True)
        ]

    @cached_property
    def _configs(self) -> list[RunConfig]:
        return [RunConfig.from_json(own["config"]) for own in self.record["runs"]]

    def _stages(self, config: RunConfig) -> int | None:
        return None if config.init_from else self.record["stages"]

    def _is_done(self, run: Run, config: RunConfig) -> bool:
        """Whether it is trained, and measured on test and validation examples. What can't be read is not done: its
        process says what is wrong.
        """
        try:
            found = run.results() if run.exists else None
            if found is None or found["stages_done"] < len(config.full_schedule(self._stages(config))):
                return False
            most = self.measure.examples_for(config)
            if not measured_enough(found["test"], self.measure.test_samples, most):
                return False
            return found["data"]["examples"]["valid"] == 0 or run.measured(found, "valid") is not None
        except (IWAEError, OSError):
            return False

    # The table

    def table(self) -> list[dict[str, Any]]:
        """One flat record for each combination of the grid's values: how many of its `seeds` are `finished`, and of
        these the mean of the test and validation NLL in nats with its standard error over seeds, and of the active
        units. `is_best` is the one of the lowest validation NLL, among those of the same data and kinds of values whose
        seeds are all finished; the test NLL has no say in it. Figures are None where there are none.
        """
        groups: dict[str, list[PointRecord]] = {}
        for own in self.record["runs"]:
            groups.setdefault(json.dumps(own["point"]), []).append(own)
        rows = [self._row(group) for group in groups.values()]
        best: dict[str, dict[str, Any]] = {}
        for row in rows:
            key = label([row[name] for name in OF_THE_DATA if name in row])
            if row["finished"] == row["seeds"] and row["valid_nll"] is not None:
                best[key] = min(best.get(key, row), row, key=lambda one: one["valid_nll"])
        return [{**row, "is_best": any(row is one for one in best.values())} for row in rows]

    def _row(self, group: Sequence[PointRecord]) -> dict[str, Any]:
        configs = {own["run"]: RunConfig.from_json(own["config"]) for own in group}
        runs = [run for name, config in configs.items() if self._is_done(run := Run(self.path / name), config)]
        results = [found for run in runs if (found := run.results()) is not None]
        valid = [run.measured(found, "valid") for run, found in zip(runs, results, strict=True)]
        return {
            **group[0]["point"],
            "seeds": len(group),
            "finished": len(results),
            **_over_seeds("valid_nll", [None if found is None else found["nll"] for found in valid]),
            **_over_seeds("test_nll", [found["test"]["nll"] for found in results]),
            "active_units": mean(sum(found["active_units"]) for found in results) if results else None,
            "num_samples": _one_or_text({found["test"]["num_samples"] for found in results}),
            "has_valid": any(found["data"]["examples"]["valid"] for found in results),
        }

    def write_table(self, text: str, rows: list[dict[str, Any]] | None = None) -> Path:
        """Writes `rows`, by default the table's, as `table.json` and `table.csv`, and `text` as `table.txt`, whose path
        it returns. Raises OSError.
        """
        rows, buffer = rows or self.table(), io.StringIO()
        writer = csv.DictWriter(buffer, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: label(v) if isinstance(v, list) else v for name, v in row.items()} for row in rows)
        write_json(self.path / "table.json", rows)
        write_atomically(self.path / "table.csv", buffer.getvalue().encode())
        write_atomically(path := self.path / "table.txt", text.encode())
        return path


def _one_or_text(numbers: set[int]) -> int | str | None:
    """The number that all have; several as text, `100+5000`."""
    return next(iter(numbers), None) if len(numbers) < 2 else label(sorted(numbers))


def _over_seeds(name: str, values: Sequence[float | None]) -> dict[str, float | None]:
    """The mean and its standard error; one that is not finite has none."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return {name: None, f"{name}_stderr": None}
    return {name: mean(known), f"{name}_stderr": stdev(known) / len(known) ** 0.5 if len(known) > 1 else None}
