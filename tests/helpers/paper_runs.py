"""Directories that look like runs of the paper's cells: records without any weights, for tests of the tables."""

from pathlib import Path
from typing import Any

from iwae.io.files import write_json
from iwae.paper.cells import Cell
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.training.schedule import schedule_to_json

SIZES = {"train": 59_600, "valid": 400, "test": 10_000}


def write_run(
    results_dir: Path,
    cell: Cell,
    *,
    reached: int | None = None,
    measured: int | None = None,
    mark: str = "verified",
    test: dict[str, Any] | None = None,
    record: dict[str, Any] | None = None,
    source_stages: int = 8,
    gap: dict[str, Any] | None = None,
) -> Run:
    """A run that was trained and measured as the paper did, but for what the arguments say.

    `gap` replaces fields of the analysis; an empty one leaves the analysis as it is, None makes none.
    """
    run = Run(cell.directory(results_dir))
    run.create()
    total = len(cell.config.full_schedule())
    reached = total if reached is None else reached
    measured = reached if measured is None else measured
    data = {"name": cell.config.dataset, "mark": mark, "examples": SIZES, "dim": 784, "binary": False}
    data |= {"image_shape": [28, 28], "files": []}
    architecture = cell.config.architecture(784).to_json()
    start = {}
    if cell.source is not None:
        start["init_from"] = source_record(cell.config, cell.source, source_stages)
    run.write_record(
        {
            "config": cell.config.to_json(),
            "architecture": architecture,
            "schedule": schedule_to_json(cell.config.full_schedule()),
            "data": data,
            **start,
            **(record or {}),
        }
    )
    for stage in range(reached + 1):
        run.checkpoint_path(stage).touch()
    figures = {"nll": 84.9, "stderr": 0.24, "num_samples": 5000, "num_examples": 10_000, "split_examples": 10_000}
    results = {
        "config": cell.config.to_json(),
        "architecture": architecture,
        "data": data,
        "stages_done": measured,
        "stages_total": total,
        "epochs": sum(stage.epochs for stage in cell.config.full_schedule()[:measured]),
        "step": measured,
        "test": {**figures, **(test or {})},
        "active_units": [25],
        "active_units_paper_code": [25],
        "seconds": {"training": 1.0, "measuring": 1.0},
        "checkpoint": f"checkpoints/{measured}.safetensors",
        "files": dict.fromkeys(("samples", "sample_values", "per_example", "metrics"), "a file"),
        "weights_sha256": f"{measured}",
    }
    write_json(run.results_path, results)
    if gap is not None:
        analysis = {
            "weights_sha256": f"{measured}",
            "test": results["test"],
            "train": figures,
            "gap": {"value": 0.31, "stderr": 0.35},
        }
        directory = run.path / "analysis"
        directory.mkdir()
        write_json(directory / "analysis.json", {**analysis, **gap})
    return run


PRUNED = {
    "source": "a run",
    "checkpoint": "8.safetensors",
    "weights_sha256": "8",
    "units": [60],
    "kept_units": [list(range(50))],
    **dict.fromkeys(("nll_before", "nll_after", "difference", "difference_stderr"), 1.0),
    **dict.fromkeys(("num_samples", "num_examples", "split_examples"), 100),
    "kept_inactive": [],
}


def source_record(config: RunConfig, source: RunConfig, stages: int) -> dict[str, Any]:
    """What a run's record says of the run that it started from."""
    return {
        "run": config.init_from,
        "config": source.to_json(),
        "checkpoint": f"{stages}.safetensors",
        "stages_done": stages,
        "step": stages,
        "weights_sha256": f"{stages}",
    }
