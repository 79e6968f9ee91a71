"""Numbers and names as a reader wants them: pure functions of records, no markup."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from iwae.estimators.table import METHOD_WORDS
from iwae.models.architecture import ArchitectureRecord
from iwae.runs.config import RunConfig
from iwae.runs.directory import LATEST
from iwae.runs.export_weights import train_command
from iwae.runs.records import AnalysisRecord, AnnealedRecord, Measured, PrunedRecord

MARKS = {
    "verified": "verified: the published files",
    "unverified": "unverified: not the published file, so no figure compares with the paper's",
    "own": "your own data",
}


def objective(config: RunConfig) -> str:
    """`IWAE, k = 5`; `MIWAE, DReG, m = 8, k = 8`."""
    chosen = config.objective
    words = [chosen.row.words] + ([] if chosen.has_default_estimator else [METHOD_WORDS[chosen.estimator]])
    return ", ".join([*words, *(f"{name} = {value:g}" for name, value in chosen.numbers().items())])


def network(architecture: ArchitectureRecord) -> str:
    """`784 → 200 → 200 → 50`: the encoder's widths, stochastic layers in brackets."""
    widths = [str(architecture["visible"])]
    for hidden, latent in zip(architecture["hidden"], architecture["latent"], strict=True):
        widths += [*map(str, hidden), f"[{latent}]"]
    return " → ".join(widths)


def nats(value: float | None, stderr: float | None = None, *, sign: bool = False, digits: int = 2) -> str:
    """`94.13 ± 0.81`; `not finite` where there is no number."""
    if value is None:
        return "not finite"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text.replace("-", "−") + (f" ± {stderr:.{digits}f}" if stderr is not None else "")


def units(counts: Sequence[int]) -> str:
    """`26+7`: units per layer, h_1 first."""
    return "+".join(map(str, counts))


def measured_on(record: Measured, what: str) -> str:
    """`the first 1,000 of 10,000 test examples, k = 500`."""
    return f"{_examples(record, what)}, k = {record['num_samples']:,}"


def annealed_on(record: AnnealedRecord) -> str:
    """`the first 1,000 of 10,000 test examples, 16 chains of 100 steps`."""
    return f"{_examples(record, record['split'])}, {record['chains']} chains of {record['steps']} steps"


def _examples(record: Measured | AnnealedRecord, what: str) -> str:
    part = record["num_examples"] != record["split_examples"]
    count = f"the first {record['num_examples']:,} of" if part else "all"
    return f"{count} {record['split_examples']:,} {what} examples"


def duration(seconds: float) -> str:
    """`3 min`, `2.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def making_commands(path: Path, pruned: PrunedRecord | None, config: RunConfig, analysis: AnalysisRecord) -> list[str]:
    """The commands that make a run again: training, up to the analyzed checkpoint's last whole stage, and for a pruned
    one that of its source (perhaps pruned itself), then pruning.
    """
    if pruned is None:
        is_cut = 0 < analysis["stages_done"] < analysis["stages_total"]
        stages = ["--stages", str(analysis["stages_done"])] if is_cut else []
        return [train_command(config, *stages, "--run-dir", str(path), with_places=True)]
    source = Path(pruned["source"])
    words = ["iwae", "prune", str(source), "--output", str(path)]
    return [
        *making_commands(source, pruned.get("source_pruned"), config, analysis),
        shlex.join([*words, *_measuring_words(pruned, pruned["checkpoint"])]),
    ]


def analyze_command(path: Path, analysis: AnalysisRecord) -> str:
    """The command that repeats the analysis."""
    return shlex.join(["iwae", "analyze", str(path), *_measuring_words(analysis["test"], analysis["checkpoint"])])


def _measuring_words(measured: Measured | PrunedRecord, checkpoint: str) -> list[str]:
    words = ["--samples", str(measured["num_samples"])]
    if measured["num_examples"] != measured["split_examples"]:
        words += ["--examples", str(measured["num_examples"])]
    stem = Path(checkpoint).stem
    return words if stem == LATEST else [*words, "--checkpoint", stem]
