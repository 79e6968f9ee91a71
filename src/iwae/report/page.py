"""One self-contained HTML page about one or several analyzed runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from iwae.figures import charts
from iwae.figures.analysis import training_curve
from iwae.paper import published
from iwae.paper.reproduction import FindPublished
from iwae.report import labels
from iwae.report.captions import CAPTIONS
from iwae.report.comparison import Analyzed, Row, number_rows, training_rows
from iwae.report.embedding import PictureView, picture, read_picture
from iwae.runs.analyze import DIRECTORY
from iwae.training.schedule import schedule_to_json
from iwae.version import __version__

LIMIT = 5_000_000
# What the page may need besides pictures: its text and tables.
RESERVE = 300_000

TERMS = {
    "NLL, negative log likelihood": "−L_k: minus the log of the average of k importance weights, averaged over"
    " examples. On average it is an upper bound on the true value, and a close one where k is large. Lower is better."
    " ± is one standard error over examples; it does not include the spread over training seeds.",
    "Gap": "How much worse the model fits test data than as many training examples, both measured with the same k."
    " A gap well above its standard error is overfitting.",
    "Active units": "Units whose posterior mean varies over the data by more than 0.01, layer by layer from the data"
    " upwards. The others carry no information.",
    "Effective sample size": "(Σw)² / Σw², from 1 to k. Where it is near 1, the NLL is an overestimate.",
    "Training bound": "The objective that was maximized. Bounds of different objectives, or of different k, are"
    " different quantities: compare models by their test NLL.",
}
CURVES_CAPTION = (
    "The mean training bound of every epoch, for all runs. The bounds of a VAE and an IWAE, those of different k, and"
    " those on different data are different quantities: look at when each levels off, not at which is higher."
)


@dataclass
class RunView:
    """A run's part of the page."""

    name: str
    verdict: str
    deviations: list[str]
    commands: str
    remarks: list[str]
    pictures: list[PictureView] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """All that the template needs."""

    title: str
    names: list[str]
    training: list[Row]
    numbers: list[Row]
    terms: list[tuple[str, str]]
    curves: PictureView | None
    runs: list[RunView]
    version: str


def render(runs: Sequence[Analyzed], *, find: FindPublished = published) -> str:
    """The page's HTML: fewer than 5 MB, with nothing to load from anywhere.

    Where the pictures of many runs would pass that size, later ones are left out, and the page says so. Raises
    IWAEError, naming the file, for a picture that is no intact PNG in its analysis, and OSError when one can't be read.
    """
    curves = _comparison(runs) if len(runs) > 1 else None
    views = [_run_view(run) for run in runs]
    _embed_pictures(runs, views, LIMIT - RESERVE - (len(curves.uri) if curves else 0))
    title = f"{runs[0].name}: {labels.objective(runs[0].config)}, on {labels.data_name(runs[0].analysis['data'])}"
    page = Page(
        title=title if len(runs) == 1 else f"{len(runs)} runs side by side",
        names=[run.name for run in runs],
        training=training_rows(runs),
        numbers=number_rows(runs, find),
        terms=list(TERMS.items()),
        curves=curves,
        runs=views,
        version=__version__,
    )
    css = files("iwae.report").joinpath("page.css").read_text(encoding="utf-8")
    return _template().render(page=page, css=Markup(css)).lstrip() + "\n"


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["unbroken"] = lambda text: text.replace("k = ", "k\u00a0=\u00a0")
    return environment.from_string(files("iwae.report").joinpath("page.html").read_text(encoding="utf-8"))


def _comparison(runs: Sequence[Analyzed]) -> PictureView | None:
    curves = [training_curve(run.name, run.metrics, run.record["schedule"]) for run in runs]
    drawn = [curve for curve in curves if curve is not None]
    if not drawn:
        return None
    ends = "; ".join(f"{curve.name} ends at {labels.nats(curve.bounds[-1])} nats" for curve in drawn)
    alt = f"Line chart of the training bound by epoch on a logarithmic axis. {ends}."
    return picture(charts.training_chart(drawn), "", CURVES_CAPTION, alt)


def _run_view(run: Analyzed) -> RunView:
    deviations = run.deviations
    trained = "through all eight stages" if run.config.init_from is None else "on from the other objective's weights"
    verdict = (
        "not a reproduction of the paper, because" if deviations else f"trained {trained} and measured as the paper did"
    )
    commands = "\n".join(
        [
            *(
                labels.prune_commands(run.path, pruned, run.config, run.analysis)
                if (pruned := run.record.get("pruned"))
                else [labels.train_command(run.path, run.config, run.analysis)]
            ),
            labels.analyze_command(run.path, run.analysis),
            labels.report_command(run.path),
        ]
    )
    remarks = []
    if run.record["schedule"] != schedule_to_json(run.config.full_schedule()):
        stages = ", ".join(f"{stage['epochs']} at {stage['learning_rate']:g}" for stage in run.record["schedule"])
        remarks.append(
            f"The {run.config.schedule} schedule was another one when this run was trained (epochs at learning rate:"
            f" {stages}), so this version's command gives other weights."
        )
    return RunView(run.name, verdict, deviations, commands, remarks)


def _embed_pictures(runs: Sequence[Analyzed], views: Sequence[RunView], room: int) -> None:
    """Fills the runs' pictures kind by kind, so that when there is no more room all runs have the first kinds."""
    absent: list[dict[str, list[str]]] = [{} for _ in runs]
    for kind, caption in CAPTIONS.items():
        for run, view, reasons in zip(runs, views, absent, strict=True):
            name = run.analysis["pictures"].get(kind)
            if name is None:
                reasons.setdefault(run.analysis["skipped"].get(kind, "not drawn"), []).append(caption.heading)
                continue
            made = read_picture(run.path, name, caption.heading, caption.caption, caption.alt(run.analysis))
            if len(made.uri) > room:
                reason = f"left out to keep this page small; see {run.path / DIRECTORY}"
                reasons.setdefault(reason, []).append(caption.heading)
                continue
            room -= len(made.uri)
            view.pictures.append(made)
    for view, reasons in zip(views, absent, strict=True):
        view.missing = [f"{', '.join(headings)}: {reason}." for reason, headings in reasons.items()]
