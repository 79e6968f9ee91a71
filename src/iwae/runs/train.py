"""Training runs: start, continue, restart from a checkpoint, measure at the end."""

import contextlib
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from iwae.data import load_dataset
from iwae.errors import IWAEError
from iwae.evaluation.likelihood import MAX_SAMPLES
from iwae.models.likelihoods import likelihood_of
from iwae.runs.checkpoint import model_skeleton
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.runs.evaluate import measure_run
from iwae.runs.job import Job, train_jobs
from iwae.runs.options import MeasureOptions, TrainOptions
from iwae.runs.records import ResultsRecord, measured_enough
from iwae.runs.reporter import Reporter
from iwae.runs.signals import SignalWatch
from iwae.runs.warm_start import Source
from iwae.training.minibatches import steps_per_epoch
from iwae.training.schedule import Schedule, check_steps

if TYPE_CHECKING:
    from iwae.runs.peers import Peers


def train_run(
    path: str | Path,
    config: RunConfig,
    *,
    options: TrainOptions | None = None,
    measure: MeasureOptions | None = None,
    measure_again: bool = False,
    datasets_dir: Path | None = None,
    default_datasets_dir: Path | None = None,
    reporter: Reporter | None = None,
    continue_command: str = "the same call",
) -> ResultsRecord:
    """Trains the run in directory `path` to the end of its schedule, measures it, and returns its results.

    A run that is there is continued, exactly: the weights, moments and metrics are those of a run that was
    never stopped. A complete one is not trained again; with `measure_again` it is measured again if it was
    measured with fewer samples or examples than `measure` asks for. On SIGINT, SIGTERM, SIGHUP, SIGUSR1 or
    SIGUSR2 the state is saved first.

    Raises IWAEError (RunBusyError, CheckpointError, Divergence, Interrupted among them) with one line that says
    what to do, and OSError when a file can't be written; the last checkpoint is intact after each.
    """
    (results,) = train_runs(
        {Path(path): config},
        options=options,
        measure=measure,
        measure_again=measure_again,
        datasets_dir=datasets_dir,
        default_datasets_dir=default_datasets_dir,
        reporter=reporter,
        continue_command=continue_command,
    )
    return results


def train_runs(
    configs: Mapping[Path, RunConfig],
    *,
    options: TrainOptions | None = None,
    measure: MeasureOptions | None = None,
    measure_again: bool = False,
    datasets_dir: Path | None = None,
    default_datasets_dir: Path | None = None,
    reporter: Reporter | None = None,
    continue_command: str = "the same call",
    peers: "Peers | None" = None,
) -> list[ResultsRecord]:
    """`train_run` for several runs at once, in one compiled program: `configs` gives the configuration of the run
    in each directory, and they differ in their seeds and objectives alone, with as many samples. Returns the results
    in that order.

    Each run is, up to float32's rounding, what it would be if trained alone, and can be continued alone or with
    others. If one diverges, the others are trained and measured before Divergence is raised. With `peers` (see
    `iwae.runs.distributed.met`) other processes have a share of the one run's minibatches.

    Raises what `train_run` does, and IWAEError for configurations that differ in more, or not at all.
    """
    options, measure = options or TrainOptions(), measure or MeasureOptions()
    reporter = reporter or Reporter()
    _check_may_be_together(configs)
    config = next(iter(configs.values()))
    schedule = config.full_schedule(options.stages)
    if measure.test_samples > MAX_SAMPLES:
        raise IWAEError(f"`test_samples` must be at most {MAX_SAMPLES:,}, got {measure.test_samples}")
    runs = {Run(path): config for path, config in configs.items()}
    for run, own in runs.items():
        run.check_no_file_in_the_way()
        if not options.fresh:
            _check_may_train(run, own, options)
    dataset = load_dataset(
        config.dataset,
        directory=datasets_dir,
        default_directory=default_datasets_dir,
        progress=reporter.obtaining,
        reading=config.reading,
    )
    is_new = options.fresh or not all(run.exists for run in runs)
    if is_new:
        # Refused before a directory is made.
        model_skeleton(config.architecture(dataset.dim, dataset.image_shape), likelihood_of(dataset))
    assert config.batch_size is not None
    if len(dataset.train) < config.batch_size:
        raise IWAEError(
            f"`batch_size` {config.batch_size} is more than the {len(dataset.train)} training examples of"
            f" {dataset.name}: choose a smaller one"
        )
    if peers is not None:
        from iwae.runs.distributed import check_shares

        check_shares(config, dataset, peers)
    check_steps(schedule, steps_per_epoch(dataset, config.batch_size))
    if config.patience is not None and len(dataset.valid) == 0:
        raise IWAEError(f"`patience` needs validation examples, and {dataset.name} has none: leave it out")
    architecture = config.architecture(dataset.dim, dataset.image_shape)
    source = None
    if config.init_from is not None and is_new:
        source = Source.load(config.init_from, architecture, weights_suffice=config.fresh_optimizer)
    if options.fresh:
        _put_aside(runs, reporter)
    for run in runs:
        run.create()
    with contextlib.ExitStack() as held:
        _lock(runs, held)
        signals = held.enter_context(SignalWatch() if peers is None else peers.signals)
        for run, own in runs.items():
            _check_may_train(run, own, options)
        jobs = [Job(run, own, architecture, source, dataset, options, reporter) for run, own in runs.items()]
        for job in jobs:
            held.callback(job.close)
        where = ", ".join(str(run.path) for run in runs)

        def stop_if_signalled() -> None:
            signals.check(f"all is saved in {where}. To continue: {continue_command}")

        train_jobs(jobs, schedule, reporter, signals, stop_if_signalled, peers)
        stopping = _StoppingReporter(reporter, stop_if_signalled)
        results = []
        for job in jobs:
            if job.failure is None:
                results.append(_measured(job, schedule, measure, measure_again, stopping))
                job.finish(results[-1])
        for job in jobs:
            if job.failure is not None:
                raise job.failure
        return results


