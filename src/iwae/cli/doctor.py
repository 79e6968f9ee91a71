"""`iwae doctor`: what to paste into a bug report. JAX is imported only when it runs."""

import contextlib
import json
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from iwae.cli.console import print_lines
from iwae.cli.options import default_results_dir
from iwae.data import dataset_status
from iwae.io.files import expanded, write_atomically
from iwae.io.locks import Lock, holder_of
from iwae.version import __version__

Section = dict[str, Any]

VARIABLES = ("JAX_PLATFORMS", "XLA_FLAGS", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")
"""Of the environment: what changes how JAX computes. Those of this program are there too."""
GIB = 2.0**30


@dataclass(frozen=True)
class Doctor:
    """Print what a bug report needs: versions, devices, threads, precision, data, the results directory, a step's time.

    Nothing is downloaded or sent anywhere. The exit status is 1 where a check failed.
    """

    format: Literal["text", "json"] = "text"
    """How to print it."""
    results_dir: Path = field(default_factory=default_results_dir)
    """Where runs are kept (also: IWAE_RESULTS_DIR)."""
    datasets_dir: Path | None = None
    """Where datasets are looked for first (also: IWAE_DATASETS_DIR)."""

    def run(self, arguments: list[str]) -> int:
        """Checks and prints."""
        checks: dict[str, Callable[[], Section]] = {
            "versions": _versions,
            "system": _system,
            "jax": _jax,
            "data": lambda: _data(self.datasets_dir),
            "results": lambda: _results(self.results_dir),
            "step": _step,
        }
        found = {name: _checked(check) for name, check in checks.items()}
        if self.format == "json":
            print(json.dumps(found, indent=2))
        else:
            for name, section in found.items():
                width = max(map(len, section))
                print_lines(name, *(f"  {key:<{width}}  {_text(value)}" for key, value in section.items()))
        return 1 if any("failed" in section for section in found.values()) else 0


def _checked(check: Callable[[], Section]) -> Section:
    """What a check finds. That one fails is a finding too: the others are still made."""
    try:
        return check()
    except Exception as error:
        return {"failed": " ".join(f"{type(error).__name__}: {error}".split())}


def _text(value: Any) -> str:
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _versions() -> Section:
    """This package's, Python's, and those of what it needs or can use and is installed."""
    found = {"iwae": __version__, "python": platform.python_version()}
    for requirement in metadata.requires("iwae") or []:
        name = re.match(r"[\w.-]+", requirement)
        if name is None or "dev" in requirement.partition("extra ==")[2]:
            continue
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name[0]] = metadata.version(name[0])
    return found


def _system() -> Section:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    names = sorted({*VARIABLES, *(name for name in os.environ if name.startswith("IWAE_"))})
    return {
        "platform": platform.platform(),
        "cores": f"{cores} of {os.cpu_count()} for this process",
        **{name: os.environ[name] for name in names if name in os.environ},
    }


def _jax() -> Section:
    import jax

    return {
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "processes": jax.process_count(),
        "precision": "float32; products of matrices "
        + (getattr(jax.config, "jax_default_matmul_precision", None) or "at the device's own default"),
    }


def _data(directory: Path | None) -> Section:
    statuses = dataset_status(directory=directory)
    return {
        "looked for in": [str(path) for path in statuses[0].directories],
        **{status.name: status.state for status in statuses},
    }


def _results(directory: Path) -> Section:
    """The directory of runs, or the one that it would be made in: can files be written there, renamed and locked?"""
    path = expanded(directory).absolute()
    there = next(place for place in (path, *path.parents) if place.is_dir())
    probe = there / f".iwae-doctor-{os.getpid()}"
    try:
        write_atomically(probe, b"")
        path_of_lock = probe.with_suffix(".lock")
        lock, holder = Lock.acquire(path_of_lock), holder_of(path_of_lock)
        lock.release()
    finally:
        for left in there.glob(f"{probe.name}*"):
            left.unlink(missing_ok=True)
    space = os.statvfs(there) if hasattr(os, "statvfs") else None
    return {
        "directory": str(path) if there == path else f"{path} (will be made)",
        "file system": _file_system(there),
        **({"free": f"{space.f_bavail * space.f_frsize / GIB:.1f} GiB"} if space else {}),
        "lock": "the system's and a lease" if holder and holder.locked else "a lease alone, the system has none here",
    }


def _file_system(path: Path) -> str:
    """The type of the file system that a directory is on; needs Linux's /proc."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    above = [(len(place), kind) for place, kind in mounts if path.resolve().is_relative_to(place.replace("\\040", " "))]
    return max(above, key=lambda one: one[0], default=(0, "unknown"))[1]


def _step() -> Section:
    """The time of a step of the paper's network with one layer, k=5, on noise."""
    import jax
    import numpy as np

    import iwae

    data = iwae.Dataset.from_arrays((np.random.default_rng(0).random((2000, 784)) < 0.5).astype(np.uint8))
    optimizer = iwae.paper_adam(20)
    state = iwae.TrainState.create(iwae.create_model(data), optimizer, seed=0)
    stages = (iwae.Stage(2, 1e-3),)
    chunks = iwae.train(state, data, stages, iwae.make_estimator("iwae", k=5), optimizer, batch_size=20)
    _, compiled = next(chunks), next(chunks)
    return {
        "on": jax.devices()[0].device_kind,
        "milliseconds": round(1000 / compiled.steps_per_second, 3),
        "of": "the paper's network with one layer, k=5, 20 examples a step",
    }
