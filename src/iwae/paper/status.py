"""How far each cell of the paper's tables has been repeated, as rows for Markdown and objects for JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from iwae.data import Mark, shown_name
from iwae.errors import IWAEError
from iwae.io.json import read_json
from iwae.io.text import counted, printable
from iwae.paper.cells import Cell, Published
from iwae.paper.reproduction import PAPER_SAMPLES, deviations, paper_gap
from iwae.runs.directory import Run
from iwae.runs.options import MeasureOptions
from iwae.runs.records import GapAnalysis, Measured, ResultsRecord, measured_enough

HEADINGS = ("data", "model", "k", "layers", "paper", "ours", "active", "gap", "paper's gap", "seed", "stages")
PARTIAL = "partial"
UNREADABLE = "unreadable"
NONE = "–"


@dataclass(frozen=True)
class Gap:
    """Test minus training NLL in nats with its standard error, and the two measurements that it is of."""

    value: float
    stderr: float | None
    test: Measured
    train: Measured

    @property
    def num_samples(self) -> int:
        """Importance samples of both measurements, at least."""
        return min(self.test["num_samples"], self.train["num_samples"])

    @property
    def deviation(self) -> str | None:
        """In what it is less than L_5000 on the whole test set, in words; None: in nothing."""
        examples = self.test["num_examples"]
        if self.num_samples >= PAPER_SAMPLES and examples == self.test["split_examples"]:
            return None
        return (
            f"the gap was measured with {self.num_samples:,} samples on {examples:,} test and"
            f" {self.train['num_examples']:,} training examples"
        )


@dataclass(frozen=True)
class CellStatus:
    """A cell and what its run has come to.

    `stages_done` of `stages_total` are complete. `results` belong to the checkpoint after `measured_stages`; `gap` is
    there once the run was analyzed. `mark` is the data's: verified, unverified or own, or None before there is a run.
    `deviations` say in what the figure is not what the paper did. `problem` says why the directory can't be used as
    this cell's run; the rest is then empty.
    """

    cell: Cell
    stages_done: int
    stages_total: int
    begun: bool = False
    pruned: bool = False
    mark: Mark | None = None
    results: ResultsRecord | None = None
    gap: Gap | None = None
    deviations: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def measured_stages(self) -> int | None:
        """Stages after which the figure was measured."""
        return self.results["stages_done"] if self.results else None

    @property
    def nll(self) -> float | None:
        """Test NLL in nats; None where it was not measured, or is not finite."""
        return self.results["test"]["nll"] if self.results else None

    @property
    def stderr(self) -> float | None:
        """Its standard error over examples."""
        return self.results["test"]["stderr"] if self.results else None

    @property
    def active(self) -> str:
        """Active units, `26+7`, h_1 first."""
        return "+".join(map(str, self.results["active_units"])) if self.results else ""

    @property
    def complete(self) -> bool:
        """Whether every stage of the paper's schedule was trained and measured."""
        return self.measured_stages == self.stages_total

    @property
    def is_reproduction(self) -> bool:
        """Trained and measured as the paper did, on its data: only then may the figure stand for the paper's."""
        return self.results is not None and not self.deviations

    @property
    def published(self) -> Published | None:
        """The paper's figure, where ours is, or will be, from the same data."""
        return self.cell.published if self.mark in (None, "verified") else None

    @property
    def published_gap(self) -> float | None:
        """The largest gap that the paper reports on this data, in nats."""
        return paper_gap(self.cell.config.dataset, self.mark or "verified")

    @property
    def data(self) -> str:
        """The name of the data, as figures from it are to be called."""
        return shown_name(self.cell.config.dataset, self.mark)

    @property
    def measured_early(self) -> bool:
        """Whether the figure is older than the stage that was reached."""
        return self.results is not None and self.measured_stages != self.stages_done

    def measured_as(self, options: MeasureOptions) -> bool:
        """Whether the figure and the gap are there, from at least the samples and examples that are asked for."""
        if self.results is None or self.gap is None:
            return False
        samples, examples = options.test_samples, options.examples_for(self.cell.config)
        return self.gap.num_samples >= samples and all(
            measured_enough(measured, samples, examples) for measured in (self.results["test"], self.gap.test)
        )


def status_of(cell: Cell, results_dir: Path) -> CellStatus:
    """Reads a cell's run, if there is one. Whatever lies in its place, this returns: see `CellStatus.problem`."""
    run = Run(cell.directory(results_dir))
    empty = CellStatus(cell, 0, len(cell.config.full_schedule()))
    try:
        return _read(run, empty)
    except IWAEError as error:
        return replace(empty, problem=str(error))
    except OSError as error:
        return replace(empty, problem=f"{error.filename or run.path}: {error.strerror or error}")


def _read(run: Run, empty: CellStatus) -> CellStatus:
    if not run.exists:
        return empty
    differences = run.differences(empty.cell.config)
    if differences:
        raise IWAEError(f"{run.path} is another run than the paper's ({'; '.join(differences)}): move it elsewhere")
    results = run.results()
    return replace(
        empty,
        begun=True,
        pruned="pruned" in run.record,
        stages_done=max(run.stage_checkpoints(), default=0),
        mark=run.data["mark"],
        results=results,
        gap=_gap(run, results) if results else None,
        deviations=tuple(deviations(run.config, run.record, results)) if results else (),
    )


