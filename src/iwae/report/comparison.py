"""The tables of a report: quantities down, runs across."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iwae.data import shown_name
from iwae.paper.reproduction import FindPublished, deviations, paper_gap, published_for
from iwae.report import labels
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.runs.records import AnalysisRecord, Measured, MetricsLine, RunRecord

WHOLE_PROTOCOL = "after its whole protocol; this run is no reproduction of it"


@dataclass(frozen=True)
class Analyzed:
    """A run with its record (`run.json`), its analysis (`analysis.json`) and the lines of its metrics; `explorer` is
    the address of its latent explorer from where the page lies, or None.
    """

    path: Path
    name: str
    record: RunRecord
    analysis: AnalysisRecord
    metrics: list[MetricsLine]
    explorer: str | None = None

    @property
    def config(self) -> RunConfig:
        """The configuration that the run was begun with."""
        return RunConfig.from_json(self.record["config"])

    @property
    def data_name(self) -> str:
        """Its dataset's name, marked where it is not the published one."""
        return shown_name(self.analysis["data"]["name"], self.analysis["data"]["mark"])

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
    return _rows([_training(run) for run in runs])


def number_rows(runs: Sequence[Analyzed], find: FindPublished) -> list[Row]:
    """What was measured, with the paper's figures where it has any."""
    return _rows([_numbers(run, find) for run in runs])


def _rows(columns: Sequence[dict[str, Cell]]) -> list[Row]:
    return [Row(label, tuple(column[label] for column in columns)) for label in columns[0]]


def _training(run: Analyzed) -> dict[str, Cell]:
    config, analysis, data = run.config, run.analysis, run.analysis["data"]
    sizes = data["examples"]
    if config.init_from is not None:
        schedule = f"a warm start: one stage of {config.epochs:,} epochs"
    else:
        name = "paper's" if config.schedule == "paper" else config.schedule
        schedule = f"of the {name} schedule"
    products = "" if config.precision == "float32" else f"; matrix products of {config.precision} operands"
    return {
        "Data": Cell(
            run.data_name,
            f"{labels.MARKS[data['mark']]}; {sizes['train']:,} training and {sizes['test']:,} test examples of"
            f" {data['dim']:,} dimensions, {'binary as they are' if data['binary'] else 'binarized anew at every use'}",
        ),
        "Objective": Cell(labels.objective(config), f"maximized: {config.objective.sentence}"),
        "Network": Cell(
            labels.network(analysis["architecture"]), "encoder, stochastic layers in brackets; the decoder mirrors it"
        ),
        "Started from": _start(run.record),
        "Stages done": Cell(f"{analysis['stages_done']} of {analysis['stages_total']}", schedule),
        "Epochs": Cell(f"{analysis['epochs']:,}", f"{analysis['step']:,} steps"),
        "Optimizer": Cell(
            f"{config.recipe.optimizer}, beta1 {config.beta1:g}", f"minibatches of {config.batch_size}{products}"
        ),
        "Seed": Cell(str(config.seed)),
        "Checkpoint": Cell(
            analysis["checkpoint"],
            f"trained in {labels.duration(analysis['training_seconds'])} on {analysis['device']};"
            f" weights sha256 {analysis['weights_sha256'][:12]}…",
        ),
    }


def _start(record: RunRecord) -> Cell:
    pruned, source = record.get("pruned"), record.get("init_from")
    if pruned is not None:
        before, after = labels.nats(pruned["nll_before"]), labels.nats(pruned["nll_after"])
        difference = labels.nats(pruned["difference"], pruned["difference_stderr"], sign=True, digits=4)
        layers = " and ".join(map(str, pruned["kept_inactive"]))
        kept = f", but for one in layer {layers}, which has no active one and could not be without any"
        return Cell(
            f"{Path(pruned['source']).name}, pruned",
            f"checkpoint {pruned['checkpoint']} without its inactive units{kept if layers else ''}; with the same noise"
            f" its test NLL was {before} nats before and {after} after: {difference}",
        )
    if source is None:
        return Cell("random weights")
    return Cell(
        f"{Path(source['run']).name}: {labels.objective(RunConfig.from_json(source['config']))}",
        f"checkpoint {source['checkpoint']}, {source['step']:,} steps; weights sha256 {source['weights_sha256'][:12]}…",
    )


