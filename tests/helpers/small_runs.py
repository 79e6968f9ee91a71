"""Small runs for the tests of checkpoints, runs and commands: data, configurations, and what is compared."""

import os
import re
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from iwae.runs.config import RunConfig
from iwae.runs.options import MeasureOptions, TrainOptions
from iwae.runs.reporter import Reporter
from iwae.runs.train import train_run

COMMAND = Path(sysconfig.get_path("scripts")) / "iwae"
SMALL = {"latent": (3,), "hidden": (8,)}
QUICK_MEASURE = MeasureOptions(test_samples=20)


class Messages(Reporter):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


def write_data(path: Path, *, num_train: int = 60, shape: tuple[int, ...] = (6,), seed: int = 0) -> Path:
    """An `.npz` of binary examples in which a few patterns repeat: 60 to train on, 7 to validate, 30 to test."""
    rng = np.random.default_rng(seed)
    patterns = rng.random((4, *shape))

    def draw(count: int) -> np.ndarray:
        chosen = patterns[rng.integers(len(patterns), size=count)]
        return (rng.random(chosen.shape) < chosen).astype(np.uint8)

    np.savez(path, train=draw(num_train), valid=draw(7), test=draw(30))
    return path


def small_config(data: Path, **changes: Any) -> RunConfig:
    """A run that trains in a second: three latent units, eight hidden ones."""
    return RunConfig.of(**{"dataset": str(data), **SMALL, **changes})


def go(
    path: Path,
    config: RunConfig,
    *,
    measure: MeasureOptions = QUICK_MEASURE,
    reporter: Reporter | None = None,
    **options: Any,
) -> Any:
    """Trains and measures in this process; `options` are those of TrainOptions."""
    return train_run(path, config, options=TrainOptions(**options), measure=measure, reporter=reporter)


def same_training(one: Path, other: Path, checkpoint: int | str) -> None:
    """Asserts that two runs have the same bits in a checkpoint (weights, moments, step) and in their metrics."""
    mine, theirs = (load_file(run / f"checkpoints/{checkpoint}.safetensors") for run in (one, other))
    assert mine.keys() == theirs.keys()
    assert any(name.startswith("optimizer.nu.") for name in mine)
    for name, array in mine.items():
        assert array.dtype == theirs[name].dtype, name
        assert array.tobytes() == theirs[name].tobytes(), name
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes() != b""


def files_below(directory: Path) -> dict[str, bytes]:
    """Every file below a directory and its content, but for the lock."""
    found = sorted(path for path in directory.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def names_below(directory: Path) -> list[str]:
    """The name of everything below a directory. A lock's lease has the number of times that it was taken; here it has
    none.
    """
    return sorted(re.sub(r"\.lock\.\d+$", ".lock.n", str(p.relative_to(directory))) for p in directory.rglob("*"))


def flip_byte(path: Path, position: int = -1, mask: int = 1) -> None:
    """Damages one byte of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(content)


def environment() -> dict[str, str]:
    """The environment of a command as a user would have it, but for the tests' cache of compiled programs and their
    flags for compiling faster: the README's example runs without these.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("IWAE_")}
