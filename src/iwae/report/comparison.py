"""The tables of a report: quantities down, runs across."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iwae.paper.reproduction import FindPublished, deviations, paper_gap, published_for
from iwae.report import labels
from iwae.runs.config import RunConfig
from iwae.runs.records import AnalysisRecord, Measured, MetricsLine, PrunedRecord, RunRecord

WHOLE_PROTOCOL = "after its whole protocol; this run is no reproduction of it"


@dataclass(frozen=True)
class Analyzed:
    """A run with its record (`run.json`), its analysis (`analysis.json`) and the lines of its metrics."""

    path: Path
    name: str
    record: RunRecord
    analysis: AnalysisRecord
    metrics: list[MetricsLine]

    @property
    def config(self) -> RunConfig:
        """The configuration that the run was begun with."""
        return RunConfig.from_json(self.record["config"])

    @property
    def deviations(self) -> list[str]:
        """In what it is not what the paper did."""
        return deviations(self.config, self.record, self.analysis)


@dataclass(frozen=True)
class Cell:
    """A figure or a word, and what must be known to read it."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One quantity, a cell for each run."""

    label: str
    cells: tuple[Cell, ...]


def training_rows(runs: Sequence[Analyzed]) -> list[Row]:
    """What was trained, on what, how far."""
    return _rows(
        runs,
        {
            "Data": _data,
            "Objective": lambda run: Cell(labels.objective(run.config), "maximized: " + run.config.objective.sentence),
            "Network": lambda run: Cell(
                labels.network(run.analysis["architecture"]),
                "encoder, stochastic layers in brackets; the decoder mirrors it",
            ),
            "Started from": _start,
            "Stages done": _stages,
            "Epochs": lambda run: Cell(f"{run.analysis['epochs']:,}", f"{run.analysis['step']:,} steps"),
            "Optimizer": _optimizer,
            "Seed": lambda run: Cell(str(run.config.seed)),
            "Checkpoint": lambda run: Cell(
                run.analysis["checkpoint"],
                f"trained in {labels.duration(run.analysis['training_seconds'])} on {run.analysis['device']};"
                f" weights sha256 {run.analysis['weights_sha256'][:12]}…",
            ),
        },
    )


def _optimizer(run: Analyzed) -> Cell:
    config = run.config
    notes = f"minibatches of {config.batch_size}"
    if config.precision != "float32":
        notes += f"; matrix products of {config.precision} operands"
    return Cell(f"{config.recipe.optimizer}, beta1 {config.beta1:g}", notes)


def number_rows(runs: Sequence[Analyzed], find: FindPublished) -> list[Row]:
    """What was measured, with the paper's figures where it has any."""
    return _rows(
        runs,
        {
            "Test NLL": lambda run: _likelihood(run.analysis["test"], "test"),
            "The paper's test NLL": lambda run: _published_nll(run, find),
            "Training NLL": lambda run: _likelihood(run.analysis["train"], "training"),
            "Gap, test − training": _gap,
            "Active units": _active,
            "The paper's active units": lambda run: _published_active(run, find),
            "Effective sample size": _effective,
            "Training bound": lambda run: Cell(
                labels.nats(run.analysis["train_bound"]) if run.analysis["epochs"] else "not trained",
                "mean over the last epoch, of the objective above" if run.analysis["epochs"] else "",
            ),
        },
    )


def _rows(runs: Sequence[Analyzed], makers: dict[str, Callable[[Analyzed], Cell]]) -> list[Row]:
    return [Row(label, tuple(make(run) for run in runs)) for label, make in makers.items()]


def _data(run: Analyzed) -> Cell:
    data = run.analysis["data"]
    sizes = data["examples"]
    binarization = "binary as they are" if data["binary"] else "binarized anew at every use"
    return Cell(
        labels.data_name(data),
        f"{labels.MARKS[data['mark']]}; {sizes['train']:,} training and {sizes['test']:,} test examples of"
        f" {data['dim']:,} dimensions, {binarization}",
    )


