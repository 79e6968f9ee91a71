"""`iwae evaluate`: a run's likelihood on a split. JAX is imported only when it runs."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from iwae.cli import tables
from iwae.cli.app import with_dashes
from iwae.cli.console import make_reporter, print_lines, told_when_stopped
from iwae.cli.options import Integers, OfRunAndData
from iwae.cli.processes import On, SlurmOptions, check_place, sbatch_options
from iwae.data import Dataset
from iwae.errors import IWAEError, check_count
from iwae.io.json import finite_or_none
from iwae.runs.directory import Run
from iwae.runs.reporter import Reporter

if TYPE_CHECKING:
    from iwae.evaluation.chains import AnnealedSettings
    from iwae.runs.checkpoint import Checkpoint
    from iwae.runs.parts import Shard, Waiting

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
    shard: str | None = None
    """i/n, such as 1/8: measure only the i-th of n parts of the examples; the last one joins them all."""
    on: On = "local"
    """Here, or in parts as jobs of a Slurm cluster."""
    shards: int | None = None
    """With --on slurm: into how many parts to cut the examples (default: 1)."""
    jobs: int | None = None
    """With --on slurm: how many parts to measure at once (default: as many as it lets)."""
    slurm: SlurmOptions = ()
    """Options of sbatch for the jobs, such as partition=gpu,time=4:00:00,gres=gpu:1."""

    def run(self, arguments: list[str]) -> int:
        """Measures, prints and writes the measurement."""
        self._check_options()
        run = Run.open(self.path)
        with make_reporter() as reporter:
            from iwae.runs.data import run_dataset

            checkpoint = run.checkpoint(self.checkpoint)
            lines = self._other_rows(run, checkpoint, reporter)
            if lines is None and self.on == "slurm":
                lines = self._submitted(run, checkpoint)
            if lines is None:
                dataset = run_dataset(run, self.datasets_dir, reporter, self.dataset)
                run.create()
                measure = self._importance if self.method == "importance" else self._annealed
                lines = measure(run, checkpoint, dataset, reporter)
        print_lines(*lines)
        return 0

    def _check_options(self) -> None:
        """Raises IWAEError for an option of the other method, or of the other place."""
        check_place(self.on, self.slurm)
        wrong = ("shard",) if self.on == "slurm" else ("shards", "jobs")
        for name in (name for name in wrong if getattr(self, name) is not None):
            instead = "`shards` 8 says how many" if self.on == "slurm" else "`shard` 1/8 measures a part here"
            raise IWAEError(f"`{name}` goes with `on` {'local' if self.on == 'slurm' else 'slurm'}: {instead}")
        for name in ("shards", "jobs"):
            check_count(name, getattr(self, name), optional=True)
        other, names = ("importance", ("samples",)) if self.method == "ais" else ("ais", AIS_OPTIONS)
        for name in names:
            if getattr(self, name) != getattr(Evaluate, name):
                raise IWAEError(f"`{name}` goes with `method` {other}, and this is {self.method}: leave it out")

    def _other_rows(self, run: Run, checkpoint: "Checkpoint", reporter: Reporter) -> list[str] | None:
        from iwae.evaluation.annealed import low_acceptance
        from iwae.evaluation.likelihood import Likelihoods
        from iwae.runs.evaluate import weights_figures
        from iwae.runs.score import has_other_rows, score_file

        if self.dataset is None or not has_other_rows(run, self.dataset):
            if self.dataset is not None and not self.dataset.exists():
                raise IWAEError(f"`dataset` {self.dataset}: there is no such file; give the path of your own data")
            if self.output is not None:
                raise IWAEError("`output` is for other rows, which `dataset` gives: a split's are in RUN/evaluations")
            return None
        if self._shard is not None:
            raise IWAEError(f"{self.dataset} is not the data of {run.path}: other rows are not measured in parts")
        if len(self.samples) != 1:
            raise IWAEError(
                f"`samples` {','.join(map(str, self.samples))}: other rows are scored with one number of samples"
            )
        (samples,) = self.samples
        how: dict[str, Any] = {"samples": samples, "seed": self.seed, "annealed": self._annealed_settings}
        how |= {"examples": self.examples, "output": self.output, "reporter": reporter}
        found = score_file(run, checkpoint, self.dataset, self.split, **how)
        if isinstance(found, Likelihoods):
            name, stderr, count = f"L_{samples}", found.stderr, samples
            remarks = tables.weights_lines(weights_figures(found))
        else:
            name, stderr, count = "AIS", found.nll_stderr, self.chains
            warning = low_acceptance(found.acceptance)
            remarks = [f"Warning: {with_dashes(warning, ('steps', 'start'))}"] if warning else []
        figure = tables.figure_label(finite_or_none(found.nll), finite_or_none(stderr))
        return [
            f"NLL, {name}: {figure} nats, on {len(found.log_likelihood):,} rows of {self.dataset}",
            f"Mean effective sample size: {found.effective_sample_size.mean():.1f} of {count}",
            *remarks,
            f"Checkpoint: {checkpoint.path}",
            *([] if self.output is None else [f"Per row: {self.output}"]),
        ]

    @property
    def _shard(self) -> "Shard | None":
        from iwae.runs.parts import Shard

        if self.on == "slurm":
            return Shard(1, self.shards or 1)
        return None if self.shard is None else Shard.parse(self.shard)

    def _submitted(self, run: Run, checkpoint: "Checkpoint") -> list[str] | None:
        """Has a cluster measure the parts that are missing; None where all are there."""
        from iwae.runs.orders import CommandOrder
        from iwae.runs.parts import annealed_parts, ladder_parts
        from iwae.runs.slurm import FOLDER, submit_orders

        assert self._shard is not None
        parts_of = annealed_parts if self.method == "ais" else ladder_parts
        parts = parts_of(run, checkpoint, self.split, self._shard, **self._how)
        if parts.is_joined() or not (missing := parts.missing()):
            return None
        directory, count = run.path.resolve(), parts.shard.count
        orders = []
        for index in missing:
            target = parts.directory.resolve() / parts.path(index).stem
            log = directory / FOLDER / f"{target.parent.name.partition('.')[0]}-{target.name}.log"
            orders.append(CommandOrder((*self._words(directory, checkpoint), f"--shard={index}/{count}"), target, log))
        arrays, there = submit_orders(orders, directory, sbatch_options(self.slurm), self.jobs)
        return [
            f"Parts measured: {count - len(missing)} of {count}",
            *([f"In the queue or running already: {len(there)}"] if there else []),
            *([f"Submitted: {len(missing) - len(there)}, Slurm's job {', '.join(arrays)}"] if arrays else []),
            f"What they say: {directory / FOLDER}",
            "The last part joins them. The same command says how far they are, and at the end the figures.",
        ]

    def _words(self, directory: Path, checkpoint: "Checkpoint") -> list[str]:
        """This command without where it is done, of the checkpoint that is the newest now."""
        number = checkpoint.path.stem
        pinned = replace(self, checkpoint=int(number) if number.isdecimal() else None)
        words = ["evaluate", str(directory)]
        for field in fields(self):
            value = getattr(pinned, field.name)
            if field.name in ("path", "on", "shards", "jobs", "slurm") or value == getattr(Evaluate, field.name):
                continue
            text = str(value.resolve()) if isinstance(value, Path) else value
            text = ",".join(map(str, value)) if isinstance(value, tuple) else text
            words.append(f"--{field.name.replace('_', '-')}={text}")
        return words

    @property
    def _annealed_settings(self) -> "AnnealedSettings | None":
        from iwae.evaluation.chains import AnnealedSettings

        if self.method != "ais":
            return None
        return AnnealedSettings(self.chains, self.steps, self.leapfrogs, self.start, self.seed)

    @property
    def _how(self) -> dict[str, Any]:
        """What is asked of the functions that measure by the method."""
        if self.method == "ais":
            examples = AIS_EXAMPLES if self.examples is None else self.examples
            return {"settings": self._annealed_settings, "examples": examples}
        return {"samples": self.samples, "seed": self.seed, "examples": self.examples}

    def _importance(self, run: Run, checkpoint: "Checkpoint", dataset: Dataset, reporter: Reporter) -> list[str]:
        from iwae.runs.evaluate import draw_ladder, evaluate_ladder
        from iwae.runs.parts import Waiting, evaluate_part

        given = (run, checkpoint, dataset, self.split)
        if self._shard is None:
            rungs = evaluate_ladder(*given, reporter=reporter, **self._how)
        elif isinstance(rungs := evaluate_part(*given, self._shard, reporter=reporter, **self._how), Waiting):
            return _waiting_lines(rungs)
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
        from iwae.runs.parts import Waiting, anneal_part

        given = (run, checkpoint, dataset, self.split)
        with told_when_stopped(reporter):
            if self._shard is None:
                result = anneal_checkpoint(*given, reporter=reporter, **self._how)
            elif isinstance(result := anneal_part(*given, self._shard, reporter=reporter, **self._how), Waiting):
                return _waiting_lines(result)
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


def _waiting_lines(found: "Waiting") -> list[str]:
    """What is said of a part that waits for others."""
    parts, numbers = found.parts, ", ".join(map(str, found.missing))
    first, stop = parts.shard.bounds(parts.total, parts.unit)
    others = f"There are also parts of other settings: {', '.join(found.others)}"
    return [
        f"Part {parts.shard.index} of {parts.shard.count}: {stop - first:,} of {parts.total:,} examples are measured",
        f"Missing: part{'s' if len(found.missing) > 1 else ''} {numbers}; the last one that is measured joins them",
        *([others] if found.others else []),
        f"Kept: {parts.path()}",
    ]
