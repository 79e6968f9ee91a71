"""Training a run: start, continue, restart from a checkpoint, measure at the end."""

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optax

from iwae.architecture import Architecture
from iwae.checkpoint import Checkpoint, save_checkpoint
from iwae.data import Dataset, load_dataset
from iwae.errors import IWAEError
from iwae.estimators import make_estimator
from iwae.evaluation import MAX_SAMPLES
from iwae.files import is_leftover
from iwae.optim import paper_adam
from iwae.runs.config import MeasureOptions, RunConfig, TrainOptions
from iwae.runs.directory import LATEST, RunDirectory, put_run_aside
from iwae.runs.interruption import SignalWatch
from iwae.runs.measure import check_same_data, data_record, measure_run, versions
from iwae.runs.reporter import Reporter
from iwae.runs.warm_start import Source
from iwae.schedule import Schedule, schedule_to_json, stage_end
from iwae.training import Divergence, Progress, TrainState, create_model, train


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
) -> dict[str, Any]:
    """Trains the run in directory `path` to the end of its schedule, measures it, and returns its results.

    A run that is there is continued, exactly: the weights, moments and metrics are those of a run that was
    never stopped. A complete one is not trained again; with `measure_again` it is measured again if it was
    measured with fewer samples or examples than `measure` asks for. On SIGINT, SIGTERM or SIGHUP the state is
    saved first.

    Raises IWAEError (RunBusyError, CheckpointError, Divergence, Interrupted among them) with one line that says
    what to do, and OSError when a file can't be written; the last checkpoint is intact after each.
    """
    options, measure = options or TrainOptions(), measure or MeasureOptions()
    reporter = reporter or Reporter()
    schedule = config.full_schedule(options.stages)
    if measure.test_samples > MAX_SAMPLES:
        raise IWAEError(f"--test-samples must be at most {MAX_SAMPLES:,}, got {measure.test_samples}")
    run = RunDirectory(path)
    run.check_no_file_in_the_way()
    if not options.fresh:
        _check_may_train(run, config, options)
    dataset = load_dataset(
        config.dataset,
        directory=datasets_dir,
        default_directory=default_datasets_dir,
        progress=reporter.obtaining,
    )
    if len(dataset.train) < config.batch_size:
        raise IWAEError(
            f"--batch-size {config.batch_size} is more than the {len(dataset.train)} training examples of"
            f" {dataset.name}: choose a smaller one"
        )
    architecture = config.architecture(dataset.dim)
    source = None
    if config.init_from is not None and (options.fresh or not run.exists):
        source = Source.load(config.init_from, architecture)
    if options.fresh and run.path.exists():
        if not run.exists and not run.checkpoints_path.is_dir():
            raise IWAEError(f"{run.path} is no run: --fresh replaces only runs, choose another --run-dir")
        with run.lock():
            aside = put_run_aside(run.path)
        reporter.message(f"Starting over: what was in {run.path} is now in {aside}.")
    run.create()
    with run.lock(), SignalWatch() as signals:
        # Once more: another process may have begun a run here before the lock was ours.
        _check_may_train(run, config, options)
        job = _Job(run, config, architecture, source, dataset, schedule, options, reporter, signals, continue_command)
        checkpoint = job.train()
        results = run.results()
        complete = results is not None and results.get("stages_done", 0) >= checkpoint.stages_done
        if results is not None and complete and not (measure_again and _measured_less(results, measure, config)):
            reporter.message(f"This run is complete: {run.path}")
            if results["test"].get("num_samples") != measure.test_samples:
                reporter.message(
                    f"It was measured with {results['test'].get('num_samples')} samples; for others: iwae evaluate"
                    f" {shlex.quote(str(run.path))} --samples {measure.test_samples}"
                )
            return results
        return measure_run(run, checkpoint, dataset, measure, _StoppingReporter(reporter, job))


def _measured_less(results: dict[str, Any], measure: MeasureOptions, config: RunConfig) -> bool:
    """Whether a run's results come from fewer samples or examples than `measure` asks for."""
    test, wanted = results["test"], measure.examples_for(config)
    examples = test["split_examples"] if wanted is None else min(wanted, test["split_examples"])
    return test["num_samples"] < measure.test_samples or test["num_examples"] < examples


def _check_may_train(run: RunDirectory, config: RunConfig, options: TrainOptions) -> None:
    """Raises IWAEError unless the run that is there is this one, or a new one can start here."""
    if not run.exists:
        _check_free(run, options)
        return
    if "pruned" in run.read_record():
        raise IWAEError(f"{run.path} is a pruned model: train on from it in another run, with --init-from {run.path}")
    differences = run.differences(config)
    if differences:
        raise IWAEError(
            f"{run.path} holds a run with another configuration ({'; '.join(differences)}): give the same, choose"
            " another --run-dir, or start over with --fresh"
        )


def _check_free(run: RunDirectory, options: TrainOptions) -> None:
    """Raises IWAEError unless a new run can start here without touching anything of the user's."""
    if options.checkpoint is not None:
        raise IWAEError(f"{run.path}: there is no run to restart from checkpoint {options.checkpoint}")
    if not run.path.is_dir():
        return
    # A run that died before its record was written has got as far as checkpoint 0, and no training was lost.
    own = (".lock", "checkpoints", "evaluations")
    strangers = [p.name for p in run.path.iterdir() if p.name not in own and not is_leftover(p)]
    strangers += [f"checkpoints/{n}.safetensors" for n in run.stage_checkpoints() if n > 0]
    if run.checkpoint_path(LATEST).exists():
        strangers.append(f"checkpoints/{LATEST}.safetensors")
    if strangers:
        way_out = "restore run.json, or put it aside with --fresh" if run.checkpoints_path.is_dir() else "it is no run"
        raise IWAEError(
            f"{run.path} is not empty ({', '.join(sorted(strangers)[:3])}) and has no run.json: choose another"
            f" --run-dir ({way_out})"
        )