def _start(run: Analyzed) -> Cell:
    pruned, source = run.record.get("pruned"), run.record.get("init_from")
    if pruned is not None:
        before, after = labels.nats(pruned["nll_before"]), labels.nats(pruned["nll_after"])
        difference = labels.nats(pruned["difference"], pruned["difference_stderr"], sign=True, digits=4)
        return Cell(
            f"{Path(pruned['source']).name}, pruned",
            f"checkpoint {pruned['checkpoint']} without its inactive units{_kept_inactive(pruned)}; with the same noise"
            f" its test NLL was {before} nats before and {after} after: {difference}",
        )
    if source is None:
        return Cell("random weights")
    before = labels.objective(RunConfig.from_json(source["config"]))
    return Cell(
        f"{Path(source['run']).name}: {before}",
        f"checkpoint {source['checkpoint']}, {source['step']:,} steps; weights sha256 {source['weights_sha256'][:12]}…",
    )


def _kept_inactive(pruned: PrunedRecord) -> str:
    layers = " and ".join(map(str, pruned["kept_inactive"]))
    return f", but for one in layer {layers}, which has no active one and could not be without any" if layers else ""


def _stages(run: Analyzed) -> Cell:
    analysis = run.analysis
    if run.config.init_from is not None:
        schedule = f"a warm start: one stage of {run.config.epochs:,} epochs"
    else:
        schedule = (
            "of the paper's schedule" if run.config.schedule == "paper" else f"of the {run.config.schedule} schedule"
        )
    return Cell(f"{analysis['stages_done']} of {analysis['stages_total']}", schedule)


def _likelihood(record: Measured, what: str) -> Cell:
    return Cell(labels.nats(record["nll"], record["stderr"]), labels.measured_on(record, what))


def _published_nll(run: Analyzed, find: FindPublished) -> Cell:
    published = published_for(run.config, run.record, run.analysis, find)
    if published is None:
        theirs = run.analysis["data"]["mark"] == "verified"
        return Cell("none", "the paper has no such model" if theirs else "not the paper's data")
    if run.deviations:
        return Cell(f"{published.nll:.2f}", WHOLE_PROTOCOL)
    ours = run.analysis["test"]["nll"]
    difference = labels.nats(None if ours is None else ours - published.nll, sign=True)
    return Cell(f"{published.nll:.2f}", f"ours lies {difference} nats from it")


def _published_active(run: Analyzed, find: FindPublished) -> Cell:
    published = published_for(run.config, run.record, run.analysis, find)
    if published is None or published.active is None:
        return Cell("none given")
    return Cell(published.active, WHOLE_PROTOCOL if run.deviations else "")


def _gap(run: Analyzed) -> Cell:
    gap, data = run.analysis["gap"], run.analysis["data"]
    paper = paper_gap(data["name"], data["mark"])
    notes = [] if paper is None else [f"the paper, fully trained: up to {paper:g}"]
    test = run.analysis["test"]
    if test["num_examples"] != test["split_examples"]:
        notes.append("first examples only: these may be easier or harder than the rest")
    return Cell(labels.nats(gap["value"], gap["stderr"], sign=True), "; ".join(notes))


def _active(run: Analyzed) -> Cell:
    layers = run.analysis["layers"]
    active, units, paper_code = (
        labels.units([layer[name] for layer in layers]) for name in ("active", "units", "active_paper_code")
    )
    return Cell(f"{active} of {units}", f"counted as the paper's code did, on 500 images: {paper_code}")


def _effective(run: Analyzed) -> Cell:
    found = run.analysis["effective_sample_size"]
    mean, median = found["mean"], found["quantiles"]["0.5"]
    if mean is None or median is None:
        return Cell("not finite")
    return Cell(f"{mean:.1f} of {found['num_samples']:,}", f"mean over test examples; median {median:.1f}")
