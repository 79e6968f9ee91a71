"""`iwae train`: a run trained, or continued, and measured. JAX is imported only when it runs."""

import contextlib
import os
import shlex
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from iwae.cli import tables
from iwae.cli.app import guarded, options_named
from iwae.cli.console import ConsoleReporter, make_reporter, print_lines
from iwae.cli.options import Integers, default_results_dir
from iwae.errors import IWAEError
from iwae.io.text import counted
from iwae.runs.config import RunConfig
from iwae.runs.options import DistributedOptions, MeasureOptions, TrainOptions
from iwae.runs.records import ResultsRecord

if TYPE_CHECKING:
    from iwae.runs.peers import Peers


@dataclass(frozen=True)
class Train:
    """Train a run, or continue it where it stopped, and measure it at the end."""

    configuration: RunConfig = field(default_factory=RunConfig)
    seeds: Integers = ()
    """Train these seeds at once, each as a run of its own, instead of --seed: 0,1,2 or 0:3 or 0 1 2."""
    training: TrainOptions = field(default_factory=TrainOptions)
    measuring: MeasureOptions = field(default_factory=MeasureOptions)
    together: DistributedOptions = field(default_factory=DistributedOptions)
    run_dir: Path | None = None
    """The run's directory (default: a name made from the configuration, inside --results-dir)."""
    results_dir: Path = field(default_factory=default_results_dir)
    """Where runs are kept (also: IWAE_RESULTS_DIR)."""
    datasets_dir: Path | None = None
    """Where datasets are looked for first and stored (also: IWAE_DATASETS_DIR)."""

    def run(
        self, arguments: list[str], *, default_datasets_dir: Path | None = None, program: str = "iwae train"
    ) -> int:
        """Trains and prints the result. `default_datasets_dir` and `program` are the root scripts'."""
        configs = self._configs()
        reporter = make_reporter()
        with self._met(configs, reporter) as peers, reporter:
            if peers is not None and not peers.is_first:
                from iwae.runs.distributed import follow

                (config,) = configs.values()
                follow(
                    config,
                    peers,
                    stages=self.training.stages,
                    datasets_dir=self.datasets_dir,
                    reporter=reporter,
                )
                return 0
            from iwae.runs.train import train_runs

            results = train_runs(
                configs,
                options=self.training,
                measure=self.measuring,
                datasets_dir=self.datasets_dir,
                default_datasets_dir=default_datasets_dir,
                reporter=reporter,
                continue_command=_continue_command(program, arguments),
                peers=peers,
            )
        for path, found in zip(configs, results, strict=True):
            print_lines(*_result_lines(path, found))
        if self.seeds:
            print_lines(*tables.seeds_lines(results))
        return 0

    def _configs(self) -> dict[Path, RunConfig]:
        """The run of each seed, by its directory."""
        if not self.seeds:
            return {self.run_dir or self.results_dir / self.configuration.name(): self.configuration}
        if self.run_dir is not None:
            raise IWAEError(
                f"`run_dir` {self.run_dir} is one directory, and `seeds` makes a run each: use `results_dir`"
            )
        if self.configuration.seed != RunConfig.seed:
            raise IWAEError(f"`seed` {self.configuration.seed} and `seeds` were given: leave out `seed`")
        if len(set(self.seeds)) < len(self.seeds):
            raise IWAEError(f"`seeds` must differ, got {','.join(map(str, self.seeds))}")
        configs = [replace(self.configuration, seed=seed) for seed in self.seeds]
        return {self.results_dir / config.name(): config for config in configs}

    @contextlib.contextmanager
    def _met(self, configs: dict[Path, RunConfig], reporter: ConsoleReporter) -> "Iterator[Peers | None]":
        """The other processes that train the run, where there are to be any."""
        if self.together.distributed is None:
            yield None
            return
        if self.seeds:
            raise IWAEError("`distributed` trains one run: give `seed` instead of `seeds`")
        # Of lost processes we speak, not the library, which also warns that it does not.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        from iwae.runs.distributed import met

        ending = threading.Lock()

        def end_at_once(error: BaseException) -> None:
            def fails() -> int:
                with options_named(Train):
                    raise error

            ending.acquire()
            reporter.__exit__()
            status = 1
            try:
                status = guarded(fails)
            except Exception:
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(status)

        ((path, config),) = configs.items()
        stages = self.training.stages
        with met(self.together, config, path, stages=stages, reporter=reporter, end_at_once=end_at_once) as peers:
            yield peers


def _continue_command(program: str, arguments: list[str]) -> str:
    """The same command without the options that would start over."""
    kept = [word for word in arguments if word != "--fresh" and not word.startswith("--checkpoint=")]
    for option in ("--checkpoint", "-c"):
        while option in kept:
            start = kept.index(option)
            del kept[start : start + 2]
    return shlex.join([*program.split(), *kept])


def _result_lines(path: Path, results: ResultsRecord) -> list[str]:
    test, files = results["test"], results["files"]
    active = tables.units_label(results["active_units"])
    return [
        f"Test NLL, L_{test['num_samples']}: {tables.measured_label(test, 'test', results['data'])}",
        *tables.weights_lines(test),
        f"Active units: {active} of {tables.units_label(results['architecture']['latent'])}"
        f" (as the paper's code counted: {tables.units_label(results['active_units_paper_code'])})",
        f"Trained: {_trained_label(results)}, {results['seconds']['training']:.0f} s",
        f"Results: {path / 'results.json'}",
        f"Samples: {path / files['samples']}",
        f"Weights: {path / results['checkpoint']}",
        f"Likelihood of each of the {test['num_examples']:,} examples: {path / files['per_example']}",
    ]


def _trained_label(results: ResultsRecord) -> str:
    """What training came to: stages of a schedule, or the one stage of a warm start."""
    config = RunConfig.from_json(results["config"])
    epochs = "no epoch" if results["epochs"] is None else counted(results["epochs"], "epoch")
    best = "" if config.patience is None else ", the best of those seen by the bound on validation examples"
    if config.init_from is None and (config.epochs is not None or config.patience is not None):
        return f"{epochs}{best}"
    if config.init_from is None:
        schedule = f"{results['stages_done']} of {results['stages_total']} stages of the {config.schedule} schedule"
        return f"{schedule}, {epochs}{best}"
    return f"warm start, {epochs}{best} at {config.learning_rate:g}, from {config.init_from}"
