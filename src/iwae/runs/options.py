"""How a run is trained, measured and diagnosed, where that does not change its weights (no JAX is imported here)."""

import os
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from iwae.errors import IWAEError, check_count
from iwae.runs.config import RunConfig, check_seed, make_plain
from iwae.training.trackers import TrackerName, check_names

QUICK_TEST_EXAMPLES = 2000
# The ports that Slurm's jobs choose from.
FIRST_PORT, MOST_PORT = 61440, 65535


@dataclass(frozen=True)
class TrainOptions:
    """How to train, where that does not change the numbers."""

    stages: int | None = None
    """Stop after this many of the schedule's stages (default: all)."""
    checkpoint: int | None = None
    """Restart from the state saved after this many stages; what came later is put aside."""
    fresh: bool = False
    """Start over; what is in the run's directory is put aside."""
    save_every: float = 300.0
    """Seconds between checkpoints within a stage."""
    track: tuple[TrackerName, ...] = ()
    """Write every epoch and the results to these trackers too (see docs/how-to/trackers.md)."""

    def __post_init__(self) -> None:
        """Raises IWAEError for values that have no meaning."""
        make_plain(self)
        if self.stages is not None:
            check_count("stages", self.stages)
        if self.checkpoint is not None and self.checkpoint < 0:
            raise IWAEError(f"`checkpoint` must be 0 or more, got {self.checkpoint}")
        if self.checkpoint is not None and self.fresh:
            raise IWAEError(f"`fresh` starts over and `checkpoint` {self.checkpoint} restarts: give one of them")
        if not self.save_every > 0:
            raise IWAEError(f"`save_every` must be a positive number of seconds, got {self.save_every}")
        check_names(self.track, "track")


@dataclass(frozen=True)
class MeasureOptions:
    """How a finished run measures itself."""

    test_samples: int = 5000
    """Importance samples per test example."""
    test_examples: int | None = None
    """Measure this many test examples, the first ones (default: all; on the quick schedule 2,000)."""

    def __post_init__(self) -> None:
        """Raises IWAEError for counts below one."""
        make_plain(self)
        check_count("test_samples", self.test_samples)
        if self.test_examples is not None:
            check_count("test_examples", self.test_examples)

    def examples_for(self, config: RunConfig) -> int | None:
        """The limit on test examples for a run of this configuration."""
        if self.test_examples is None and config.schedule == "quick":
            return QUICK_TEST_EXAMPLES
        return self.test_examples


@dataclass(frozen=True)
class DiagnoseOptions:
    """What to diagnose, and how thoroughly."""

    k: tuple[int, ...] = (1, 5, 50)
    """Numbers of samples (in each group, for miwae and piwae)."""
    estimators: tuple[str, ...] = ()
    """Objectives with their estimators and parameters, such as iwae, iwae:dreg, ciwae:stl:beta=0.5, miwae:m=4
    (default: iwae iwae:stl iwae:dreg rws:rws-dreg; for binary latents iwae:score vimco ovis:gamma=0 rws). A custom one
    is module:Class, made with the number of samples and held against L_k, or module:Class:objective."""
    draws: int = 200
    """Independent gradients of each estimator."""
    examples: int = 20
    """Test examples that the gradients are of, the first ones."""
    reference_k: int = 1000
    """Samples of the large-k gradients that the others are held against."""
    weight_samples: int = 1000
    """Importance samples for the effective sample size and Pareto k-hat."""
    weight_examples: int = 200
    """Test examples that these are computed for, the first ones."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        """Raises IWAEError for counts without meaning."""
        make_plain(self)
        if not self.k:
            raise IWAEError("`k` needs at least one number of samples")
        for k in self.k:
            check_count("k", k)
        for name in ("draws", "examples", "reference_k", "weight_samples", "weight_examples"):
            check_count(name, getattr(self, name))
        check_seed(self.seed)


class Place(NamedTuple):
    """Where the processes of a run meet, on the host of process 0; which of them this one is, from 0, of how many."""

    host: str
    port: int
    index: int  # pyright: ignore[reportIncompatibleMethodOverride]
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True)
class DistributedOptions:
    """One run that several processes train."""

    distributed: str | None = None
    """Train one run with several processes, each with its share of every minibatch: where they meet, host:port of
    process 0, or auto for what Slurm's srun or torchrun says (see docs/how-to/distributed.md)."""
    process_id: int | None = None
    """With --distributed: which process this is, from 0."""
    num_processes: int | None = None
    """With --distributed: how many there are."""

    def __post_init__(self) -> None:
        """Raises IWAEError for numbers and addresses without meaning."""
        make_plain(self)
        if self.distributed is not None:
            _ = self.place
        elif self.process_id is not None or self.num_processes is not None:
            name = "num_processes" if self.process_id is None else "process_id"
            raise IWAEError(f"`{name}` goes with `distributed` host:port, where process 0 is")

    @property
    def place(self) -> Place:
        """What is given, and for the rest what srun or torchrun says; by `auto` without them, this process alone."""
        said = _launched()
        address = said.get("address", "localhost:0") if self.distributed == "auto" else str(self.distributed)
        host, _, port = address.rpartition(":")
        if not host or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > MOST_PORT:
            raise IWAEError(f"`distributed` must be auto, or host:port where process 0 is, got {address!r}")
        own = {"process_id": self.process_id, "num_processes": self.num_processes}
        found = {**said, **{name: value for name, value in own.items() if value is not None}}
        if self.distributed == "auto" and not found:
            found = {"process_id": 0, "num_processes": 1}
        for name in own:
            if name not in found:
                raise IWAEError(f"`distributed` needs `{name}`: only srun and torchrun say it by themselves")
        index, count = found["process_id"], found["num_processes"]
        check_count("num_processes", count)
        if not 0 <= index < count:
            raise IWAEError(f"`process_id` must be from 0 to {count - 1}, as `num_processes` is {count}, got {index}")
        return Place(host.strip("[]"), int(port), index, count)


def _launched() -> dict[str, Any]:
    """What Slurm's srun says, or torchrun and the launchers that use the same variables; nothing without one."""
    if "SLURM_STEP_NUM_TASKS" in os.environ and (nodes := os.environ.get("SLURM_STEP_NODELIST")):
        # node[003-007,12] or node3,other: the first has process 0. The port is one of the job's own.
        host = re.sub(r"\[(\w+).*|,.*", r"\1", nodes)
        address = f"{host}:{FIRST_PORT + _number('SLURM_JOB_ID') % (MOST_PORT - FIRST_PORT)}"
        names = "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"
    elif "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        # At its port torchrun's own store listens.
        address = f"{os.environ.get('MASTER_ADDR', 'localhost')}:{_number('MASTER_PORT') + 1}"
        names = "RANK", "WORLD_SIZE"
    else:
        return {}
    return {"address": address, "process_id": _number(names[0]), "num_processes": _number(names[1])}


def _number(variable: str) -> int:
    text = os.environ.get(variable, "")
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII):
        raise IWAEError(f"`distributed`: {variable} must be a whole number, got {text!r}")
    return int(text)
