"""A run with its weights alone, to be given to others."""

import contextlib
import os
import shlex
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

from iwae.errors import IWAEError
from iwae.io.files import write_json
from iwae.io.json import parse, read_json
from iwae.runs.checkpoint import Checkpoint, save_weights_alone
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.runs.evaluate import versions
from iwae.runs.records import OfWeights
from iwae.runs.whole import check_free, made_whole

# Beside the record, the metrics and the measurements: what is a finished run's.
OF_RESULTS = ("results.json", "samples.png", "samples.npy", "samples.csv", "pruning.json")


def export_weights(run: Run, checkpoint: Checkpoint, out: str | Path) -> Path:
    """Writes a run's directory with the weights of one checkpoint alone, a third of the size: its record, its metrics
    and results up to there, and what was measured of these weights. `export.json` says which weights they are, and the
    command that trains them. All but further training accepts it: `iwae.load`, measuring, pictures, and a new run
    that starts from it. Returns `out`, which appears once it is whole.

    Raises IWAEError where `out` is not empty, and OSError where nothing can be written.
    """
    target, digest = Run(out), checkpoint.weights_digest()
    check_free(target)
    results = run.results()
    with made_whole(target) as made:
        save_weights_alone(made.checkpoints_path / checkpoint.path.name, checkpoint)
        made.metrics.write(run.metrics.lines(checkpoint.step))
        if results is not None and results["weights_sha256"] == digest:
            for path in (run.path / name for name in OF_RESULTS if (run.path / name).exists()):
                _copy(path, made.path)
        for path in _measurements(run, digest):
            _copy(path, made.evaluations_path)
        about = {
            "format": "weights",
            "run": run.path.resolve().name,
            "checkpoint": f"checkpoints/{checkpoint.path.name}",
            "weights_sha256": digest,
            "command": train_command(run.config),
            "versions": versions(),
        }
        write_json(made.path / "export.json", about)
        made.write_record(without_places(run.record))
    return target.path


def without_places(value: Any) -> Any:
    """A record with names in the place of whole paths, which are nobody else's matter."""
    if isinstance(value, dict):
        return {key: without_places(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_places(one) for one in value]
    # A folder of images is known by its slash.
    is_place = isinstance(value, str) and os.path.isabs(value)
    return Path(value).name + "/" * value.endswith("/") if is_place else value


def _copy(path: Path, directory: Path) -> None:
    if path.suffix == ".json":
        write_json(directory / path.name, without_places(parse(path.read_bytes())))
    else:
        shutil.copyfile(path, directory / path.name)


def train_command(config: RunConfig, *more: str, with_places: bool = False) -> str:
    """The command that trains a run of this configuration, with `more` words; custom data and other runs are called by
    their names, or `with_places` by their paths.
    """
    objective = config.objective
    named = {"objective": objective.name} if config.model is None else {"model": config.model}
    numbers = {name: number for name, number in objective.numbers().items() if number is not None}
    given = {"dataset": config.dataset, **named, **numbers, "schedule": config.schedule}
    if config.schedule == RunConfig.schedule:
        del given["schedule"]
    usual = RunConfig.of(**given)
    if objective.estimator != usual.objective.estimator:
        given["estimator"] = objective.estimator
    for field in fields(config):
        if field.name != "objective" and (value := getattr(config, field.name)) != getattr(usual, field.name):
            given[field.name] = value
    words = ["iwae", "train"]
    for name, value in (given if with_places else without_places(given)).items():
        # Flags are false unless given.
        words += [f"--{name.replace('_', '-')}"]
        words += [] if value is True else map(str, value) if isinstance(value, tuple) else [str(value)]
    return shlex.join([*words, *more])


def _measurements(run: Run, digest: str) -> list[Path]:
    """The files of what was measured of these weights."""
    found = []
    for path in sorted(run.evaluations_path.glob("*.json")):
        with contextlib.suppress(OSError, IWAEError):
            if read_json(path, OfWeights, "it is left out")["weights_sha256"] == digest:
                found += [path, *(other for suffix in (".npz", ".png") if (other := path.with_suffix(suffix)).exists())]
    return found
