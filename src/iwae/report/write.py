"""The report of some runs: analyzes what is not analyzed well enough yet, and writes the page."""

from collections.abc import Sequence
from pathlib import Path

from iwae.data import is_own
from iwae.errors import IWAEError, needs_extra
from iwae.explore.write import as_utf8, check_output, explorer_link
from iwae.io.files import write_atomically
from iwae.report.comparison import Analyzed
from iwae.report.embedding import picture_path
from iwae.report.page import render
from iwae.runs.analyze import DIRECTORY, FILE, FORMAT, AnalyzeOptions, analyze_run, run_name
from iwae.runs.directory import Run
from iwae.runs.records import AnalysisRecord, read_checked
from iwae.runs.reporter import Reporter

NAME = "report.html"


def write_report(
    paths: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    options: AnalyzeOptions | None = None,
    dataset: Path | None = None,
    datasets_dir: Path | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Writes one HTML page about some runs and returns its path.

    `out` is by default `report.html` in the run's directory, or for several runs in the working directory. A run
    whose newest checkpoint is not analyzed yet, or with fewer samples or examples than `options` ask for, is analyzed
    first, in nothing less thoroughly than it was. `dataset` is where custom data is now, if it has moved since
    training. A run's explore.html, where there is one, is linked.

    Raises IWAEError, in one line, for what is not a run, where `out` can't be written, or jinja2 is not installed; see
    `analyze_run` too.
    """
    needs_extra("jinja2", "report")
    options, reporter = options or AnalyzeOptions(), reporter or Reporter()
    unique = list(dict.fromkeys(Path(path) for path in paths))
    if not unique:
        raise IWAEError("a report needs at least one run's directory")
    target = Path(out) if out is not None else (unique[0] / NAME if len(unique) == 1 else Path(NAME))
    for path in unique:
        Run.open(path)
    # Before minutes of measuring, not after.
    check_output(target, "out")
    names = [run_name(path) for path in unique]
    runs = []
    for path, name in zip(unique, names, strict=True):
        run = Run(path)
        analysis, least = find_analysis(run, options)
        if analysis is None:
            reporter.message(f"Analyzing {path}.")
            moved = dataset if is_own(run.config.dataset) else None
            analysis = analyze_run(path, options=least, dataset=moved, datasets_dir=datasets_dir, reporter=reporter)
        metrics = run.metrics.lines(analysis["step"])
        shown = name if names.count(name) == 1 else str(path)
        link = explorer_link(path, target.parent)
        runs.append(Analyzed(path, as_utf8(shown), run.record, analysis, metrics, link))
    write_atomically(target, as_utf8(render(runs)).encode())
    return target


def find_analysis(run: Run, options: AnalyzeOptions) -> tuple[AnalysisRecord | None, AnalyzeOptions]:
    """The analysis in the run's directory, or None unless it is of the newest checkpoint, intact, complete and good
    enough: made with at least the samples and examples that `options` ask for. With it, what a new one is to have:
    nothing less than one of the same weights that is there, since what is better is never replaced by what is worse.

    Raises IWAEError where a picture that it names is not a file beside it.
    """
    path = run.path / DIRECTORY / FILE
    try:
        analysis = read_checked(path, AnalysisRecord, "it is made anew") if path.is_file() else None
    except IWAEError:
        analysis = None
    if analysis is None or analysis["weights_sha256"] != run.checkpoint().weights_digest():
        return None, options
    test = analysis["test"]
    samples, examples = test["num_samples"], test["num_examples"]
    asked = max(samples, options.samples or 1), max(examples, min(options.examples or 1, test["split_examples"]))
    intact = all(picture_path(run.path, name).exists() for name in analysis["pictures"].values())
    if intact and analysis["format"] == FORMAT and asked == (samples, examples):
        return analysis, options
    return None, AnalyzeOptions(*asked)
