"""`iwae evaluate`: a run's likelihood on a split. JAX is imported only when it runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from iwae.cli import tables
from iwae.cli.app import with_dashes
from iwae.cli.console import make_reporter, print_lines, told_when_stopped
from iwae.cli.options import Integers, OfRunAndData
from iwae.data import Dataset
from iwae.errors import IWAEError
from iwae.runs.directory import Run
from iwae.runs.reporter import Reporter

if TYPE_CHECKING:
    from iwae.evaluation.chains import AnnealedSettings
    from iwae.runs.checkpoint import Checkpoint

AIS_EXAMPLES = 1000
AIS_OPTIONS = ("chains", "steps", "leapfrogs", "start")


@dataclass(frozen=True)
class Evaluate(OfRunAndData):
    """Measure a run's likelihood on a split."""

    dataset: Path | None = None
    """Where your own data is now, if it has moved since training; or other rows like it, an .npy file, an .npz
    archive or a table, which are scored instead. A row's draws depend on --seed and its position in the file."""
    output: Path | None = None
    """With other rows: write each row's figures to this new .npy or .csv file."""
    split: Literal["test", "train", "valid"] = "test"
    """Which examples to measure."""
    method: Literal["importance", "ais"] = "importance"
    """Importance sampling, L_k, or annealed importance sampling, a closer lower bound of log p(x) for more time."""
    samples: Integers = (5000,)
    """Importance samples per example, up to 100,000; for several k, such as 50,500,5000, from the same draws."""
    examples: int | None = None
    """Measure only the first ones (default: all; with --method ais 1,000)."""
    chains: int = 16
    """With --method ais: chains per example."""
    steps: int = 100
    """With --method ais: temperatures that a chain goes through."""
    leapfrogs: int = 10
    """With --method ais: leapfrog steps of the move at each temperature."""
    start: Literal["encoder", "prior"] = "encoder"
    """With --method ais: where chains start."""
    seed: int = 0
    """Seed of the draws."""

    def run(self, arguments: list[str]) -> int:
        """Measures, prints and writes the measurement."""
        self._check_options()
        run = Run.open(self.path)
        with make_reporter() as reporter:
            from iwae.runs.data import run_dataset

            checkpoint = run.checkpoint(self.checkpoint)
            lines = self._other_rows(run, checkpoint, reporter)
            if lines is None:
                dataset = run_dataset(run, self.datasets_dir, reporter, self.dataset)
                run.create()
                measure = self._importance if self.method == "importance" else self._annealed
                lines = measure(run, checkpoint, dataset, reporter)
        print_lines(*lines)
        return 0

    def _check_options(self) -> None:
        """Raises IWAEError for an option of the other method."""
        other, names = ("importance", ("samples",)) if self.method == "ais" else ("ais", AIS_OPTIONS)
        for name in names:
            if getattr(self, name) != getattr(Evaluate, name):
                raise IWAEError(f"`{name}` goes with `method` {other}, and this is {self.method}: leave it out")

    def _other_rows(self, run: Run, checkpoint: "Checkpoint", reporter: Reporter) -> list[str] | None:
        from iwae.evaluation.annealed import low_acceptance
        from iwae.evaluation.likelihood import Likelihoods
        from iwae.runs.evaluate import finite_or_none, weights_figures
        from iwae.runs.score import has_other_rows, score_file

        if self.dataset is None or not has_other_rows(run, self.dataset):
            if self.dataset is not None and not self.dataset.exists():
                raise IWAEError(f"`dataset` {self.dataset}: there is no such file; give the path of your own data")
            if self.output is not None:
                raise IWAEError("`output` is for other rows, which `dataset` gives: a split's are in RUN/evaluations")
            return None
        if len(self.samples) != 1:
            raise IWAEError(
                f"`samples` {','.join(map(str, self.samples))}: other rows are scored with one number of samples"
            )
        (samples,) = self.samples
        how: dict[str, Any] = {"samples": samples, "seed": self.seed, "annealed": self._annealed_settings}
        how |= {"examples": self.examples, "output": self.output, "reporter": reporter}
        found = score_file(run, checkpoint, self.dataset, self.split, **how)
        rows = f"on {len(found.log_likelihood):,} rows of {self.dataset}"
        written = [] if self.output is None else [f"Per row: {self.output}"]
        if isinstance(found, Likelihoods):
            figure = tables.figure_label(finite_or_none(found.nll), finite_or_none(found.stderr))
            size = f"{found.mean_effective_sample_size:.1f} of {samples}"
            lines = [f"NLL, L_{samples}: {figure} nats, {rows}", f"Mean effective sample size: {size}"]
            lines += tables.weights_lines(weights_figures(found))
        else:
            figure = tables.figure_label(finite_or_none(found.nll), finite_or_none(found.nll_stderr))
            size = f"{found.effective_sample_size.mean():.1f} of {self.chains}"
            lines = [f"NLL, AIS: {figure} nats, {rows}", f"Mean effective sample size: {size}"]
            if (warning := low_acceptance(found.acceptance)) is not None:
                lines.append(f"Warning: {with_dashes(warning, ('steps', 'start'))}")
        return [*lines, f"Checkpoint: {checkpoint.path}", *written]

    @property
    def _annealed_settings(self) -> "AnnealedSettings | None":
        from iwae.evaluation.chains import AnnealedSettings

        if self.method != "ais":
            return None
        return AnnealedSettings(self.chains, self.steps, self.leapfrogs, self.start, self.seed)

    def _importance(self, run: Run, checkpoint: "Checkpoint", dataset: Dataset, reporter: Reporter) -> list[str]:
        from iwae.runs.evaluate import draw_ladder, evaluate_ladder

        options = {"samples": self.samples, "seed": self.seed, "examples": self.examples}
        rungs = evaluate_ladder(run, checkpoint, dataset, self.split, reporter=reporter, **options)
        lines = []
        for result in rungs:
            record, k = result.to_json(), result.likelihoods.num_samples
            lines += [
                f"{self.split} NLL, L_{k}: {tables.measured_label(record, self.split, run.data)}",
                f"Examples: {record['num_examples']:,}",
                f"Mean effective sample size: {result.likelihoods.mean_effective_sample_size:.1f} of {k}",
                *tables.weights_lines(record),
                f"Written: {result.path}",
                f"Per example: {result.npz_path}",
            ]
        if len(rungs) > 1:
            try:
                picture, count = draw_ladder(run, checkpoint, self.split, rungs)
                lines.append(f"NLL over k, of {count:,} examples: {picture}")
            except IWAEError as error:
                lines.append(f"No picture of NLL over k: {error}")
        return [*lines, f"Checkpoint: {checkpoint.path}"]

    def _annealed(self, run: Run, checkpoint: "Checkpoint", dataset: Dataset, reporter: Reporter) -> list[str]:
        from iwae.runs.anneal import anneal_checkpoint

        settings = self._annealed_settings
        assert settings is not None
        examples = AIS_EXAMPLES if self.examples is None else self.examples
        how = {"settings": settings, "examples": examples}
        with told_when_stopped(reporter):
            result = anneal_checkpoint(run, checkpoint, dataset, self.split, reporter=reporter, **how)
        record = result.record
        if result.warning is not None:
            reporter.message(f"Warning: {with_dashes(result.warning, ('steps', 'start'))}")
        return [
            f"{self.split} NLL, AIS: {tables.measured_label(record, self.split, run.data)}",
            "Standard error over chains alone: one chain has none, give --chains 2 or more"
            if self.chains == 1
            else f"Standard error over chains alone: {tables.number_label(record['chain_stderr'])} nats",
            f"Chains: {self.chains} of {self.steps} steps from the {self.start}, acceptance"
            f" {tables.number_label(record['acceptance'])}, mean effective sample size"
            f" {tables.number_label(record['mean_effective_sample_size'])}",
            f"Checkpoint: {checkpoint.path}",
            f"Written: {result.path}",
            f"Per example: {result.path.with_suffix('.npz')}",
        ]
