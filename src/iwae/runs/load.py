"""A trained model from a run's directory."""

from pathlib import Path

from iwae.models.vae import HierarchicalVAE
from iwae.runs.checkpoint import load_checkpoint
from iwae.runs.directory import RunDirectory


def load(path: str | Path, checkpoint: int | None = None) -> HierarchicalVAE:
    """The model of a run (its newest checkpoint, or the one after `checkpoint` stages) or of one checkpoint file.

    Raises IWAEError for a directory that holds no run, and CheckpointError for a missing or damaged checkpoint.
    """
    path = Path(path)
    if path.is_file():
        return load_checkpoint(path).model()
    run = RunDirectory(path)
    run.read_record()
    return (run.newest_checkpoint() if checkpoint is None else run.load_checkpoint(checkpoint)).model()
