"""`make test-pythons`: every supported Python, with the newest releases and the lowest that pyproject.toml allows.

For each a temporary environment, in which the commands train, resume, evaluate, analyze, diagnose and report on a
small table. Prints what every step came to, and how far figures of one seed lie apart. Arguments choose Pythons.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from packaging.requirements import Requirement
from safetensors.numpy import load_file

ROOT = Path(__file__).parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
SHOWN = ("jax", "equinox", "optax", "numpy")
TRAIN = "train --dataset data.npz --model iwae --k 3 --latent 4 --hidden 16 --schedule quick --test-samples 50"
STEPS = {
    "train": f"{TRAIN} --run-dir whole",
    "stop": f"{TRAIN} --run-dir run --stages 2",
    "resume": f"{TRAIN} --run-dir run",
    "evaluate": "evaluate run --samples 200",
    "analyze": "analyze run --samples 50 --examples 40",
    "diagnose": "diagnose run --k 1 3 --draws 10 --reference-k 10 --weight-samples 200 --weight-examples 20",
    "report": "report run --out page.html",
}


@dataclass
class Outcome:
    """What one environment came to: versions, and of every step `ok` or what it ended with."""

    name: str
    versions: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    likelihoods: np.ndarray | None = None
    weights: dict[str, np.ndarray] = field(default_factory=dict)


def interpreter(version: str) -> str | None:
    """A Python of this version: one of pyenv's, or one on PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    found = [*map(str, pyenv.glob(f"versions/{version}.*/bin/python")), shutil.which(f"python{version}")]
    for path in filter(None, found):
        said = subprocess.run([path, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], **CAPTURED)
        if said.stdout.strip() == version:
            return path
    return None


CAPTURED: dict[str, Any] = {"capture_output": True, "text": True, "check": False}


def lowest(version: str) -> list[str]:
    """What is required directly, each at the lowest version allowed for this Python."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["report"]])
    at = {"python_version": version}
    return [
        str(one.name) + str(one.specifier).replace(">=", "==")
        for one in wanted
        if not one.marker or one.marker.evaluate(at)
    ]


def write_data(path: Path) -> None:
    """Images of 6 x 6 bits in which a few patterns repeat."""
    rng = np.random.default_rng(0)
    patterns = rng.random((5, 6, 6))

    def draw(count: int) -> np.ndarray:
        chosen = patterns[rng.integers(len(patterns), size=count)]
        return (rng.random(chosen.shape) < chosen).astype(np.uint8)

    np.savez(path, train=draw(200), valid=draw(40), test=draw(60))


def examine(name: str, python: str, pins: Sequence[str], folder: Path) -> Outcome:
    """Installs, and goes through the steps; each is tried, whatever became of those before."""
    outcome, environment, work = Outcome(name), folder / "venv", folder / "work"
    work.mkdir(parents=True)
    write_data(work / "data.npz")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("IWAE_", "JAX_", "XLA_", "PYTHON"))}
    variables = {**kept, "JAX_PLATFORMS": "cpu"}

    def said(step: str, *command: str | Path) -> str:
        done = subprocess.run(list(map(str, command)), cwd=work, env=variables, **CAPTURED)
        if done.returncode:
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
            outcome.failed[step] = lines[-1] if lines else f"status {done.returncode}"
            print(f"{name}, {step}: status {done.returncode}", *lines[-15:], sep="\n  ", flush=True)
        elif "Warning" in done.stderr and step != "install":
            print(f"{name}, {step} warns:", *done.stderr.strip().splitlines()[-5:], sep="\n  ", flush=True)
        return done.stdout

    said("install", python, "-m", "venv", "--without-pip", environment)
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin/python", "install")
    said(
        "install",
        *pip,
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
        "--only-binary=:all:",
        f"{ROOT}[report]",
        *pins,
    )
    if outcome.failed:
        return outcome
    code = "from importlib.metadata import version; import sys; print(*map(version, sys.argv[1:]))"
    found = said("versions", environment / "bin/python", "-c", code, *SHOWN)
    outcome.versions = dict(zip(SHOWN, found.split(), strict=True))
    for step, command in STEPS.items():
        said(step, environment / "bin/iwae", *command.split())
    last = max((work / "run/checkpoints").glob("[0-9]*.safetensors"), default=None, key=lambda path: int(path.stem))
    measured = next((work / "run/evaluations").glob("*-test-200.npz"), None)
    if last is not None and measured is not None:
        outcome.weights = load_file(last)
        outcome.likelihoods = np.load(measured)["log_likelihood"]
        other = load_file(work / f"whole/checkpoints/{last.name}")
        if any(array.tobytes() != other[key].tobytes() for key, array in outcome.weights.items()):
            outcome.failed["resume"] = "not the bits of the run that was not interrupted"
    return outcome


def lines_of(outcomes: Sequence[Outcome]) -> list[str]:
    """A Markdown table: versions, steps, and the largest differences from the first that has figures."""
    heading = ["environment", *SHOWN, "steps", "test NLL", "largest difference of L_200", "of a weight"]
    rows = [heading, ["---"] * len(heading)]
    first = next((one for one in outcomes if one.likelihoods is not None), None)
    for one in outcomes:
        steps = "; ".join(f"{step}: {what}" for step, what in one.failed.items()) or "all pass"
        figures = ["", "", ""]
        if first is not None and one.likelihoods is not None and first.likelihoods is not None:
            apart = max(
                np.abs(one.weights[key] - array).max() for key, array in first.weights.items() if "model" in key
            )
            difference = np.abs(one.likelihoods - first.likelihoods).max()
            figures = [f"{-one.likelihoods.mean():.4f}", f"{difference:.1e}", f"{apart:.1e}"]
        rows.append([one.name, *(one.versions.get(package, "") for package in SHOWN), steps, *figures])
    return [f"| {' | '.join(row)} |" for row in rows]


def main(versions: Sequence[str]) -> int:
    """Status 1 where anything failed."""
    outcomes = []
    for version in versions or PYTHONS:
        python = interpreter(version)
        if python is None:
            print(f"Python {version}: none found by pyenv or on PATH, skipped", flush=True)
            continue
        for kind, pins in (("newest", []), ("lowest", lowest(version))):
            with tempfile.TemporaryDirectory() as folder:
                print(f"Python {version}, {kind} ...", flush=True)
                outcomes.append(examine(f"{version}, {kind}", python, pins, Path(folder)))
            print(lines_of(outcomes)[-1], flush=True)
    print(*lines_of(outcomes), sep="\n")
    return int(not outcomes or any(one.failed for one in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
