"""A run's trackers: what metrics.jsonl and results.json have, sent once each, however often the run is interrupted."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

from iwae.errors import IWAEError
from iwae.io.files import write_json
from iwae.io.json import Count, read_json
from iwae.runs.directory import Run
from iwae.runs.records import MetricsLine, ResultsRecord
from iwae.runs.reporter import Reporter
from iwae.training.trackers import Tracker, TrackerName


class TrackedRecord(TypedDict):
    """How far a tracker has got: its identity, the last step written, and which results."""

    identity: str
    step: Count
    results: NotRequired[str]


class Tracking:
    """The trackers of one run whose lock is held. `tracking.json` says how far each has got.

    That is noted before a tracker is given its figures: a process that is killed in between leaves a gap in a curve,
    and never a step that is there twice.
    """

    def __init__(self, run: Run, names: Sequence[TrackerName], reporter: Reporter):
        self._run, self._reporter = run, reporter
        self._path = run.path / "tracking.json"
        self._records: dict[str, TrackedRecord] = {}
        self._trackers: list[Tracker] = []
        if not names:
            return
        try:
            if self._path.exists():
                advice = "delete it, and all is written to new ones"
                self._records = read_json(self._path, dict[str, TrackedRecord], advice)
        except IWAEError as error:
            self._warn(f"the trackers are left out: {error}")
            return
        config = {**run.record["config"], "data": run.data["name"]}
        for name in names:
            identity = self._records[name]["identity"] if name in self._records else None
            tracker = Tracker(
                name, run.path, run_name=run.path.resolve().name, config=config, identity=identity, warn=self._warn
            )
            if tracker.identity is None or tracker.is_failed:
                continue
            self._records.setdefault(name, {"identity": tracker.identity, "step": 0})
            self._trackers.append(tracker)
            for line in run.metrics.lines():
                self._write(tracker, line)

    def epoch(self, line: MetricsLine) -> None:
        """Writes an epoch's line of metrics, to those that do not have it."""
        for tracker in self._trackers:
            self._write(tracker, line)

    def finish(self, results: ResultsRecord) -> None:
        """Writes the final likelihood and active units, to those that do not have them."""
        test = results["test"]
        measured = f"{results['weights_sha256']} {test['num_samples']} {test['num_examples']}"
        counts = results["active_units"]
        figures = {
            **{f"test/{name}": test.get(name) for name in ("nll", "stderr", "num_samples", "num_examples")},
            "active_units": float(sum(counts)),
            **{f"active_units/h_{layer}": float(count) for layer, count in enumerate(counts, 1)},
        }
        for tracker in self._trackers:
            if self._records[tracker.name].get("results") != measured:
                before = self._note(tracker, {**self._records[tracker.name], "results": measured})
                tracker.summarize(figures, results["step"])
                self._note_failure(tracker, before)

    def close(self) -> None:
        """Ends all of them."""
        for tracker in self._trackers:
            tracker.close()
        self._trackers = []

    def _write(self, tracker: Tracker, line: MetricsLine) -> None:
        if line["step"] <= self._records[tracker.name]["step"] or tracker.is_failed:
            return
        before = self._note(tracker, {**self._records[tracker.name], "step": line["step"]})
        figures = {"train/bound": line["bound"], "valid/bound": line.get("valid_bound")}
        tracker.write({"epoch": line["epoch"], **figures, "learning_rate": line["learning_rate"]}, line["step"])
        self._note_failure(tracker, before)

    def _note(self, tracker: Tracker, record: TrackedRecord) -> TrackedRecord:
        before = self._records[tracker.name]
        self._records[tracker.name] = record
        try:
            write_json(self._path, self._records)
        except OSError as error:
            tracker.fail(error)
        return before

    def _note_failure(self, tracker: Tracker, before: TrackedRecord) -> None:
        """What a tracker refused, it is given again when the run is continued."""
        if tracker.is_failed:
            self._note(tracker, before)

    def _warn(self, text: str) -> None:
        self._reporter.message(f"Warning: {text}")
