"""One run's work while it trains, alone or together with others: what is saved and recorded, and when."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import optax

from iwae.data import Dataset
from iwae.devices import from_first_process
from iwae.estimators.objective import make_estimator
from iwae.models.architecture import Architecture
from iwae.runs.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from iwae.runs.config import RunConfig
from iwae.runs.data import check_same_data, columns_record, data_record
from iwae.runs.directory import BEST, LATEST, Run
from iwae.runs.evaluate import versions
from iwae.runs.options import TrainOptions
from iwae.runs.records import MetricsLine, ResultsRecord
from iwae.runs.reporter import Reporter
from iwae.runs.signals import SignalWatch
from iwae.runs.tracking import Tracking
from iwae.runs.warm_start import Source
from iwae.training.loop import Divergence, Progress, create_model, train_together
from iwae.training.minibatches import steps_per_epoch
from iwae.training.optim import nadam, paper_adam
from iwae.training.schedule import Schedule, schedule_to_json, stage_end
from iwae.training.step import TrainState
from iwae.training.validation import EarlyStopping

if TYPE_CHECKING:
    from iwae.runs.peers import Peers


@dataclass
class Job:
    """A run whose lock is held. `failure` says that it diverged: what was good of it is saved."""

    run: Run
    config: RunConfig
    architecture: Architecture
    source: Source | None
    dataset: Dataset
    options: TrainOptions
    reporter: Reporter
    failure: Divergence | None = None
    stopping: EarlyStopping | None = None
    _found: Checkpoint | None = None
    _best: Checkpoint | None = None
    _state: TrainState | None = None
    _stages_done: int = 0
    _seconds: float = 0.0
    _tracking: Tracking | None = None
    _saved: float = field(default_factory=time.monotonic)

    @property
    def state(self) -> TrainState:
        """Where training stands, once it has begun."""
        assert self._state is not None
        return self._state

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.state.step)

    @property
    def is_stopped(self) -> bool:
        """Whether it has diverged, or the validation bound has stopped rising."""
        return self.failure is not None or (self.stopping is not None and self.stopping.is_over)

    @property
    def steps_per_epoch(self) -> int:
        """Minibatches in one pass over the training set."""
        assert self.config.batch_size is not None
        return steps_per_epoch(self.dataset, self.config.batch_size)

    def find(self) -> None:
        """Finds the checkpoint to go on from. Changes nothing: another run may still be refused."""
        if not self.run.exists:
            return
        check_same_data(self.run, self.dataset)
        self._found = self.run.checkpoint(self.options.checkpoint, newest=True)
        self._best = self._best_until(self._found.step)

    def begin(self) -> None:
        """Takes the state that was found; of a new run, writes the first checkpoint and the record."""
        optimizer = make_optimizer(self.config)
        if self._found is not None:
            state, self._seconds = self._found.train_state(optimizer), self._found.seconds
            self._put_aside_what_came_after()
            if self._found.path.stem != LATEST:
                # Left by a process that was killed between saving a stage and removing what came before.
                self.run.checkpoint_path(LATEST).unlink(missing_ok=True)
            self._state, self._found = state, None
            self.run.metrics.cut(self.step)
        else:
            self._state = self._initial_state(optimizer)
            self._save(0)
            self.run.write_record(
                {
                    "config": self.config.to_json(),
                    "architecture": self.architecture.to_json(),
                    "schedule": schedule_to_json(self.config.full_schedule()),
                    "data": {**data_record(self.dataset), **columns_record(self.dataset)},  # pyright: ignore[reportArgumentType]
                    "versions": versions(),
                    **({"init_from": self.source.record()} if self.source is not None else {}),
                }
            )
        full = self.config.full_schedule()
        ends = [stage_end(full, count) * self.steps_per_epoch for count in range(1, len(full) + 1)]
        self._stages_done = sum(self.step >= end for end in ends)
        if self.config.patience is not None:
            self.stopping = EarlyStopping(self.config.patience, **self._best_so_far())
        self.reporter.message(f"Run: {self.run.path}")
        self._tracking = Tracking(self.run, self.options.track, self.reporter)

    def advance(self, progress: Progress, seconds: float, *, save: bool) -> None:
        """Takes the state after a chunk that cost this run so many seconds; saves it where a stage ends, when the last
        checkpoint is old, or on demand. Raises RunBusyError where the lock was lost.
        """
        self.run.check_held()
        self._state, self._seconds = progress.state, self._seconds + seconds
        if progress.epoch_done:
            self._record_epoch(progress)
            if self.stopping is not None:
                assert progress.valid_bound is not None
                if self.stopping.improves(progress.valid_bound):
                    self._save(BEST)
                if self.stopping.is_over:
                    self.reporter.message(
                        f"{self.run.path}: the bound on validation examples has not risen for {self.stopping.waited}"
                        f" epochs; epoch {progress.epoch + 1 - self.stopping.waited} was the best."
                    )
        if progress.stage_done:
            self._stages_done = progress.stage + 1
            self._save(self._stages_done)
            self.run.checkpoint_path(LATEST).unlink(missing_ok=True)
        elif save or self.is_stopped or time.monotonic() - self._saved >= self.options.save_every:
            self._save(LATEST)

    def finish(self, results: ResultsRecord) -> None:
        """Tells the trackers what was measured."""
        assert self._tracking is not None
        self._tracking.finish(results)

    def close(self) -> None:
        """Ends the trackers."""
        if self._tracking is not None:
            self._tracking.close()

    def diverged(self, error: Divergence) -> None:
        """Saves the last good state and goes no further."""
        if self.step > 0:
            self._save(LATEST)
        self.failure = Divergence(f"{self.run.path}: {error}", [self.state])

    def final_checkpoint(self, schedule: Schedule) -> Checkpoint:
        """The best checkpoint, or the newest if it ends a stage, else that of the last stage asked for."""
        found = self.run.checkpoint()
        return found if found.path.stem != LATEST else self.run.checkpoint(len(schedule))

    def _best_until(self, step: int) -> Checkpoint | None:
        """The best checkpoint, unless it was made after `step`: then training comes to it again. A damaged one is put
        aside where an earlier stage is asked for.
        """
        try:
            best = self.run.checkpoint() if self.run.has_best else None
        except CheckpointError:
            if self.options.checkpoint is None:
                raise
            return None
        return best if best is not None and best.step <= step else None

    def _best_so_far(self) -> dict[str, Any]:
        """What is known of the best epoch, for EarlyStopping."""
        bounds = {line["step"]: line["valid_bound"] for line in self.run.metrics.lines() if "valid_bound" in line}
        if self._best is None or self._best.step not in bounds:
            return {}
        waited = self.step // self.steps_per_epoch - self._best.step // self.steps_per_epoch
        return {"best": bounds[self._best.step], "waited": waited}

    def _initial_state(self, optimizer: optax.GradientTransformation) -> TrainState:
        if self.source is None:
            model = create_model(self.dataset, self.architecture, self.config.seed)
            return TrainState.create(model, optimizer, self.config.seed)
        source, config = self.source.run.config, self.config
        self.reporter.message(
            f"Starting from {self.source.checkpoint.path}: {source.model} k={source.k},"
            f" now trained on as {config.model} k={config.k}."
        )
        return self.source.initial_state(config, optimizer)

    def _put_aside_what_came_after(self) -> None:
        number = self.options.checkpoint
        aside = None if number is None else self.run.put_aside_after(number, kept_best=self._best is not None)
        if aside is not None:
            self.reporter.message(f"Restarting from checkpoint {number}; what came after it is now in {aside}.")

    def _save(self, name: int | str) -> None:
        save_checkpoint(
            self.run.checkpoint_path(name),
            self.state,
            architecture=self.architecture,
            seed=self.config.seed,
            stages_done=self._stages_done,
            seconds=self._seconds,
        )
        if name != BEST:
            self._saved = time.monotonic()

    def _record_epoch(self, progress: Progress) -> None:
        assert progress.learning_rate is not None
        line: MetricsLine = {
            "stage": progress.stage,
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "learning_rate": progress.learning_rate,
            "bound": progress.bound,
        }
        if progress.valid_bound is not None:
            line["valid_bound"] = progress.valid_bound
        self.run.metrics.append(line)
        if self._tracking is not None:
            self._tracking.epoch(line)


def make_optimizer(config: RunConfig) -> optax.GradientTransformation:
    """The optimizer that goes with a run's schedule."""
    assert config.beta1 is not None
    assert config.batch_size is not None
    assert config.adam_moments is not None
    if config.recipe.optimizer == "Nadam":
        return nadam(config.batch_size, beta1=config.beta1)
    return paper_adam(config.batch_size, beta1=config.beta1, moments=config.adam_moments)


