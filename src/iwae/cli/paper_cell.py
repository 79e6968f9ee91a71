"""Cells of the paper's tables, as the process that `iwae paper run` starts for them.

`python -m iwae.cli.paper_cell ORDER`, where ORDER is JSON: `runs` (the configuration of each, by its directory),
`stages`, `measure`, `datasets_dir` and `cores`, those that it may use. Trains the runs together or continues them,
measures them, and analyzes them for the gap between test and training data. Standard input must be a pipe that the
parent holds open: when it closes, the parent is gone, and this process saves and ends as if it had been told to.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from iwae.cli.app import guarded
from iwae.cli.console import make_reporter
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.runs.options import MeasureOptions, TrainOptions


def main(order: str) -> int:
    """Does what `order` asks and returns the exit status, as `iwae train` would."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return guarded(lambda: _run(**json.loads(order)))


def _end_with_parent() -> None:
    # Not through sys.stdin: a lock held in a daemon thread would break the interpreter's end.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _run(
    runs: dict[str, Any], stages: int | None, measure: dict[str, Any], datasets_dir: str | None, cores: list[int]
) -> int:
    if cores:
        # Before JAX counts them.
        os.sched_setaffinity(0, cores)
    from iwae.runs.analyze import AnalyzeOptions, analyze_run
    from iwae.runs.train import train_runs
    from iwae.training.loop import Divergence

    found: dict[str, Any] = {"datasets_dir": Path(datasets_dir) if datasets_dir else None}
    configs = {Path(path): RunConfig.from_json(config) for path, config in runs.items()}
    options, failure = TrainOptions(stages=stages), None
    with make_reporter() as found["reporter"]:
        try:
            train_runs(
                configs,
                options=options,
                measure=MeasureOptions(**measure),
                measure_again=True,
                continue_command="the same iwae paper run",
                **found,
            )
        except Divergence as error:
            # The others are trained and measured.
            failure = error
        for path in configs:
            if (results := Run(path).results()) is not None:
                test = results["test"]
                analysis = AnalyzeOptions(test["num_samples"], test["num_examples"])
                analyze_run(path, options=analysis, checkpoint=results["stages_done"], **found)
    if failure is not None:
        raise failure
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
