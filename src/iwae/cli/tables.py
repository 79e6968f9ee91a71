"""How runs read in tables and in lines: labels, aligned columns, means over seeds."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from rich.cells import cell_len, set_cell_size

from iwae.data import shown_name
from iwae.runs.config import RunConfig
from iwae.runs.data import DataRecord
from iwae.runs.records import AnnealedRecord, Measured, ResultsRecord, WeightsFigures

Format = Literal["table", "json", "csv", "markdown"]


def figure_label(value: float | None, stderr: float | None, *, digits: int = 0) -> str:
    """`86.76 ± 0.24`, or that it is not finite; with so many significant `digits` of the standard error, at least two
    decimals.
    """
    if value is None:
        return "not finite"
    size = (stderr or abs(value)) if digits else 0.0
    decimals = max(2, digits - 1 - math.floor(math.log10(size))) if size else 2
    return f"{value:.{decimals}f}" + (f" ± {stderr:.{decimals}f}" if stderr is not None else "")


def number_label(value: float | None) -> str:
    """`0.24`, or that it is not finite."""
    return "not finite" if value is None else f"{value:.2f}"


def measured_label(test: Measured | AnnealedRecord, split: str, data: DataRecord) -> str:
    """`86.76 ± 0.24 nats, on the first 2,000 of 10,000 test examples of mnist`; `..., on mnist` where all were
    measured.
    """
    part = ""
    if test["num_examples"] != test["split_examples"]:
        part = f"the first {test['num_examples']:,} of {test['split_examples']:,} {split} examples of "
    bits = ""
    if data.get("likelihood") == "discretized-logistic" and test["nll"] is not None:
        bits = f" ({test['nll'] / (data['dim'] * math.log(2)):.3f} bits per dimension)"
    return f"{figure_label(test['nll'], test['stderr'])} nats{bits}, on {part}{shown_name(data['name'], data['mark'])}"


def weights_lines(test: WeightsFigures) -> list[str]:
    """What the draws say of L_k, a line each: JVI-2, the delta method, Pareto k-hat; fewer where k is small."""
    lines = []
    if (jvi2 := test.get("jvi2_nll")) is not None:
        lines.append(f"NLL by JVI-2, no bound: {jvi2:.2f} nats")
    if (delta := test.get("delta")) is not None:
        lines.append(f"Delta method: L_{test['num_samples']} is about {delta:.2f} nats too low, or more")
    if (above := test.get("pareto_k_above")) is not None:
        median = number_label(test.get("pareto_k_median"))
        lines.append(f"Pareto k-hat: median {median}, above 0.7 (do not trust L_k) for {above:.0%} of examples")
    return lines


def units_label(counts: Sequence[int]) -> str:
    """`26+7`: active units, h_1 first."""
    return "+".join(map(str, counts))


def aligned(heading: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """The lines of a table in columns. Where that takes more than `width`, each row's first cell has a line of its
    own, so that it stays whole.
    """
    table = [heading, *rows]
    stacked = width is not None and sum(_widths(table)) + 2 * (len(heading) - 1) > width
    if not stacked:
        return _columns(table)
    parts = _columns([row[1:] for row in table])
    return [line for row, part in zip(table, parts, strict=True) for line in (row[0], f"  {part}".rstrip())]


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(*table, strict=True)]


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = _widths(table)
    return ["  ".join(map(set_cell_size, row, widths)).rstrip() for row in table]


def seeds_lines(results: Sequence[ResultsRecord]) -> list[str]:
    """A line for each experiment that was measured alike with two seeds or more: the mean and the standard deviation
    over seeds (n - 1 in the denominator) of the test NLL, and the mean of the active units. Of one network on the same
    data; where two runs with different weights have one seed, the line says that instead.
    """
    groups: dict[tuple[RunConfig, str, object], dict[str, tuple[int, ResultsRecord]]] = {}
    for result in results:
        if result["test"]["nll"] is not None:
            config = RunConfig.from_json(result["config"])
            # By its weights: the same run in another place counts once.
            groups.setdefault(_experiment(config, result), {})[result["weights_sha256"]] = config.seed, result
    return [
        _seeds_line(config.name().removesuffix("-seed0"), *zip(*runs.values(), strict=True))
        for (config, *_), runs in groups.items()
        if len({seed for seed, _ in runs.values()}) > 1
    ]


def _experiment(config: RunConfig, result: ResultsRecord) -> tuple[RunConfig, str, object]:
    """What runs of several seeds have in common: the configuration but for its seed, the network, what was measured."""
    test, files = result["test"], result["data"]["files"]
    measured = (result["stages_done"], test["num_samples"], test["num_examples"], *(file["checksum"] for file in files))
    return replace(config, seed=0), json.dumps(result["architecture"], sort_keys=True), measured


def _seeds_line(name: str, seeds: tuple[int, ...], results: tuple[ResultsRecord, ...]) -> str:
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        return f"{name}: several runs with seed {', '.join(map(str, twice))}; for a mean over seeds name one of each"
    nll = [nll for result in results if (nll := result["test"]["nll"]) is not None]
    units = [sum(result["active_units"]) for result in results]
    return (
        f"{name}, seeds {', '.join(map(str, sorted(seeds)))}: test NLL {statistics.mean(nll):.2f},"
        f" standard deviation {statistics.stdev(nll):.2f}; {statistics.mean(units):.1f} active"
    )
