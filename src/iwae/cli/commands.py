"""The commands, each a frozen dataclass whose fields are its options. JAX is imported only when one runs."""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from tyro.conf import Positional

from iwae.cli import tables
from iwae.cli.console import PlainReporter, TerminalReporter, make_reporter, print_lines
from iwae.cli.options import Seeds
from iwae.data import dataset_status, obtain
from iwae.errors import IWAEError
from iwae.io.text import printable
from iwae.runs.config import MeasureOptions, RunConfig, TrainOptions
from iwae.runs.directory import Run
from iwae.runs.records import ResultsRecord

RESULTS_VARIABLE = "IWAE_RESULTS_DIR"


def default_results_dir() -> Path:
    """Where runs go unless told otherwise: the environment variable IWAE_RESULTS_DIR, or `results`."""
    return Path(os.environ.get(RESULTS_VARIABLE) or "results")


@dataclass(frozen=True)
class Data:
    """List the datasets, or obtain and verify some.

    Without names: what is there, and what to do where something is missing.

    With names: download what is missing and verify it.
    """

    names: Positional[tuple[str, ...]] = ()
    """Datasets to obtain: mnist, binfixmnist, omniglot."""
    datasets_dir: Path | None = None
    """Where datasets are looked for first and stored (also: IWAE_DATASETS_DIR)."""

    def run(self, arguments: list[str], *, default_datasets_dir: str | Path | None = None) -> int:
        """Obtains the named datasets, or lists all when none is named."""
        console = Console()
        for name in self.names:
            with make_reporter(Console(stderr=True)) as reporter:
                paths = obtain(
                    name,
                    directory=self.datasets_dir,
                    default_directory=default_datasets_dir,
                    progress=reporter.obtaining,
                )
            for path in paths:
                print_lines(f"{name}: {path}")
        if not self.names:
            _list_datasets(console, self.datasets_dir)
        return 0


def _list_datasets(console: Console, directory: Path | None) -> None:
    statuses = dataset_status(directory=directory)
    console.print(tables.datasets_table(statuses))
    lines = ["", "Looked for, in this order, in:"]
    lines += [f"  {path}" for path in statuses[0].directories]
    for status in statuses:
        lines += [f"{status.name}: {file.path}" for file in status.files if file.path is not None]
        if status.advice:
            lines.append(f"{status.name}: {status.advice}")
    lines.append("Your own data: --dataset FILE.npz with arrays train, test and optionally valid, or FILE.npy.")
    print_lines(*lines)


@dataclass(frozen=True)
class Train:
    """Train a run, or continue it where it stopped, and measure it at the end."""

    configuration: RunConfig = field(default_factory=RunConfig)
    seeds: Seeds = ()
    """Train these seeds at once, each as a run of its own, instead of --seed: 0,1,2 or 0 1 2."""
    training: TrainOptions = field(default_factory=TrainOptions)
    measuring: MeasureOptions = field(default_factory=MeasureOptions)
    run_dir: Path | None = None
    """The run's directory (default: a name made from the configuration, inside --results-dir)."""
    results_dir: Path = field(default_factory=default_results_dir)
    """Where runs are kept (also: IWAE_RESULTS_DIR)."""
    datasets_dir: Path | None = None
    """Where datasets are looked for first and stored (also: IWAE_DATASETS_DIR)."""

    def run(self, arguments: list[str], *, default_datasets_dir: Path | None = None, program: str = "iwae") -> int:
        """Trains and prints the result. `default_datasets_dir` and `program` are the root scripts'."""
        configs = self._configs()
        with reporting() as reporter:
            from iwae.runs.train import train_runs

            results = train_runs(
                configs,
                options=self.training,
                measure=self.measuring,
                datasets_dir=self.datasets_dir,
                default_datasets_dir=default_datasets_dir,
                reporter=reporter,
                continue_command=_continue_command(program, arguments),
            )
        for path, found in zip(configs, results, strict=True):
            _print_results(path, found)
        if self.seeds:
            print_lines(*tables.seeds_lines(results))
        return 0

    def _configs(self) -> dict[Path, RunConfig]:
        """The run of each seed, by its directory."""
        if not self.seeds:
            return {self.run_dir or self.results_dir / self.configuration.name(): self.configuration}
        if self.run_dir is not None:
            raise IWAEError(
                f"--run-dir {self.run_dir} is one directory, and --seeds makes a run each: use --results-dir"
            )
        if self.configuration.seed != RunConfig.seed:
            raise IWAEError(f"--seed {self.configuration.seed} and --seeds were given: leave out --seed")
        if len(set(self.seeds)) < len(self.seeds):
            raise IWAEError(f"--seeds must differ, got {','.join(map(str, self.seeds))}")
        configs = [replace(self.configuration, seed=seed) for seed in self.seeds]
        return {self.results_dir / config.name(): config for config in configs}


def _continue_command(program: str, arguments: list[str]) -> str:
    """The same command without the options that would start over."""
    kept = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in ("--checkpoint", "-c"):
            skip = True
        elif argument != "--fresh" and not argument.startswith("--checkpoint="):
            kept.append(argument)
    return f"{program} {shlex.join(kept)}"


@contextlib.contextmanager
def reporting() -> Iterator[TerminalReporter | PlainReporter]:
    """The reporter for standard error, its display ended on leaving."""
    with make_reporter(Console(stderr=True)) as reporter:
        yield reporter


