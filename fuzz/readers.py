"""Each reader as a function of bytes that may return or refuse, and do nothing else."""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from iwae.checkpoint import CheckpointError, load_checkpoint
from iwae.data.files import BadFileError, gunzip
from iwae.data.formats import idx_bytes, parse_amat, parse_idx, read_npy, read_npz
from iwae.data.matlab import parse_mat
from iwae.data.own import load_own
from iwae.errors import IWAEError
from iwae.runs.config import RunConfig
from iwae.runs.directory import RunDirectory, read_json

WORK = Path(tempfile.mkdtemp(prefix="fuzz-"))
MAT_SHAPES = {"data": (4, 3), "testdata": (4, 2)}
MAX_BYTES = 1 << 20


def idx(content: bytes) -> None:
    """What is read comes back as it was."""
    assert idx_bytes(parse_idx(content)) == content


def amat(content: bytes) -> None:
    """Zeros and ones, in rows."""
    assert set(np.unique(parse_amat(content, 4))) <= {0, 1}


def mat(content: bytes) -> None:
    """The matrices that are asked for, in their shapes."""
    found = parse_mat(content, MAT_SHAPES)
    assert {name: array.shape for name, array in found.items()} == MAT_SHAPES


def packed(content: bytes) -> None:
    """No more than is allowed."""
    assert len(gunzip(io.BytesIO(content), MAX_BYTES)) <= MAX_BYTES


def npy(content: bytes) -> None:
    """Numbers of the size of the file."""
    array = read_npy(_file(content, "x.npy"))
    assert array.dtype.kind in "buif"
    assert array.nbytes <= len(content)


def npz(content: bytes) -> None:
    """Numbers, under the keys that are asked for."""
    for key, array in read_npz(_file(content, "x.npz"), ("train", "test")).items():
        assert key in ("train", "test")
        assert array.dtype.kind in "buif"


def own(content: bytes) -> None:
    """Data that training can use."""
    data = load_own(_file(content, "own.npy"))
    assert data.train.ndim == 2
    assert float(data.train.max(initial=0)) * data.scale <= 1.0


def checkpoint(content: bytes) -> None:
    """A checkpoint whose digest fits."""
    load_checkpoint(_file(content, "1.safetensors")).weights_digest()


def record(content: bytes) -> None:
    """A run's record and its configuration."""
    run = RunDirectory(WORK / "run")
    run.create()
    run.record_path.write_bytes(content)
    assert isinstance(run.config(), RunConfig)


def results(content: bytes) -> None:
    """A run's results, metrics and any other JSON of ours."""
    run = RunDirectory(WORK / "run")
    run.create()
    run.results_path.write_bytes(content)
    run.metrics_path.write_bytes(content)
    run.read_metrics()
    run.results()
    read_json(run.results_path)


def _file(content: bytes, name: str) -> Path:
    path = WORK / name
    path.write_bytes(content)
    return path


READERS: dict[str, Callable[[bytes], None]] = {
    reader.__name__: reader for reader in (idx, amat, mat, packed, npy, npz, own, checkpoint, record, results)
}
# What a reader may raise: an answer in one line.
REFUSALS = (BadFileError, CheckpointError, IWAEError)


def attempt(name: str, content: bytes) -> None:
    """Reads, and takes a refusal for an answer if it is one line; anything else passes through."""
    try:
        READERS[name](content)
    except REFUSALS as error:
        refusal = str(error)
    else:
        return
    assert refusal
    assert "\n" not in refusal, refusal
