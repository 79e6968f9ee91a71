"""Tables of runs and datasets."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from iwae.data import shown_name
from iwae.io.text import printable
from iwae.runs.config import RunConfig
from iwae.runs.directory import RunDirectory
from iwae.runs.records import DataRecord, Measured, ResultsRecord

if TYPE_CHECKING:
    from iwae.data import DatasetStatus


def data_label(data: DataRecord) -> str:
    """A dataset's name, marked where it is not the published one."""
    return shown_name(data["name"], data["mark"])


def nll_label(test: Measured) -> str:
    """`86.76 ± 0.24`, with the number of examples where they are not all of the test set."""
    if test["nll"] is None:
        return "not finite"
    error = f" ± {test['stderr']:.2f}" if test["stderr"] is not None else ""
    part = test["num_examples"] != test["split_examples"]
    return f"{test['nll']:.2f}{error}" + (f" (first {test['num_examples']:,})" if part else "")


def units_label(counts: list[int]) -> str:
    """`26+7`: active units, h_1 first."""
    return "+".join(str(count) for count in counts)


def runs_table(rows: list[tuple[str, ...]]) -> Table:
    """One row a run: what was trained, how far, and what was measured."""
    table = Table(box=None, pad_edge=False)
    table.add_column("run", overflow="fold")
    for name in ("data", "objective", "stages"):
        table.add_column(name)
    table.add_column("test NLL (nats)")
    table.add_column("active")
    for row in rows:
        # As text: in a name that a file holds, brackets are no markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def run_row(run: RunDirectory) -> tuple[str, ...]:
    """A run's cells in `runs_table`. Raises IWAEError for a run that can't be read."""
    record, config, results = run.read_record(), run.config, run.results()
    name, words = short_name(run.path.resolve().name, config), config.full_objective().name_parts()
    unusual = [word for word in (config.latent_kind, config.precision) if word not in ("gaussian", "float32")]
    objective = " ".join([*words, *unusual])
    cells = (name, data_label(record["data"]), objective)
    if results is None:
        return (*cells, _progress(run), "not measured", "")
    return (
        *cells,
        f"{results['stages_done']}/{results['stages_total']}",
        f"{nll_label(results['test'])}  k={results['test']['num_samples']}",
        units_label(results["active_units"]),
    )


def short_name(name: str, config: RunConfig) -> str:
    """A run's name without that of the run that it started from, which would fill a terminal's line."""
    return name if config.init_from is None else name.replace(f"-from-{Path(config.init_from).name}", "-from-…")


def start_lines(run: RunDirectory) -> list[str]:
    """What stands below the table of a run whose name was shortened there: which run it started from."""
    config, name = run.config, run.path.resolve().name
    short = short_name(name, config)
    return [] if short == name else [f"{short}: started from {Path(str(config.init_from)).name}"]


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


def _progress(run: RunDirectory) -> str:
    stages = run.stage_checkpoints()
    return f"{stages[-1] if stages else 0}/{len(run.config.full_schedule())}"


def datasets_table(statuses: list["DatasetStatus"]) -> Table:
    """One row a dataset: whether it is there and verified, and what it holds."""
    table = Table(box=None, pad_edge=False)
    for name in ("dataset", "state", "train / valid / test", "what"):
        table.add_column(name, no_wrap=name != "what")
    for status in statuses:
        sizes = " / ".join(f"{size:,}" for size in status.sizes)
        table.add_row(f"{status.name} ({status.paper_name})", status.state, sizes, status.description)
    return table
