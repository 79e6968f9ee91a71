"""Trackers of experiments, thin: TensorBoard, Weights & Biases, MLflow and trackio. None can stop training.

Their packages are imported when a tracker is opened: the extra `trackers`, or the one package that is named.
"""

import contextlib
import io
import os
import time
import uuid
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args

from iwae.errors import IWAEError
from iwae.io.files import expanded

if TYPE_CHECKING:
    from iwae.training.loop import Progress

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
PROJECT = "iwae"
"""What W&B and trackio call a project and MLflow an experiment."""


class Writer(Protocol):
    """A tracker's own calls. It is made with the directory, a name for people, the configuration and the `identity` of
    an earlier one that it is to go on from, None for a new one.
    """

    package: ClassVar[str]
    identity: str

    def __init__(self, directory: Path, name: str, config: Mapping[str, Any], identity: str | None) -> None: ...

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """Figures after a step, later than those before."""
        ...

    def summarize(self, figures: Mapping[str, float], step: int) -> None:
        """Final figures, of a step that may be an earlier one."""
        ...

    def close(self) -> None:
        """Nothing more is written."""
        ...


class TensorBoard:
    """Event files in `<directory>/tensorboard`: `tensorboard --logdir <directory>` shows them."""

    package: ClassVar[str] = "tensorboardX"

    def __init__(self, directory: Path, name: str, config: Mapping[str, Any], identity: str | None):
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

        self.identity = identity or _free_name(directory, "tensorboard")
        # Files are named by the second, and read by name: two of one second would be one.
        self._writer = SummaryWriter(str(directory / self.identity), filename_suffix=f".{time.time_ns()}")
        if identity is None:
            rows = "\n".join(f"| {key} | {value} |" for key, value in config.items())
            self._writer.add_text("configuration", f"| option | value |\n|---|---|\n{rows}", 0)

    def write(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        # Its own interval is two minutes: a killed process would lose what is marked as written.
        self._writer.flush()

    summarize = write

    def close(self) -> None:
        self._writer.close()


class WandB:
    """Weights & Biases. Offline, in `<directory>/wandb`, unless the environment variable WANDB_MODE says otherwise:
    nothing leaves the machine until `wandb sync` is called.
    """

    package: ClassVar[str] = "wandb"

    def __init__(self, directory: Path, name: str, config: Mapping[str, Any], identity: str | None):
        import wandb  # pyright: ignore[reportMissingImports]

        self.identity = identity or uuid.uuid4().hex[:8]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=self.identity,
            name=name,
            config=dict(config),
            dir=str(directory),
            mode=os.environ.get("WANDB_MODE", "offline"),  # pyright: ignore[reportArgumentType]
            resume="allow",
            # Several seeds are trained in one process.
            settings=wandb.Settings(console="off", silent=True, reinit="create_new"),
        )

    def write(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def summarize(self, figures: Mapping[str, float], step: int) -> None:
        self._run.summary.update(dict(figures))

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """MLflow: in `mlflow.db` beside the directory, so that the runs of one place are seen together with
    `mlflow ui --backend-store-uri sqlite:///mlflow.db`; or where MLFLOW_TRACKING_URI says.
    """

    package: ClassVar[str] = "mlflow"

    def __init__(self, directory: Path, name: str, config: Mapping[str, Any], identity: str | None):
        # A server that does not answer is given up on within a minute, not after several.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

        own = f"sqlite:///{directory.resolve().parent / 'mlflow.db'}"
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", own))
        if identity is None:
            found = self._client.get_experiment_by_name(PROJECT)
            experiment = self._client.create_experiment(PROJECT) if found is None else found.experiment_id
            self.identity = self._client.create_run(experiment, run_name=name).info.run_id
            for key, value in config.items():
                self._client.log_param(self.identity, key, str(value))
        else:
            self.identity = identity
            self._client.update_run(identity, status="RUNNING")

    def write(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._client.log_metric(self.identity, name, value, step=step)

    summarize = write

    def close(self) -> None:
        self._client.set_terminated(self.identity)


class Trackio:
    """trackio: in its own store on this machine, TRACKIO_DIR; `trackio show` opens it."""

    package: ClassVar[str] = "trackio"

    def __init__(self, directory: Path, name: str, config: Mapping[str, Any], identity: str | None):
        import trackio  # pyright: ignore[reportMissingImports]
        from trackio import context_vars  # pyright: ignore[reportMissingImports]

        self.identity = identity or f"{name}-{uuid.uuid4().hex[:8]}"
        # The current run would be ended by the next one's beginning, and once more when Python ends: there is none.
        before = context_vars.current_run.get()
        context_vars.current_run.set(None)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self._run = trackio.init(PROJECT, name=self.identity, config=dict(config), resume="allow", embed=False)
        finally:
            context_vars.current_run.set(before)

    def write(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    summarize = write

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()


TRACKERS: dict[str, type[Writer]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow, "trackio": Trackio}


class Tracker:
    """A tracker of experiments by its name, `tensorboard`, `wandb`, `mlflow` or `trackio`, as a `callback` of `fit`:

        with iwae.Tracker("tensorboard", "results/mine") as tracker:
            model = iwae.fit(model, data, estimator, callback=tracker)
            tracker.summarize({"test/nll": iwae.likelihoods(model, data).nll})

    Files go into `directory`; `run_name`, by default the directory's, and `config` are shown there. With the `identity`
    of an earlier tracker it goes on where that one ended. Steps are steps of the optimizer.

    Whatever fails in it, from a package that is not installed to a full disk, is told once with `warn`, a warning by
    default; then it writes nothing more (`is_failed`).

    Raises IWAEError for another name.
    """

    def __init__(
        self,
        name: TrackerName,
        directory: str | Path = ".",
        *,
        run_name: str | None = None,
        config: Mapping[str, Any] | None = None,
        identity: str | None = None,
        warn: Callable[[str], None] | None = None,
    ):
        check_names([name], "name")
        self.name, self.identity, self.is_failed = name, identity, False
        self._warn = warn or (lambda text: warnings.warn(text, stacklevel=2))
        self._writer: Writer | None = None
        self._step = 0
        path = expanded(directory)

        def open_writer() -> None:
            path.mkdir(parents=True, exist_ok=True)
            self._writer = TRACKERS[name](path, run_name or path.resolve().name, config or {}, identity)
            self.identity = self._writer.identity

        self._guarded(open_writer)

    def __call__(self, progress: "Progress") -> None:
        """Writes what there is after an epoch: as `fit` calls it."""
        figures = {"epoch": progress.epoch + 1, "train/bound": progress.bound, "valid/bound": progress.valid_bound}
        self.write({**figures, "learning_rate": progress.learning_rate}, progress.step)

    def write(self, figures: Mapping[str, float | None], step: int) -> None:
        """Writes figures after so many steps; what is None is left out."""
        self._step = step
        self._guarded(lambda: self._writer and self._writer.write(_there(figures), step))

    def summarize(self, figures: Mapping[str, float | None], step: int | None = None) -> None:
        """Writes final figures, of the model after `step`, by default the last written one."""
        at = self._step if step is None else step
        self._guarded(lambda: self._writer and self._writer.summarize(_there(figures), at))

    def close(self) -> None:
        """Ends it; to be called once all is written, or use it as a context."""
        writer, self._writer = self._writer, None
        self._guarded(lambda: writer and writer.close())

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _guarded(self, action: Callable[[], Any]) -> None:
        if self.is_failed:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                action()
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Says once what is in the way, and writes nothing more."""
        if self.is_failed:
            return
        self.is_failed = True
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if isinstance(error, ModuleNotFoundError):
            package = TRACKERS[self.name].package
            reason = f'{error.name} is not installed: pip install {package}, or "iwae[trackers]"'
        self._warn(f"no more is written to {self.name}, and all else goes on ({reason})")


def check_names(names: "list[str] | tuple[str, ...]", argument: str) -> None:
    """Raises IWAEError for a name that no tracker has, and for one given twice."""
    known = get_args(TrackerName)
    for name in names:
        if name not in known:
            raise IWAEError(f"`{argument}` must be one of {', '.join(known)}, got {name!r}")
    if len(set(names)) < len(names):
        raise IWAEError(f"`{argument}` names a tracker twice, got {', '.join(names)}")


def _there(figures: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items() if value is not None}


def _free_name(directory: Path, name: str) -> str:
    """`name`, or `name-<i>` with the smallest i from 2 where that is taken."""
    index, free = 1, name
    while (directory / free).exists():
        index += 1
        free = f"{name}-{index}"
    return free
