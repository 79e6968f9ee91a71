"""Each reader as a function of bytes that may return or refuse, and do nothing else."""

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.records import RECORD, RESULTS
from iwae.cli.tables import figure_label, seeds_lines
from iwae.data.files import BadFileError, gunzip
from iwae.data.formats import idx_bytes, parse_amat, parse_idx, read_npy, read_npz
from iwae.data.matlab import parse_mat
from iwae.data.own import load_own
from iwae.errors import IWAEError
from iwae.io.json import finite_or_none
from iwae.paper.cells import published
from iwae.paper.reproduction import deviations
from iwae.report.captions import CAPTIONS
from iwae.report.comparison import Analyzed, number_rows, training_rows
from iwae.report.embedding import picture, picture_path
from iwae.report.labels import analyze_command
from iwae.runs.analyze import training_curve
from iwae.runs.checkpoint import CheckpointError, load_checkpoint
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.runs.evaluate import kept_units, read_likelihoods
from iwae.runs.listing import summary
from iwae.runs.records import AnalysisRecord, EvaluationRecord, read_checked
from iwae.training.optim import paper_adam

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
    """A checkpoint whose digest fits, and the state that it holds."""
    found = load_checkpoint(_file(content, "1.safetensors"))
    assert found.step >= 0
    found.train_state(paper_adam())


def record(content: bytes) -> None:
    """A run's record: its row among other runs, the units that are left of it, and its part of a report."""
    run = _run()
    run.record_path.write_bytes(content)
    run.results_path.write_bytes(RESULTS)
    assert isinstance(run.config, RunConfig)
    summary(run)
    kept_units(run)
    results = run.results()
    assert results is not None
    deviations(run.config, run.record, results)
    training_curve("run", run.metrics.lines(), run.record["schedule"])


def results(content: bytes) -> None:
    """A run's results: its row among other runs, alone and beside one of another seed."""
    run = _run()
    run.record_path.write_bytes(RECORD)
    run.results_path.write_bytes(content)
    summary(run)
    results = run.results()
    assert results is not None
    seeds_lines([results, results])


def metrics(content: bytes) -> None:
    """Lines of metrics, cut and drawn."""
    run = _run()
    run.record_path.write_bytes(RECORD)
    run.metrics.path.write_bytes(content)
    training_curve("run", run.metrics.lines(), run.record["schedule"])
    run.metrics.cut(20)
    assert all(line["step"] <= 20 for line in run.metrics.lines())


def analysis(content: bytes) -> None:
    """An analysis: what a report says of it, and where its pictures are."""
    run = _run()
    run.record_path.write_bytes(RECORD)
    path = _file(content, "analysis.json")
    found = read_checked(path, AnalysisRecord, "made anew")
    for name in found["pictures"].values():
        assert picture_path(run.path, name).parent == run.path / "analysis"
    analyzed = Analyzed(run.path, "run", run.record, found, [])
    training_rows([analyzed])
    number_rows([analyzed], published)
    for caption in CAPTIONS.values():
        caption.alt(found)
    analyze_command(run.path, found)


def evaluation(content: bytes) -> None:
    """A measurement's record."""
    measured = read_checked(_file(content, "x.json"), EvaluationRecord, "measured again")
    figure_label(measured["nll"], measured["stderr"])


def evaluation_npz(content: bytes) -> None:
    """The values of three examples, and what is computed from them."""
    three: Any = {"num_examples": 3, "num_samples": 2}
    values = read_likelihoods(_file(content, "x.npz"), three)
    assert values.log_likelihood.shape == values.effective_sample_size.shape == (3,)
    finite_or_none(values.nll)


def png(content: bytes) -> None:
    """A picture of a page."""
    with contextlib.suppress(ValueError):
        assert picture(content, "", "", "").width > 0


def _run() -> Run:
    run = Run(WORK / "run")
    run.create()
    for path in (run.results_path, run.metrics.path):
        path.unlink(missing_ok=True)
    return run


def _file(content: bytes, name: str) -> Path:
    path = WORK / name
    path.write_bytes(content)
    return path


READERS: dict[str, Callable[[bytes], None]] = {
    reader.__name__: reader
    for reader in (
        *(idx, amat, mat, packed, npy, npz, own, checkpoint, record, results),
        *(metrics, analysis, evaluation, evaluation_npz, png),
    )
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