def _check_may_be_together(configs: Mapping[Path, RunConfig]) -> None:
    """Raises IWAEError unless there is a configuration, and all are one but for their seeds and objectives."""
    if not configs:
        raise IWAEError("nothing to train: give at least one run")
    first = next(iter(configs.values()))
    for path, config in configs.items():
        differences = config.kept_apart(first)
        if differences:
            raise IWAEError(
                f"{path}: runs that are trained together differ in their seeds and objectives alone, but this one in"
                f" {'; '.join(differences)}"
            )
    if len(set(configs.values())) < len(configs):
        names = ", ".join(config.name() for config in configs.values())
        raise IWAEError(f"runs that are trained together must differ in seed or objective, got {names}")


def _lock(runs: Iterable[Run], held: contextlib.ExitStack) -> None:
    """Holds all, in one order, so that of two that want the same runs one gets them. Raises RunBusyError."""
    for run in sorted(runs, key=lambda run: run.path.resolve()):
        held.enter_context(run.lock())


def _put_aside(runs: Iterable[Run], reporter: Reporter) -> None:
    """Renames the runs that are there: all, or none and IWAEError where one may not be moved or is busy. A directory
    without anything of a run's stays as it is.
    """
    there = [run for run in runs if run.exists or run.checkpoints_path.is_dir() or run.in_the_way()]
    for run in there:
        if not run.exists and not run.checkpoints_path.is_dir():
            raise IWAEError(
                f"{run.path} is no run, but has {', '.join(run.in_the_way()[:3])}: `fresh` replaces only runs, choose"
                " another `run_dir`"
            )
        if Path.cwd().is_relative_to(run.path.resolve()):
            raise IWAEError(
                f"{run.path} is or contains the working directory: `fresh` can't replace it, call from elsewhere"
            )
    with contextlib.ExitStack() as held:
        _lock(there, held)
        for run in there:
            reporter.message(f"Starting over: what was in {run.path} is now in {run.put_aside()}.")


def _measured(
    job: Job, schedule: Schedule, measure: MeasureOptions, measure_again: bool, reporter: "_StoppingReporter"
) -> ResultsRecord:
    """The results of a run that is trained to the end: those that are there, or new ones."""
    run, checkpoint = job.run, job.final_checkpoint(schedule)
    results = run.results()
    if results is None or results["step"] < checkpoint.step:
        return measure_run(run, checkpoint, job.dataset, measure, reporter)
    test = results["test"]
    if measure_again and not measured_enough(test, measure.test_samples, measure.examples_for(job.config)):
        return measure_run(run, checkpoint, job.dataset, measure, reporter)
    reporter.message(f"This run is complete: {run.path}")
    if test["num_samples"] != measure.test_samples:
        reporter.message(
            f"It was measured with {test['num_samples']} samples; for others: iwae evaluate"
            f" {shlex.quote(str(run.path))} --samples {measure.test_samples}"
        )
    return results


def _check_may_train(run: Run, config: RunConfig, options: TrainOptions) -> None:
    """Raises IWAEError unless the run that is there is this one, or a new one can start here without replacing
    anything.
    """
    if run.exists:
        if "pruned" in run.record:
            raise IWAEError(
                f"{run.path} is a pruned model: train on from it in another run, with `init_from` {run.path}"
            )
        differences = run.differences(config)
        if differences:
            raise IWAEError(
                f"{run.path} holds a run with another configuration ({'; '.join(differences)}): give the same, choose"
                " another `run_dir`, or start over with `fresh`"
            )
        return
    if options.checkpoint is not None:
        raise IWAEError(f"{run.path}: there is no run to restart from checkpoint {options.checkpoint}")
    if in_the_way := run.in_the_way():
        way_out = "restore run.json, or put it aside with `fresh`" if run.checkpoints_path.is_dir() else "it is no run"
        raise IWAEError(
            f"{run.path} has {', '.join(in_the_way[:3])} and no run.json: choose another `run_dir` ({way_out})"
        )


class _StoppingReporter(Reporter):
    """Passes reports on, and ends the measuring at a signal: nothing is lost, it is repeatable."""

    def __init__(self, inner: Reporter, stop_if_signalled: Callable[[], None]):
        self._inner, self._stop_if_signalled = inner, stop_if_signalled

    def message(self, text: str) -> None:
        self._inner.message(text)

    def measuring(self, what: str, done: int, total: int) -> None:
        self._inner.measuring(what, done, total)
        self._stop_if_signalled()