def _numbers(run: Analyzed, find: FindPublished) -> dict[str, Cell]:
    analysis = run.analysis
    gap, layers, effective = analysis["gap"], analysis["layers"], analysis["effective_sample_size"]
    active, units, paper_code = (
        labels.units([layer[name] for layer in layers]) for name in ("active", "units", "active_paper_code")
    )
    mean, median = effective["mean"], effective["quantiles"]["0.5"]
    published_nll, published_active = _published(run, find)
    return {
        "Test NLL": _likelihood(analysis["test"], "test"),
        "Test NLL by JVI-2": _jackknife(analysis["test"]),
        "Test NLL by AIS": _annealed(run),
        "The paper's test NLL": published_nll,
        "Training NLL": _likelihood(analysis["train"], "training"),
        "Gap, test − training": Cell(labels.nats(gap["value"], gap["stderr"], sign=True), _gap_notes(analysis)),
        "Active units": Cell(f"{active} of {units}", f"counted as the paper's code did, on 500 images: {paper_code}"),
        "The paper's active units": published_active,
        "Effective sample size": Cell("not finite")
        if mean is None or median is None
        else Cell(f"{mean:.1f} of {effective['num_samples']:,}", f"mean over test examples; median {median:.1f}"),
        "Training bound": Cell(labels.nats(analysis["train_bound"]), "mean over the last epoch, of the objective above")
        if analysis["epochs"]
        else Cell("not trained"),
    }


def _likelihood(record: Measured, what: str) -> Cell:
    return Cell(labels.nats(record["nll"], record["stderr"]), labels.measured_on(record, what))


def _jackknife(test: Measured) -> Cell:
    """JVI-2 from the draws of the test NLL, and what else they say of it."""
    delta, above = test.get("delta"), test.get("pareto_k_above")
    notes = [] if delta is None else [f"delta method: L_k is about {delta:.2f} nats too low, or more"]
    if above is not None:
        notes.append(f"Pareto k-hat: median {labels.nats(test.get('pareto_k_median'))}, above 0.7 for {above:.0%}")
    return Cell(labels.nats(test["jvi2_nll"]) if "jvi2_nll" in test else "not measured", "; ".join(notes))


def _annealed(run: Analyzed) -> Cell:
    """Annealed importance sampling of the weights that were analyzed."""
    found, _ = Run(run.path).annealed()
    if found is None or found["weights_sha256"] != run.analysis["weights_sha256"]:
        return Cell("not measured", "iwae evaluate --method ais")
    return Cell(labels.nats(found["nll"], found["stderr"]), labels.annealed_on(found))


def _gap_notes(analysis: AnalysisRecord) -> str:
    paper, test = paper_gap(analysis["data"]["name"], analysis["data"]["mark"]), analysis["test"]
    notes = [] if paper is None else [f"the paper, fully trained: up to {paper:g}"]
    if test["num_examples"] != test["split_examples"]:
        notes.append("first examples only: these may be easier or harder than the rest")
    return "; ".join(notes)


def _published(run: Analyzed, find: FindPublished) -> tuple[Cell, Cell]:
    """The paper's test NLL and active units."""
    published = published_for(run.config, run.record, run.analysis, find)
    whole = WHOLE_PROTOCOL if run.deviations else ""
    if published is None:
        theirs = run.analysis["data"]["mark"] == "verified"
        why = "the paper has no such model" if theirs else "not the paper's data"
        return Cell("none", why), Cell("none given")
    ours = run.analysis["test"]["nll"]
    difference = labels.nats(None if ours is None else ours - published.nll, sign=True)
    active = Cell("none given") if published.active is None else Cell(published.active, whole)
    return Cell(f"{published.nll:.2f}", whole or f"ours lies {difference} nats from it"), active
