"""A trained model from a run's directory."""

from pathlib import Path

from iwae.models.vae import HierarchicalVAE
from iwae.runs.directory import RunDirectory
from iwae.runs.weights import load_weights


def load(path: str | Path, checkpoint: int | None = None, *, into: HierarchicalVAE | None = None) -> HierarchicalVAE:
    """The model of a run (its newest checkpoint, or the one after `checkpoint` stages), of one checkpoint file, or of a
    file that `save` wrote; `into` is a model of the same structure, for weights of networks of your own.

    Raises IWAEError for a directory that holds no run, and CheckpointError for a missing or damaged checkpoint.
    """
    path = Path(path)
    if path.is_file():
        return load_weights(path, into)
    run = RunDirectory(path)
    run.read_record()
    return (run.newest_checkpoint() if checkpoint is None else run.load_checkpoint(checkpoint)).model()
