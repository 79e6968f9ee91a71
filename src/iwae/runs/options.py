"""How a run is trained, measured and diagnosed, where that does not change its weights (no JAX is imported here)."""

from dataclasses import dataclass

from iwae.errors import IWAEError, check_count
from iwae.runs.config import RunConfig, check_seed, make_plain
from iwae.training.trackers import TrackerName, check_names

QUICK_TEST_EXAMPLES = 2000


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
