"""How thoroughly to diagnose a run (no JAX is imported here)."""

from dataclasses import dataclass

from iwae.errors import IWAEError, check_count
from iwae.runs.config import check_seed, make_plain


@dataclass(frozen=True)
class DiagnoseOptions:
    """What to diagnose, and how thoroughly."""

    k: tuple[int, ...] = (1, 5, 50)
    """Numbers of samples (in each group, for miwae and piwae)."""
    estimators: tuple[str, ...] = ()
    """Objectives with their estimators and parameters, such as iwae, iwae:dreg, ciwae:stl:beta=0.5, miwae:m=4
    (default: iwae iwae:stl iwae:dreg rws:rws-dreg; for binary latents iwae:score vimco ovis:gamma=0 rws)."""
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
