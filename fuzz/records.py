"""The JSON files of a small pruned run that was measured and analyzed, as `iwae` writes them."""

import json
from typing import Any

from iwae.runs.config import RunConfig
from iwae.runs.records import (
    AnalysisRecord,
    EvaluationRecord,
    MetricsLine,
    PrunedRecord,
    ResultsRecord,
    RunRecord,
)
from iwae.training.schedule import schedule_to_json

CONFIG = RunConfig.of(latent=(4,), hidden=(5,))
LEVELS = ("0", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "1")
data: Any = {
    "name": "d.npz",
    "mark": "own",
    "examples": {"train": 20, "valid": 0, "test": 3},
    "dim": 4,
    "binary": True,
    "image_shape": [2, 2],
    "files": [{"name": "d.npz", "checksum": "sha256:0", "verified": None}],
}
architecture: Any = {"visible": 4, "latent": [3], "hidden": [[5, 5]], "kinds": ["gaussian"]}
measured: Any = {"nll": 1.5, "stderr": 0.1, "num_samples": 2, "num_examples": 3, "split_examples": 3, "seed": 0}
quantiles: Any = dict.fromkeys(LEVELS, 0.5)
config: Any = CONFIG.to_json()
schedule: Any = schedule_to_json(CONFIG.full_schedule())
pruned: PrunedRecord = {
    "source": "a run",
    "checkpoint": "1.safetensors",
    "weights_sha256": "0",
    "units": [4],
    "kept_units": [[0, 2, 3]],
    "nll_before": 1.5,
    "nll_after": 1.5,
    "difference": 0.0,
    "difference_stderr": 0.0,
    "num_samples": 2,
    "num_examples": 3,
    "split_examples": 3,
    "kept_inactive": [],
}
record: RunRecord = {
    "format": 1,
    "config": config,
    "architecture": architecture,
    "schedule": schedule,
    "data": data,
    "pruned": pruned,
}
results: ResultsRecord = {
    "config": config,
    "architecture": architecture,
    "data": data,
    "stages_done": 1,
    "stages_total": 8,
    "epochs": 1,
    "step": 1,
    "test": measured,
    "active_units": [3],
    "active_units_paper_code": [3],
    "seconds": {"training": 1.0, "measuring": 1.0},
    "checkpoint": "checkpoints/1.safetensors",
    "weights_sha256": "0",
    "files": {"samples": "a", "sample_values": "b", "per_example": "c", "metrics": "d"},
}
analysis: AnalysisRecord = {
    "format": 2,
    "config": config,
    "data": data,
    "architecture": architecture,
    "checkpoint": "1.safetensors",
    "stages_done": 1,
    "stages_total": 8,
    "epochs": 1,
    "step": 1,
    "weights_sha256": "0",
    "training_seconds": 1.0,
    "train_bound": -1.5,
    "test": measured,
    "train": measured,
    "gap": {"value": 0.1, "stderr": 0.2},
    "layers": [{"layer": 1, "units": 3, "active": 3, "active_paper_code": 3, "variances": [0.5, 0.4, None]}],
    "log_weights": {"examples": 3, "num_samples": 2, "quantiles": quantiles, "weight_above_mean": 0.5},
    "effective_sample_size": {"examples": 3, "num_samples": 2, "quantiles": quantiles, "mean": 1.5},
    "pictures": {"samples": "samples.png"},
    "skipped": {"traversals": "no unit of the top layer is active"},
    "device": "cpu",
}
evaluation: EvaluationRecord = {**measured, "split": "test", "weights_sha256": "0", "data": data}
line: MetricsLine = {"stage": 0, "epoch": 1, "step": 1, "learning_rate": 1e-3, "bound": -1.5}

RECORD, RESULTS, ANALYSIS, EVALUATION = (json.dumps(one).encode() for one in (record, results, analysis, evaluation))
METRICS = (json.dumps(line) + "\n").encode() * 2
