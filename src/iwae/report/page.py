"""One self-contained HTML page about one or several analyzed runs."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from iwae.figures import charts
from iwae.paper.cells import published
from iwae.paper.reproduction import FindPublished
from iwae.report import labels
from iwae.report.captions import CAPTIONS
from iwae.report.comparison import Analyzed, number_rows, training_rows
from iwae.report.embedding import PictureView, picture, read_picture
from iwae.runs.analyze import DIRECTORY, training_curve
from iwae.training.schedule import schedule_to_json
from iwae.version import __version__

if TYPE_CHECKING:
    from jinja2 import Template

LIMIT = 5_000_000
# What the page may need besides pictures: its text and tables.
RESERVE = 300_000

CURVES_CAPTION = (
    "The mean training bound of every epoch, for all runs. The bounds of a VAE and an IWAE, those of different k, and"
    " those on different data are different quantities: look at when each levels off, not at which is higher."
)


@dataclass
class RunView:
    """A run's part of the page: `explorer` is the address of its latent explorer, where there is one, and `missing` has
    the headings of pictures that are not there, by the reason.
    """

    name: str
    verdict: str
    deviations: list[str]
    commands: str
    remarks: list[str]
    explorer: str | None
    pictures: list[PictureView] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=dict)


def render(runs: Sequence[Analyzed], *, find: FindPublished = published) -> str:
    """The page's HTML: fewer than 5 MB, with nothing to load from anywhere.

    Where the pictures of many runs would pass that size, later ones are left out, and the page says so.

    Raises IWAEError, naming the file, for a picture that is not an intact PNG in its analysis, and OSError when one
    can't be read.
    """
    curves = _comparison(runs) if len(runs) > 1 else None
    views = [_run_view(run) for run in runs]
    _embed_pictures(runs, views, LIMIT - RESERVE - (len(curves.uri) if curves else 0))
    title = f"{runs[0].name}: {labels.objective(runs[0].config)}, on {runs[0].data_name}"
    page = {
        "title": title if len(runs) == 1 else f"{len(runs)} runs side by side",
        "names": [run.name for run in runs],
        "training": training_rows(runs),
        "numbers": number_rows(runs, find),
        "curves": curves,
        "runs": views,
        "version": __version__,
    }
    return template("page.html").render(page=page, css=style()).lstrip() + "\n"


def style() -> str:
    """The style sheet of all pages."""
    return files("iwae.report").joinpath("page.css").read_text(encoding="utf-8")


@cache
def template(name: str) -> "Template":
    """The template of that name, beside this file. Needs jinja2."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["unbroken"] = lambda text: text.replace("k = ", "k\u00a0=\u00a0")
    return environment.from_string(files("iwae.report").joinpath(name).read_text(encoding="utf-8"))


def _comparison(runs: Sequence[Analyzed]) -> PictureView | None:
    curves = [training_curve(run.name, run.metrics, run.record["schedule"]) for run in runs]
    drawn = [curve for curve in curves if curve]
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
    analysis, pruned = run.analysis, run.record.get("pruned")
    commands = [
        *labels.making_commands(run.path, pruned, run.config, analysis),
        labels.analyze_command(run.path, analysis),
        shlex.join(["iwae", "report", str(run.path)]),
    ]
    remarks = []
    if run.record["schedule"] != schedule_to_json(run.config.full_schedule()):
        stages = ", ".join(f"{stage['epochs']} at {stage['learning_rate']:g}" for stage in run.record["schedule"])
        remarks.append(
            f"The {run.config.schedule} schedule was another one when this run was trained (epochs at learning rate:"
            f" {stages}), so this version's command gives other weights."
        )
    return RunView(run.name, verdict, deviations, "\n".join(commands), remarks, run.explorer)


def _embed_pictures(runs: Sequence[Analyzed], views: Sequence[RunView], room: int) -> None:
    """Fills the runs' pictures kind by kind, so that when there is no more room all runs have the first kinds."""
    for kind, caption in CAPTIONS.items():
        for run, view in zip(runs, views, strict=True):
            name, reason = run.analysis["pictures"].get(kind), run.analysis["skipped"].get(kind, "not drawn")
            if name is not None:
                made = read_picture(run.path, name, caption.heading, caption.caption, caption.alt(run.analysis))
                if len(made.uri) <= room:
                    room -= len(made.uri)
                    view.pictures.append(made)
                    continue
                reason = f"left out to keep this page small; see {run.path / DIRECTORY}"
            view.missing.setdefault(reason, []).append(caption.heading)