def _gap(run: Run, results: ResultsRecord) -> Gap | None:
    """The gap of the weights that were measured, if they were analyzed. A damaged analysis is made again."""
    path = run.path / "analysis" / "analysis.json"
    if not path.is_file():
        return None
    try:
        analysis = read_json(path, GapAnalysis, "it is made again")
    except IWAEError:
        return None
    value = analysis["gap"]["value"]
    if value is None or analysis["weights_sha256"] != results["weights_sha256"]:
        return None
    return Gap(value, analysis["gap"]["stderr"], analysis["test"], analysis["train"])


def source_stages(cell: Cell, results_dir: Path) -> tuple[int, int]:
    """How many stages the run that a cell starts from has done, and how many it needs; (0, 0) without a source.

    A run that is there but is not the paper's, or can't be read, has done none.
    """
    if cell.source is None:
        return 0, 0
    source = Cell("1", cell.source, cell.published)
    status = status_of(source, results_dir)
    return (0 if status.pruned else status.stages_done), status.stages_total


def figure(value: float, stderr: float | None, *, sign: bool = False) -> str:
    """`84.78 ± 0.24`; with `sign`, `+0.31 ± 0.35`."""
    text = f"{value:+.2f}".replace("-", "−") if sign else f"{value:.2f}"
    return text if stderr is None else f"{text} ± {stderr:.2f}"


def model_text(status: CellStatus) -> str:
    """`iwae`, or `vae→iwae` for one that starts from the other."""
    config, source = status.cell.config, status.cell.source
    return str(config.model) if source is None else f"{source.model}→{config.model}"


def paper_text(status: CellStatus) -> str:
    """`84.78 (25)`: the paper's figure, where ours can stand beside it."""
    published = status.published
    if published is None:
        return NONE
    return f"{published.nll:.2f}" + (f" ({published.active})" if published.active else "")


def ours_text(status: CellStatus, mark: str) -> str:
    """`84.78 ± 0.24`, with `mark` where the figure is no reproduction; nothing before it is measured."""
    if status.problem is not None:
        return UNREADABLE
    if status.results is None:
        return ""
    text = "not finite" if status.nll is None else figure(status.nll, status.stderr)
    return text if status.is_reproduction else text + mark


def gap_text(status: CellStatus, mark: str) -> str:
    """`+0.31 ± 0.35`, with `mark` where the gap was measured on less than the paper's."""
    if status.gap is None:
        return ""
    return figure(status.gap.value, status.gap.stderr, sign=True) + (mark if status.gap.deviation else "")


def row(status: CellStatus) -> tuple[str, ...]:
    """One line of text cells under `HEADINGS`."""
    config = status.cell.config
    early = f" (after stage {status.measured_stages})" if status.measured_early else ""
    return (
        status.data,
        model_text(status),
        str(config.k),
        str(config.layers),
        paper_text(status),
        ours_text(status, f" {PARTIAL}") + early,
        status.active,
        gap_text(status, f" {PARTIAL}"),
        NONE if status.published_gap is None else f"up to {status.published_gap:g}",
        str(config.seed),
        f"{status.stages_done}/{status.stages_total}",
    )


def to_markdown(statuses: Sequence[CellStatus]) -> str:
    """A Markdown table, and below it why some figures are marked. What comes from files is only text in it."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    lines += ["| " + " | ".join(map(_markdown, row(status))) + " |" for status in statuses]
    remarks = [_markdown(remark) for remark in notes(statuses, PARTIAL)]
    return "\n".join([*lines, *([""] if remarks else []), *(f"- {remark}" for remark in remarks)])


def _markdown(text: str) -> str:
    return printable(text).replace("|", "\\|").replace("<", "&lt;")


def notes(statuses: Sequence[CellStatus], mark: str) -> list[str]:
    """What must be read with a table, a line each: why figures carry `mark`, and what could not be read."""
    counts: dict[str, int] = {}
    for status in statuses:
        gap = [status.gap.deviation] if status.gap and status.gap.deviation else []
        for deviation in [*status.deviations, *gap]:
            counts[deviation] = counts.get(deviation, 0) + 1
    lines = [f"{mark}: {reason} ({counted(count, 'run')})" for reason, count in counts.items()]
    return lines + [f"{UNREADABLE}: {status.problem}" for status in statuses if status.problem is not None]


def to_json(statuses: Sequence[CellStatus]) -> list[dict[str, Any]]:
    """One object a cell, every figure as a number. `published` is null where ours is from other data."""
    return [_to_json(status) for status in statuses]


def _to_json(status: CellStatus) -> dict[str, Any]:
    gap, test = status.gap, status.results["test"] if status.results else {}
    figures = ("nll", "stderr", "num_samples", "num_examples", "split_examples")
    return {
        "table": status.cell.table,
        "config": status.cell.config.to_json(),
        "published": asdict(status.published) if status.published else None,
        "stages_done": status.stages_done,
        "stages_total": status.stages_total,
        "complete": status.complete,
        "is_reproduction": status.is_reproduction,
        "deviations": list(status.deviations),
        "problem": status.problem,
        "data": status.data,
        "data_mark": status.mark,
        "measured_stages": status.measured_stages,
        **{name: test.get(name) for name in figures},
        "active_units": status.results["active_units"] if status.results else None,
        "gap": gap
        and {
            "value": gap.value,
            "stderr": gap.stderr,
            "num_samples": gap.num_samples,
            "test_examples": gap.test["num_examples"],
            "train_examples": gap.train["num_examples"],
            "deviation": gap.deviation,
        },
        "published_gap": status.published_gap,
    }