def _print_results(path: Path, results: ResultsRecord) -> None:
    test, files = results["test"], results["files"]
    lines = [
        f"Test NLL, L_{test['num_samples']}: {tables.nll_label(test)} nats, on {tables.data_label(results['data'])}",
        f"Active units: {tables.units_label(results['active_units'])}"
        f" of {tables.units_label(results['architecture']['latent'])}"
        f" (as the paper's code counted: {tables.units_label(results['active_units_paper_code'])})",
        f"Trained: {_trained_label(results)}, {results['seconds']['training']:.0f} s",
        f"Results: {path / 'results.json'}",
        f"Samples: {path / files['samples']}",
        f"Weights: {path / results['checkpoint']}",
        f"Likelihood of every test example: {path / files['per_example']}",
    ]
    print_lines(*lines)


def _trained_label(results: ResultsRecord) -> str:
    """What training came to: stages of a schedule, or the one stage of a warm start."""
    config = RunConfig.from_json(results["config"])
    if config.init_from is None:
        schedule = f"{results['stages_done']} of {results['stages_total']} stages of the {config.schedule} schedule"
        return f"{schedule}, {results['epochs']} epochs"
    return f"warm start, {results['epochs']} epochs at {config.learning_rate:g}, from {config.init_from}"


@dataclass(frozen=True)
class Evaluate:
    """Measure a run's likelihood on a split."""

    path: Positional[Path]
    """The run's directory."""
    split: Literal["test", "train", "valid"] = "test"
    """Which examples to measure."""
    samples: int = 5000
    """Importance samples per example, up to 100,000."""
    examples: int | None = None
    """Measure only the first ones (default: all)."""
    seed: int = 0
    """Seed of the importance samples."""
    checkpoint: int | None = None
    """Measure the state after this many stages (default: the newest)."""
    dataset: Path | None = None
    """Where your own data is now, if it has moved since training."""
    datasets_dir: Path | None = None
    """Where datasets are looked for first (also: IWAE_DATASETS_DIR)."""

    def run(self, arguments: list[str]) -> int:
        """Measures, prints and writes the measurement."""
        run = Run.open(self.path)
        with reporting() as reporter:
            from iwae.runs.evaluate import evaluate_checkpoint, run_dataset

            checkpoint = run.checkpoint(self.checkpoint)
            dataset = run_dataset(run, self.datasets_dir, reporter, self.dataset)
            run.create()
            result = evaluate_checkpoint(
                run,
                checkpoint,
                dataset,
                self.split,
                samples=self.samples,
                seed=self.seed,
                examples=self.examples,
                reporter=reporter,
            )
        record = result.to_json()
        size = result.likelihoods.mean_effective_sample_size
        lines = [
            f"{self.split} NLL, L_{self.samples}: {tables.nll_label(record)} nats,"
            f" on {record['num_examples']:,} examples of {tables.data_label(run.data)}",
            f"Mean effective sample size: {size:.1f} of {self.samples}",
            f"Checkpoint: {checkpoint.path}",
            f"Written: {result.path}",
            f"Per example: {result.npz_path}",
        ]
        print_lines(*lines)
        return 0


@dataclass(frozen=True)
class Sample:
    """Draw 100 samples: a 10 x 10 grid as PNG, and the values as .npy."""

    path: Positional[Path]
    """The run's directory."""
    seed: int = 0
    """Seed of the draw."""
    checkpoint: int | None = None
    """Sample from the state after this many stages (default: the newest)."""
    out: Path | None = None
    """Directory to write to (default: the run's)."""

    def run(self, arguments: list[str]) -> int:
        """Draws and writes the samples."""
        run = Run.open(self.path)
        from iwae.runs.evaluate import write_samples

        checkpoint = run.checkpoint(self.checkpoint)
        shape = run.data["image_shape"]
        directory = self.out or run.path
        directory.mkdir(parents=True, exist_ok=True)
        for path in write_samples(directory, checkpoint.model(), (shape[0], shape[1]) if shape else None, self.seed):
            print_lines(str(path))
        return 0


@dataclass(frozen=True)
class Show:
    """Print runs as a table."""

    paths: Positional[tuple[Path, ...]] = ()
    """The runs' directories (default: all in --results-dir)."""
    results_dir: Path = field(default_factory=default_results_dir)
    """Where runs are kept (also: IWAE_RESULTS_DIR)."""

    def run(self, arguments: list[str]) -> int:
        """Prints the table."""
        runs = [Run(path) for path in self.paths]
        if not runs:
            found = sorted(self.results_dir.glob("*/run.json")) if self.results_dir.is_dir() else []
            # Hidden ones are not whole yet.
            runs = [Run(path.parent) for path in found if not path.parent.name.startswith(".")]
        if not runs:
            raise IWAEError(f"no runs in {self.results_dir}: `iwae train` makes one, or give a run's directory")
        readable, failures, started, results = [], [], [], []
        for run in runs:
            try:
                readable.append(tables.run_row(run))
                started += tables.start_lines(run)
                # A run that another took the place of is no further seed.
                results.append(None if run.is_put_aside else run.results())
            except IWAEError as error:
                failures.append(error)
        if readable:
            Console().print(tables.runs_table(readable))
            print_lines(*started, *tables.seeds_lines([found for found in results if found is not None]))
        for error in failures:
            print(f"iwae: error: {printable(str(error))}", file=sys.stderr)
        return 1 if failures else 0
