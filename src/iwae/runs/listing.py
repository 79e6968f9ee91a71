"""Runs as rows of a table: what was trained, how far, and what was measured."""

import warnings
from pathlib import Path
from typing import Any

from iwae.errors import IWAEError
from iwae.io.files import expanded
from iwae.runs.directory import Run

WEIGHTS = ("mean_effective_sample_size", "delta", "jvi2_nll", "pareto_k_median", "pareto_k_above")
MEASURED = ("nll", "nll_stderr", "num_samples", "num_examples", "split_examples", *WEIGHTS)
AIS = ("nll", "stderr", "num_examples", "chains", "steps")
FINISHED = (
    *MEASURED,
    *(f"ais_{name}" for name in AIS),
    "active_units",
    "active_units_by_layer",
    "train_bound",
    "training_seconds",
    "weights_sha256",
)


def find_runs(directory: str | Path) -> list[Run]:
    """The runs right below a directory, by name; none is opened. Hidden ones are not whole yet."""
    found = sorted(path.parent for path in expanded(directory).glob("*/run.json"))
    return [Run(path) for path in found if not path.name.startswith(".")]


def results(directory: str | Path = "results") -> list[dict[str, Any]]:
    """One flat record of every run right below `directory` (or of the run that `directory` is), by name: see
    `summary`. What can't be read is left out with a warning.

        pandas.DataFrame(iwae.results("results"))

    Raises IWAEError where there is no such directory.
    """
    directory = expanded(directory)
    if not directory.is_dir():
        raise IWAEError(f"{directory}: there is no such directory")
    rows = []
    for run in [Run(directory)] if Run(directory).exists else find_runs(directory):
        try:
            rows.append(summary(run))
        except (IWAEError, OSError) as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
    return rows


def summary(run: Run) -> dict[str, Any]:
    """A run's configuration and results, flat, of JSON's plain values. NLLs are in nats; what is not measured (yet) is
    None. Units of several layers are text, h_1 first: `26+7`. `objective_label` is the objective in one text, with its
    estimator and parameters.

    Raises IWAEError, or OSError, for a run that can't be read.
    """
    config, found = run.config, run.results()
    objective = config.objective
    unusual = [word for word in (config.latent_kind, config.precision) if word not in ("gaussian", "float32")]
    row = {
        "name": run.path.resolve().name,
        "path": str(run.path),
        "dataset": run.data["name"],
        "data_mark": run.data["mark"],
        "data_checksum": " ".join(file["checksum"] for file in run.data["files"]),
        "objective": objective.name,
        "estimator": objective.estimator,
        "objective_label": " ".join([*objective.name_parts(), *unusual]),
        "k": config.k,
        "layers": len(run.architecture.latent),
        "latent": "+".join(map(str, run.architecture.latent)),
        "latent_kind": config.latent_kind,
        "schedule": config.schedule,
        "batch_size": config.batch_size,
        "beta1": config.beta1,
        "adam_moments": config.adam_moments,
        "patience": config.patience,
        "precision": config.precision,
        "seed": config.seed,
        "init_from": config.init_from,
        "is_pruned": "pruned" in run.record,
        "is_put_aside": run.is_put_aside,
        "stages_total": len(run.record["schedule"]),
    }
    if found is None:
        stages = max(run.stage_checkpoints(), default=0)
        return {**row, "stages_done": stages, "epochs": run.metrics.epochs_done(), **dict.fromkeys(FINISHED)}
    annealed = run.annealed()[0] or {}
    test = {"nll_stderr": found["test"]["stderr"], **found["test"]}
    return {
        **row,
        "stages_done": found["stages_done"],
        "epochs": found["epochs"],
        **{name: test.get(name) for name in MEASURED},
        **{f"ais_{name}": annealed.get(name) for name in AIS},
        "active_units": sum(found["active_units"]),
        "active_units_by_layer": "+".join(map(str, found["active_units"])),
        "train_bound": found.get("train_bound"),
        "training_seconds": found["seconds"]["training"],
        "weights_sha256": found["weights_sha256"],
    }
