"""What a process of its own does with runs: the same text is its order on this machine and in a cluster's queue."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from iwae.errors import IWAEError
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.runs.options import MeasureOptions, TrainOptions
from iwae.runs.reporter import Reporter
from iwae.runs.signals import SignalWatch

LOG_SUFFIX = "train.log"


@dataclass(frozen=True)
class CommandOrder:
    """Carry out a command line, the `words` after `iwae`. It makes `target`, for which two are never in a queue."""

    words: tuple[str, ...]
    target: Path
    log_path: Path

    waits_for = None

    @property
    def works_on(self) -> list[Path]:
        """Its target."""
        return [self.target]

    def to_text(self) -> str:
        """JSON on one line, which `order_of` reads."""
        return json.dumps({"words": self.words, "target": str(self.target), "log_path": str(self.log_path)})


@dataclass(frozen=True)
class Order:
    """Train the runs in these directories together or continue them, and measure them; then analyze them, or measure
    them on validation examples too.

    `source_stages` are the stages that the run must have which they start from. `command` is what continues them.
    """

    runs: Mapping[Path, RunConfig]
    then: Literal["analyze", "validate"]
    command: str
    measure: MeasureOptions = field(default_factory=MeasureOptions)
    stages: int | None = None
    save_every: float = TrainOptions.save_every
    source_stages: int | None = None
    datasets_dir: Path | None = None

    @property
    def first(self) -> RunConfig:
        """The configuration of the first run."""
        return next(iter(self.runs.values()))

    @property
    def works_on(self) -> list[Path]:
        """The directories of its runs."""
        return list(self.runs)

    @property
    def waits_for(self) -> str | None:
        """The directory of the run that these start from."""
        return self.first.init_from

    @property
    def log_path(self) -> Path:
        """Where its process says what it does: named after the first of its runs, beside it."""
        path = next(iter(self.runs))
        return path.with_name(f"{path.name}.{LOG_SUFFIX}")

    def to_text(self) -> str:
        """JSON on one line, which `order_of` reads."""
        return json.dumps(
            {
                **{name: getattr(self, name) for name in ("then", "command", "stages", "save_every", "source_stages")},
                "runs": {str(path): config.to_json() for path, config in self.runs.items()},
                "measure": asdict(self.measure),
                "datasets_dir": str(self.datasets_dir) if self.datasets_dir else None,
            }
        )

    @classmethod
    def from_text(cls, text: str) -> "Order":
        """Inverse of `to_text`."""
        own = json.loads(text)
        own["runs"] = {Path(path): RunConfig.from_json(config) for path, config in own["runs"].items()}
        own["measure"] = MeasureOptions(**own["measure"])
        own["datasets_dir"] = Path(own["datasets_dir"]) if own["datasets_dir"] else None
        return cls(**own)

    def carry_out(self, reporter: Reporter) -> None:
        """Does it, in this process. Raises what `train_runs` does, Divergence once the other runs are done."""
        self._check_source()
        # An exception that a handler raises while native code is loaded would end the process without a word.
        with SignalWatch(hold=True) as signals:
            from iwae.runs.train import train_runs
            from iwae.training.loop import Divergence
        signals.check("nothing had begun")

        failure = None
        try:
            train_runs(
                self.runs,
                options=TrainOptions(stages=self.stages, save_every=self.save_every),
                measure=self.measure,
                measure_again=True,
                datasets_dir=self.datasets_dir,
                reporter=reporter,
                continue_command=self.command,
            )
        except Divergence as error:
            failure = error
        for path in self.runs:
            if Run(path).results() is not None:
                self._analyze(path, reporter) if self.then == "analyze" else self._validate(path, reporter)
        if failure is not None:
            raise failure

    def _check_source(self) -> None:
        """A run that is there has its source; one that is begun takes the last state that it finds."""
        source = self.first.init_from
        if source is None or self.source_stages is None or all(Run(path).exists for path in self.runs):
            return
        done = max(Run(source).stage_checkpoints(), default=0)
        if done < self.source_stages:
            raise IWAEError(
                f"not begun: {Path(source).name}, which it starts from, has {done} of {self.source_stages} stages"
            )

    def _analyze(self, path: Path, reporter: Reporter) -> None:
        from iwae.runs.analyze import AnalyzeOptions, analyze_run

        results = Run(path).results()
        assert results is not None
        test, last = results["test"], results["stages_done"]
        options = AnalyzeOptions(test["num_samples"], test["num_examples"])
        analyze_run(path, options=options, checkpoint=last, datasets_dir=self.datasets_dir, reporter=reporter)

    def _validate(self, path: Path, reporter: Reporter) -> None:
        from iwae.runs.data import run_dataset
        from iwae.runs.evaluate import measure

        run = Run(path)
        results = run.results()
        assert results is not None
        dataset = run_dataset(run, self.datasets_dir, reporter)
        examples = min(len(dataset.valid), self.measure.examples_for(run.config) or len(dataset.valid))
        if examples > 0:
            # Of the state that was measured on test examples.
            checkpoint = run.checkpoint(None if run.has_best else results["stages_done"])
            samples = results["test"]["num_samples"]
            measure(run, checkpoint, dataset, "valid", samples=samples, examples=examples, reporter=reporter)


def order_of(text: str) -> Order | CommandOrder:
    """The order whose `to_text` this is."""
    own = json.loads(text)
    if "words" not in own:
        return Order.from_text(text)
    return CommandOrder(tuple(own["words"]), Path(own["target"]), Path(own["log_path"]))
