"""Starting a run from the last checkpoint of another (Burda et al. 2015, Table 2)."""

from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import optax

from iwae.errors import IWAEError
from iwae.models.architecture import DEFAULTS, Architecture
from iwae.randomness import Purpose, purpose_key
from iwae.runs.checkpoint import Checkpoint
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.runs.records import SourceRecord
from iwae.training.step import TrainState


@dataclass(frozen=True)
class Source:
    """The run that another starts from, and its last checkpoint."""

    run: Run
    checkpoint: Checkpoint

    @classmethod
    def load(cls, path: str | Path, architecture: Architecture, *, weights_suffice: bool) -> "Source":
        """Raises IWAEError when there is no run, when its model is not of this architecture, and when it has weights
        alone where these do not suffice.
        """
        run = Run.open(path)
        checkpoint = run.checkpoint()
        if not (checkpoint.has_moments or weights_suffice):
            raise IWAEError(
                f"`init_from` {path}: its checkpoint has weights alone, without the optimizer's moments: give"
                " `fresh_optimizer`"
            )
        if checkpoint.architecture != architecture:
            raise IWAEError(
                f"`init_from` {path}: its model has {_sizes(checkpoint.architecture)}, this run's has"
                f" {_sizes(architecture)}: give `layers`, `latent`, `hidden`, `dataset` and other options that fit"
            )
        return cls(run, checkpoint)

    def initial_state(self, config: RunConfig, optimizer: optax.GradientTransformation) -> TrainState:
        """The source's weights and, unless the configuration wants fresh ones, its moments, at step 0."""
        if config.fresh_optimizer:
            return TrainState.create(self.checkpoint.model(), optimizer, config.seed)
        return replace(
            self.checkpoint.train_state(optimizer),
            step=jnp.int32(0),
            epoch_bound=jnp.float32(0.0),
            key=purpose_key(config.seed, Purpose.TRAIN),
        )

    def record(self) -> SourceRecord:
        """What the new run's record says of its source."""
        return {
            "run": str(self.run.path),
            "config": self.run.config.to_json(),
            "checkpoint": self.checkpoint.path.name,
            "stages_done": self.checkpoint.stages_done,
            "step": self.checkpoint.step,
            "weights_sha256": self.checkpoint.weights_digest(),
        }


def _sizes(architecture: Architecture) -> str:
    latent = "+".join(map(str, architecture.latent))
    hidden = "; ".join(", ".join(map(str, widths)) for widths in architecture.hidden)
    others = {name: value for name, value in architecture.to_json().items() if name in DEFAULTS}
    words = "".join(f", `{name}` {value}" for name, value in others.items())
    return f"{architecture.visible} visible, {latent} latent and {hidden} hidden units{words}"