@dataclass
class _Job:
    """One call's work on a run whose lock is held."""

    run: RunDirectory
    config: RunConfig
    architecture: Architecture
    source: Source | None
    dataset: Dataset
    schedule: Schedule
    options: TrainOptions
    reporter: Reporter
    signals: SignalWatch
    continue_command: str

    def train(self) -> Checkpoint:
        """Trains what is left of the schedule and returns the checkpoint at its end."""
        optimizer = paper_adam(self.config.beta1)
        if self.run.exists:
            check_same_data(self.run, self.dataset)
            checkpoint = self._find_checkpoint()
            state, seconds = checkpoint.train_state(optimizer), checkpoint.seconds
            self.run.cut_metrics(int(state.step))
        else:
            state, seconds = self._initial_state(optimizer), 0.0
            self._save(0, state, 0, seconds)
            self.run.write_record(
                {
                    "config": self.config.to_json(),
                    "architecture": self.architecture.to_json(),
                    "schedule": schedule_to_json(self.config.full_schedule()),
                    "data": data_record(self.dataset),
                    "versions": versions(),
                    **({"init_from": self.source.record()} if self.source is not None else {}),
                }
            )
        estimator = make_estimator(self.config.full_objective())
        steps_per_epoch = len(self.dataset.train) // self.config.batch_size
        self.reporter.message(f"Run: {self.run.path}")
        self.reporter.training_starts(self.schedule, steps_per_epoch, int(state.step))
        stages_done = self._stages_done(int(state.step), steps_per_epoch)
        started, last_saved = time.monotonic() - seconds, time.monotonic()
        try:
            for progress in train(
                state, self.dataset, self.schedule, estimator, optimizer, batch_size=self.config.batch_size
            ):
                state, now = progress.state, time.monotonic()
                if progress.epoch_done:
                    self._record_epoch(progress)
                self.reporter.training(progress)
                if progress.stage_done:
                    stages_done = progress.stage + 1
                    self._save(stages_done, state, stages_done, now - started)
                    self.run.checkpoint_path(LATEST).unlink(missing_ok=True)
                    last_saved = now
                elif self.signals.received is not None or now - last_saved >= self.options.save_every:
                    self._save(LATEST, state, stages_done, now - started)
                    last_saved = now
                self.stop_if_signalled()
        except Divergence as error:
            if int(error.state.step) > 0:
                self._save(LATEST, error.state, stages_done, time.monotonic() - started)
            raise
        return self._final_checkpoint()

    def _initial_state(self, optimizer: optax.GradientTransformation) -> TrainState:
        if self.source is None:
            model = create_model(self.dataset, self.architecture, self.config.seed)
            return TrainState.create(model, optimizer, self.config.seed)
        source, config = self.source.run.config(), self.config
        self.reporter.message(
            f"Starting from {self.source.checkpoint.path}: {source.model} k={source.k},"
            f" now trained on as {config.model} k={config.k}."
        )
        return self.source.initial_state(config, optimizer)

    def stop_if_signalled(self) -> None:
        """Raises Interrupted, with the command to continue, once a signal has come."""
        self.signals.check(f"interrupted; all is saved in {self.run.path}. To continue: {self.continue_command}")

    def _find_checkpoint(self) -> Checkpoint:
        """The checkpoint to go on from; what came after one that was asked for is put aside."""
        number = self.options.checkpoint
        checkpoint = self.run.newest_checkpoint() if number is None else self.run.load_checkpoint(number)
        aside = None if number is None else self.run.put_aside_after(number)
        if aside is not None:
            self.reporter.message(f"Restarting from checkpoint {number}; what came after it is now in {aside}.")
        return checkpoint

    def _final_checkpoint(self) -> Checkpoint:
        """The newest checkpoint if it ends a stage, else that of the last stage asked for."""
        newest = self.run.newest_checkpoint()
        return newest if newest.path.stem != LATEST else self.run.load_checkpoint(len(self.schedule))

    def _stages_done(self, step: int, steps_per_epoch: int) -> int:
        full = self.config.full_schedule()
        return sum(step >= stage_end(full, n) * steps_per_epoch for n in range(1, len(full) + 1))

    def _save(self, name: int | str, state: TrainState, stages_done: int, seconds: float) -> None:
        save_checkpoint(
            self.run.checkpoint_path(name),
            state,
            architecture=self.architecture,
            seed=self.config.seed,
            stages_done=stages_done,
            seconds=seconds,
        )

    def _record_epoch(self, progress: Progress) -> None:
        self.run.append_metrics(
            {
                "stage": progress.stage,
                "epoch": progress.epoch + 1,
                "step": progress.step,
                "learning_rate": progress.learning_rate,
                "bound": progress.bound,
            }
        )


class _StoppingReporter(Reporter):
    """Passes reports on, and ends the measuring at a signal: nothing is lost, it is repeatable."""

    def __init__(self, inner: Reporter, job: _Job):
        self._inner, self._job = inner, job

    def message(self, text: str) -> None:
        self._inner.message(text)

    def measuring(self, what: str, done: int, total: int) -> None:
        self._inner.measuring(what, done, total)
        self._job.stop_if_signalled()
