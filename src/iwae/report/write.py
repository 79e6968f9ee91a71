"""The report of some runs: analyzes what is not analyzed yet, and writes the page."""

from collections.abc import Sequence
from pathlib import Path

from iwae.errors import IWAEError
from iwae.io.files import write_atomically
from iwae.report.comparison import Analyzed
from iwae.report.embedding import picture_path
from iwae.report.page import render
from iwae.runs.analyze import DIRECTORY, FILE, FORMAT, AnalyzeOptions, analyze_run, run_name
from iwae.runs.directory import RunDirectory
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
    whose newest checkpoint is not analyzed yet (or not with the `samples` and `examples` of `options`) is
    analyzed first. `dataset` is where one's own data is now, if it has moved since training.

    Raises IWAEError, in one line, for what is no run, or where `out` can't be written; see `analyze_run` too.
    """
    options, reporter = options or AnalyzeOptions(), reporter or Reporter()
    unique = list(dict.fromkeys(Path(path) for path in paths))
    if not unique:
        raise IWAEError("a report needs at least one run's directory")
    target = Path(out) if out is not None else (unique[0] / NAME if len(unique) == 1 else Path(NAME))
    for path in unique:
        RunDirectory(path).read_record()
    # Before minutes of measuring, not after.
    if target.is_dir() or not target.parent.is_dir():
        what = "is a directory" if target.is_dir() else f"cannot be written: there is no directory {target.parent}"
        raise IWAEError(f"{target} {what}; choose another --out")
    names = [run_name(path) for path in unique]
    runs = []
    for path, name in zip(unique, names, strict=True):
        run = RunDirectory(path)
        analysis = current_analysis(run, options)
        if analysis is None:
            reporter.message(f"Analyzing {path}.")
            moved = dataset if run.config.dataset.endswith((".npy", ".npz")) else None
            analysis = analyze_run(path, options=options, dataset=moved, datasets_dir=datasets_dir, reporter=reporter)
        metrics = [line for line in run.read_metrics() if line["step"] <= analysis["step"]]
        shown = name if names.count(name) == 1 else str(path)
        runs.append(Analyzed(path, _as_utf8(shown).decode(), run.read_record(), analysis, metrics))
    write_atomically(target, _as_utf8(render(runs)))
    return target


def _as_utf8(text: str) -> bytes:
    """Bytes of file names that are no UTF-8, which Python keeps as lone surrogates, become escapes."""
    return text.encode(errors="backslashreplace")


def current_analysis(run: RunDirectory, options: AnalyzeOptions) -> AnalysisRecord | None:
    """The analysis in the run's directory if it is of the newest checkpoint, intact, complete, and made with what
    `options` ask for; None otherwise.

    Raises IWAEError where a picture that it names is not a file beside it.
    """
    path = run.path / DIRECTORY / FILE
    if not path.is_file():
        return None
    try:
        analysis = read_checked(path, AnalysisRecord, "it is made anew")
    except IWAEError:
        return None
    test = analysis["test"]
    as_asked = options.samples in (None, test["num_samples"]) and (
        options.examples is None or min(options.examples, test["split_examples"]) == test["num_examples"]
    )
    if analysis["format"] != FORMAT or not as_asked:
        return None
    if not all(picture_path(run.path, name).exists() for name in analysis["pictures"].values()):
        return None
    return analysis if analysis["weights_sha256"] == run.newest_checkpoint().weights_digest() else None
