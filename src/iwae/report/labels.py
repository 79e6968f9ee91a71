"""Numbers and names as a reader wants them: pure functions of records, no markup."""

import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from iwae.runs.config import RunConfig
from iwae.runs.directory import LATEST

OBJECTIVES = {"vae": "VAE", "iwae": "IWAE"}
MARKS = {
    "verified": "verified: the published files",
    "unverified": "unverified: not the published files",
    "own": "your own data",
}


def data_name(data: dict[str, Any]) -> str:
    """A dataset's name, marked where it is not the published one."""
    name = Path(data["name"]).name
    return f"{name} (unverified)" if data["mark"] == "unverified" else name


def objective(config: RunConfig) -> str:
    """`IWAE, k = 5`."""
    return f"{OBJECTIVES[config.model]}, k = {config.k}"


def objective_in_words(config: RunConfig) -> str:
    """What was maximized."""
    if config.model == "iwae":
        return f"the importance weighted bound L_{config.k}: the log of the average of {config.k} weights"
    return f"the variational bound: the average of {config.k} log weight{'s' if config.k > 1 else ''}"


def network(architecture: dict[str, Any]) -> str:
    """`784 → 200 → 200 → 50`: the encoder's widths, stochastic layers in brackets."""
    widths = [str(architecture["visible"])]
    for hidden, latent in zip(architecture["hidden"], architecture["latent"], strict=True):
        widths += [*map(str, hidden), f"[{latent}]"]
    return " → ".join(widths)


def nats(value: float | None, stderr: float | None = None, *, sign: bool = False) -> str:
    """`94.13 ± 0.81`; `not finite` where there is no number."""
    if value is None:
        return "not finite"
    text = f"{value:+.2f}" if sign else f"{value:.2f}"
    return text.replace("-", "−") + (f" ± {stderr:.2f}" if stderr is not None else "")


def units(counts: Sequence[int]) -> str:
    """`26+7`: units per layer, h_1 first."""
    return "+".join(map(str, counts))


def measured_on(record: dict[str, Any], what: str) -> str:
    """`the first 1,000 of 10,000 test examples, k = 500`."""
    part = record["num_examples"] != record["split_examples"]
    count = f"the first {record['num_examples']:,} of" if part else "all"
    return f"{count} {record['split_examples']:,} {what} examples, k = {record['num_samples']:,}"


def duration(seconds: float) -> str:
    """`3 min`, `2.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def train_command(path: Path, config: RunConfig, analysis: dict[str, Any]) -> str:
    """The command that trains the same weights, up to the analyzed checkpoint's last whole stage."""
    words = ["iwae", "train", "--dataset", config.dataset, "--model", config.model, "--k", str(config.k)]
    if config.latent:
        words += ["--latent", *map(str, config.latent), "--hidden", *map(str, config.hidden)]
    else:
        words += ["--layers", str(config.layers)]
    named = ("dataset", "model", "k", "layers", "latent", "hidden")
    for option in fields(RunConfig):
        value = getattr(config, option.name)
        if option.name in named or value == option.default or value is None:
            continue
        words.append(f"--{option.name.replace('_', '-')}")
        words += [] if value is True else [str(value)]
    if 0 < analysis["stages_done"] < analysis["stages_total"]:
        words += ["--stages", str(analysis["stages_done"])]
    return shlex.join([*words, "--run-dir", str(path)])


def prune_command(path: Path, pruned: dict[str, Any]) -> str:
    """The command that makes a pruned run from its source again."""
    words = ["iwae", "prune", pruned["source"], "--out", str(path), "--samples", str(pruned["num_samples"])]
    stem = Path(pruned["checkpoint"]).stem
    return shlex.join(words if stem == LATEST else [*words, "--checkpoint", stem])


def analyze_command(path: Path, analysis: dict[str, Any]) -> str:
    """The command that repeats the analysis."""
    words = ["iwae", "analyze", str(path), "--samples", str(analysis["test"]["num_samples"])]
    if analysis["test"]["num_examples"] != analysis["test"]["split_examples"]:
        words += ["--examples", str(analysis["test"]["num_examples"])]
    stem = Path(analysis["checkpoint"]).stem
    if stem != LATEST:
        words += ["--checkpoint", stem]
    return shlex.join(words)


def report_command(path: Path) -> str:
    """The command that writes a page about one run."""
    return shlex.join(["iwae", "report", str(path)])