def train_jobs(
    jobs: Sequence[Job],
    schedule: Schedule,
    reporter: Reporter,
    signals: SignalWatch,
    stop_if_signalled: Callable[[], None],
    peers: "Peers | None" = None,
) -> None:
    """Trains runs that differ in their seeds or objectives to the end of the schedule, together as far as they stand
    at one step.

    Those that are behind go first, until they meet the next. One that diverges is left behind by the others. With
    `peers` other processes train the one run too, until it is at its end.
    """
    for job in jobs:
        try:
            job.find()
        except CheckpointError as error:
            if len(jobs) == 1 or job.options.checkpoint is not None:
                raise
            raise CheckpointError(
                f"{error}, this run alone (`seed` {job.config.seed}, not `seeds`): together the others go back too"
            ) from None
    config, dataset, is_new = jobs[0].config, jobs[0].dataset, any(not job.run.exists for job in jobs)
    for job in jobs:
        job.begin()
    if is_new:
        for line in dataset.description():
            reporter.message(line)
    assert config.batch_size is not None
    optimizer = make_optimizer(config)
    if peers is not None:
        from_first_process(jobs[0].state)
    end = stage_end(schedule, len(schedule)) * jobs[0].steps_per_epoch
    reporter.training_starts(schedule, jobs[0].steps_per_epoch, min(job.step for job in jobs))
    while unfinished := [job for job in jobs if not job.is_stopped and job.step < end]:
        first = min(job.step for job in unfinished)
        group = [job for job in unfinished if job.step == first]
        until = min((job.step for job in unfinished if job.step > first), default=None)
        states = [job.state for job in group]
        estimators = [make_estimator(job.config.objective, precision=job.config.precision) for job in group]
        clock = time.monotonic()
        try:
            for progress in train_together(
                states,
                dataset,
                schedule,
                estimators,
                optimizer,
                batch_size=config.batch_size,
                until=until,
                agree=None if peers is None else peers.agree,
            ):
                seconds, clock = time.monotonic() - clock, time.monotonic()
                # Looked at once: a signal that comes after the saving must not end it before the next.
                is_signalled = signals.received is not None
                for job, own in zip(group, progress, strict=True):
                    # Each is charged with its share, so that the runs' times add up to what training took.
                    job.advance(own, seconds / len(group), save=is_signalled)
                bounds = [own.bound for own in progress]
                reporter.training(replace(progress[0], bound=sum(bounds) / len(bounds)))
                if is_signalled:
                    stop_if_signalled()
                if any(job.is_stopped for job in group):
                    break
        except Divergence as error:
            for index in error.diverged:
                group[index].diverged(error)
    if peers is not None:
        peers.end()
