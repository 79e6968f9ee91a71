"""`iwae diagnose`. JAX and Matplotlib are imported only when it runs."""

import os
import sys
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from iwae.cli.console import make_reporter, print_lines
from iwae.cli.options import OfRunAndData
from iwae.runs.directory import Run
from iwae.runs.options import DiagnoseOptions


@dataclass(frozen=True)
class Diagnose(OfRunAndData):
    """Measure gradient estimators on a trained run, into RUN/diagnostics/.

    Signal, noise and bias of each; and how even the importance weights are.
    """

    diagnosis: DiagnoseOptions = field(default_factory=DiagnoseOptions)

    def run(self, arguments: list[str]) -> int:
        """Diagnoses, and prints the figures."""
        Run.open(self.path)
        with make_reporter() as reporter:
            from iwae.runs.diagnose import DIRECTORY, FILE, diagnose_run

            # Where a custom estimator's module is looked for, as Python does for a script.
            sys.path.insert(0, os.getcwd())
            found = diagnose_run(
                self.path,
                options=self.diagnosis,
                checkpoint=self.checkpoint,
                dataset=self.dataset,
                datasets_dir=self.datasets_dir,
                reporter=reporter,
            )
        console = Console()
        for group in ("encoder", "decoder"):
            console.print(_table(group, found))
        weights = found["weights"]
        shape = weights["pareto_k"]
        sizes = ", ".join(f"{size:.1f} of {k}" for k, size in weights["effective_sample_size"].items())
        lines = [
            "noise: the root of the total variance; ratio: |mean| over noise.",
            "|bias|: distance of the expectation from the objective's gradient at that k.",
            f"to k={found['options']['reference_k']}: its distance from the gradient at that k.",
            "~: what can't be told from zero, and is below the figure.",
            f"Effective sample size, mean of {weights['examples']} test examples: {sizes}",
        ]
        if shape["median"] is not None:
            lines.append(
                f"Pareto k-hat, from {weights['num_samples']} samples: median {shape['median']:.2f},"
                f" above {shape['limit']:.2f} for {shape['share_above_limit']:.0%} of {shape['examples']} examples"
            )
        lines.append(f"Written: {self.path / DIRECTORY / FILE}")
        print_lines(*lines)
        return 0


def _table(group: str, record: dict[str, Any]) -> Table:
    """Norm of the expectation, root of the variance, their ratio and the biases, one row an estimator and k."""
    title = f"Gradient of the {group}, {record['gradient_examples']} test examples"
    table = Table(title=title, title_justify="left")
    headings = ("estimator", "k", "|mean|", "noise", "ratio", "|bias|", f"to k={record['options']['reference_k']}")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "estimator" else "right")
    for one in record["gradients"]:
        found = one[group]
        ratio = found["signal_to_noise"]
        table.add_row(
            one["estimator"],
            str(one["k"]),
            f"{found['mean_norm']:.3g}",
            f"{found['variance'] ** 0.5:.3g}",
            "no noise" if ratio is None else f"{ratio:.3g}",
            _gap_label(found["bias"]),
            _gap_label(found["to_large_k"]),
        )
    return table


def _gap_label(gap: dict[str, Any]) -> str:
    return f"{gap['norm']:.2g}" if gap["is_visible"] else f"~ {gap['resolution']:.2g}"
