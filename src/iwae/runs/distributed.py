"""One run trained by several processes, on one machine or several, each with its share of every minibatch.

Process 0 does all that `train_run` does: it alone reads and writes the run, measures, and says how many steps come
next. The others compute with it, from the state that it sends them.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from iwae.data import Dataset, load_dataset
from iwae.devices import from_first_process
from iwae.errors import IWAEError
from iwae.estimators.objective import make_estimator
from iwae.io.text import counted
from iwae.runs.config import RunConfig
from iwae.runs.data import data_record
from iwae.runs.job import make_optimizer
from iwae.runs.options import DistributedOptions
from iwae.runs.peers import Peers
from iwae.runs.reporter import Reporter
from iwae.training.loop import Divergence, create_model, train_together
from iwae.training.step import TrainState
from iwae.version import __version__


def check_shares(config: RunConfig, dataset: Dataset, peers: Peers) -> None:
    """Raises IWAEError where a minibatch can't be divided among all devices, or this process has other data than the
    first; PeerLost.
    """
    devices, where = len(jax.devices()), f"{peers.place.count} process{'es' * (peers.place.count > 1)}"
    assert config.batch_size is not None
    if config.batch_size % devices:
        raise IWAEError(
            f"`batch_size` {config.batch_size} can't be divided among the {counted(devices, 'device')} of {where}: give"
            f" a multiple of {devices}, or start fewer"
        )
    peers.check_same("the data", data_record(dataset)["files"])


@contextlib.contextmanager
def met(
    options: DistributedOptions,
    config: RunConfig,
    path: Path,
    *,
    stages: int | None,
    reporter: Reporter,
    end_at_once: Callable[[BaseException], None],
) -> Iterator[Peers]:
    """From here on the processes compute together; at the end the others are told how this one has ended.

    After an error (IWAEError where another process is lost, does not come, or does not fit) `end_at_once` is called
    with it, and must end this process: at Python's usual end JAX would take leave of processes that may be lost, and
    wait or abort. It is called in the main thread once all that is inside has ended, or in another where it does not.
    """
    place = options.place
    asked = {**config.to_json(), "stages": stages, "iwae": __version__, "jax": jax.__version__}
    peers = Peers(options, asked, f"the same commands, for any number of processes, continue {path}", end_at_once)
    if place.count == 1:
        # It has its devices share the minibatches.
        yield peers
        return
    try:
        reporter.message(f"Process {place.index} of {place.count} (from 0): meeting at {place.host}:{place.port}.")
        port = peers.meet()
        # By itself it would wait at its end for those that were lost; and signals are handled here.
        jax.config.update("jax_enable_recoverability", True)
        jax.config.update("jax_enable_preemption_service", False)
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        host = f"[{place.host}]" if ":" in place.host else place.host
        jax.distributed.initialize(f"{host}:{port}", place.count, place.index)
        # Gloo gives the first sum 30 seconds to begin in all: now they stand at one place, later one may load data.
        with _on_standard_error():
            multihost_utils.sync_global_devices("met")
        if jax.default_backend() == "cpu":
            # Its own watch aborts all others, without a line, when process 0 dies. GPUs still need what it keeps.
            peers.in_turn(jax.distributed.shutdown)
        yield peers
        # The others before process 0, which has waited until they have ended.
        jax.distributed.shutdown()
        peers.end()
    except BaseException as error:
        found = peers.lost(error) if isinstance(error, jax.errors.JaxRuntimeError) else error
        peers.end(found)
        end_at_once(found)
        raise


@contextlib.contextmanager
def _on_standard_error() -> Iterator[None]:
    """What is printed inside, as gloo does of its connections, is none of the results on standard output."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def follow(
    config: RunConfig, peers: Peers, *, stages: int | None, datasets_dir: Path | None, reporter: Reporter
) -> None:
    """What the processes but the first do: their share of every step until process 0 wants no more.

    Raises IWAEError as `load_dataset`, `check_shares` and `train_together`; Interrupted where process 0 was stopped.
    """
    assert config.batch_size is not None
    # The first signal is passed on to process 0: it saves, and says when to stop.
    with peers.signals:
        dataset = load_dataset(
            config.dataset, directory=datasets_dir, progress=reporter.obtaining, reading=config.reading
        )
        check_shares(config, dataset, peers)
        optimizer = make_optimizer(config)
        model = create_model(dataset, config.architecture(dataset.dim, dataset.image_shape), config.seed)
        state = from_first_process(TrainState.create(model, optimizer, config.seed))
        estimators = [make_estimator(config.objective, precision=config.precision)]
        schedule, how = config.full_schedule(stages), {"batch_size": config.batch_size, "agree": peers.agree}
        try:
            for _ in train_together([state], dataset, schedule, estimators, optimizer, **how):
                pass
        except Divergence:
            # Process 0 found the same, and saves the last good state.
            peers.agree(0)
            raise
