"""A valid file for each reader, from which the fuzzer starts."""

import gzip
import io
import tempfile
from pathlib import Path

import jax
import numpy as np
import scipy.io
from PIL import Image

from fuzz import records
from fuzz.readers import MAT_SHAPES
from iwae.data.formats import idx_bytes
from iwae.models.architecture import Architecture
from iwae.models.vae import HierarchicalVAE
from iwae.runs.checkpoint import save_checkpoint
from iwae.training.optim import paper_adam
from iwae.training.step import TrainState


def seeds() -> dict[str, list[bytes]]:
    """Content by the reader's name."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 2, 2), dtype=np.uint8)
    rows = (rng.random((20, 4)) < 0.5).astype(np.uint8)
    npy, npz, mat, packed_mat = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, rows)
    np.savez_compressed(npz, train=rows, test=rows[:3].astype(float))
    matrices = {name: rng.random(shape) for name, shape in MAT_SHAPES.items()}
    scipy.io.savemat(mat, matrices)
    scipy.io.savemat(packed_mat, matrices, do_compression=True)
    values, png = io.BytesIO(), io.BytesIO()
    np.savez(values, log_likelihood=np.zeros(3), effective_sample_size=np.ones(3))
    Image.fromarray(images[0]).save(png, format="PNG")
    return {
        "idx": [idx_bytes(images)],
        "amat": [b"0 1 1 0\n1 1 0 0\n"],
        "mat": [mat.getvalue(), packed_mat.getvalue()],
        "packed": [gzip.compress(b"abc" * 100)],
        "npy": [npy.getvalue()],
        "npz": [npz.getvalue()],
        "own": [npy.getvalue()],
        "checkpoint": [_checkpoint()],
        "record": [records.RECORD],
        "results": [records.RESULTS],
        "metrics": [records.METRICS],
        "analysis": [records.ANALYSIS],
        "evaluation": [records.EVALUATION],
        "evaluation_npz": [values.getvalue()],
        "png": [png.getvalue()],
    }


def _checkpoint() -> bytes:
    architecture = Architecture(2, (1,), ((1,),))
    model = HierarchicalVAE.create(architecture, jax.random.key(0))
    state = TrainState.create(model, paper_adam(), 0)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "1.safetensors"
        save_checkpoint(path, state, architecture=architecture, seed=0, stages_done=1, seconds=1.0)
        return path.read_bytes()
