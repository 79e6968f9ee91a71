"""Certifying a run's figures: bounds of log p(x) from both sides on simulated data, and the same budgets on the test
set. What is done is kept: an interrupted certificate goes on.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np

from iwae.data import Dataset
from iwae.errors import IWAEError, check_count
from iwae.evaluation.bidirectional import Bracket, annealed_bracket, importance_brackets, simulate
from iwae.evaluation.chains import AnnealedSettings, check_latents
from iwae.evaluation.likelihood import check_ks
from iwae.io.files import check_writable, write_arrays, write_json
from iwae.io.json import Count, Positive, Real, finite_or_none
from iwae.models.vae import HierarchicalVAE
from iwae.runs.anneal import (
    anneal_checkpoint,
    find_annealed,
    name_of_settings,
    remove_unfinished,
    unfinished_path,
)
from iwae.runs.checkpoint import Checkpoint
from iwae.runs.config import check_seed
from iwae.runs.directory import Run
from iwae.runs.evaluate import evaluate_ladder, provenance, read_kept
from iwae.runs.records import AnnealedRecord, Measured, Provenance
from iwae.runs.reporter import Reporter


class BudgetRecord(TypedDict):
    """One budget of a certificate: means over simulated examples of the bounds of log p(x) in nats, their gap, and the
    NLL of test examples. `steps` is 0 for importance sampling, whose `samples` are k; else these are chains.
    """

    method: Literal["importance", "ais"]
    samples: Positive
    steps: Count
    lower: Real | None
    upper: Real | None
    gap: Real | None
    gap_stderr: Real | None
    test_nll: Real | None
    test_stderr: Real | None


class CertificateRecord(Provenance):
    """A JSON file in `evaluations/` of `iwae certify`."""

    method: Literal["certify"]
    num_examples: Positive
    test_examples: Positive
    chains: Positive
    leapfrogs: Positive
    start: Literal["encoder", "prior"]
    seed: Count
    budgets: list[BudgetRecord]
    conclusion: str


@dataclass(frozen=True)
class Certificate:
    """What `certify_checkpoint` found and wrote; `warnings` say what speaks against it."""

    record: CertificateRecord
    path: Path
    warnings: list[str]


def certify_checkpoint(
    run: Run,
    checkpoint: Checkpoint,
    dataset: Dataset,
    *,
    samples: Sequence[int] = (50, 500, 5000),
    steps: Sequence[int] = (10, 30, 100),
    settings: AnnealedSettings,
    examples: int = 100,
    reporter: Reporter,
) -> Certificate:
    """Brackets of log p(x) of `examples` examples that are simulated from the model, by L_k for each k of `samples` and
    by AIS with each of `steps`, otherwise as `settings` say; then L_k and AIS of as many test examples. Written to
    `evaluations/<checkpoint>-certify-<examples>-<chains>x<leapfrogs>.json`.

    After every budget what is done is kept: the same call goes on from there, and ends in the same figures.

    Raises IWAEError for binary latents and numbers without meaning, and OSError where a file can't be written.
    """
    check_seed(settings.seed)
    check_count("examples", examples)
    if not steps:
        raise IWAEError("`steps` must be one or more numbers of temperatures, got none")
    ks, budgets = check_ks(samples, "samples"), [replace(settings, steps=count) for count in sorted(set(steps))]
    model = checkpoint.model()
    check_latents(model)
    check_writable(run.evaluations_path)
    start, found = time.perf_counter(), []
    name = name_of_settings(
        f"{checkpoint.path.stem}-certify-{examples}-{settings.chains}x{settings.leapfrogs}", settings
    )
    path = run.evaluations_path / f"{name}.json"
    unfinished = unfinished_path(path, checkpoint)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for bracket in _brackets(model, ks, budgets, examples, unfinished):
            found.append(bracket)
            reporter.measuring("bounds on simulated data", len(found), len(ks) + len(budgets))
    said = [str(warning.message) for warning in caught if warning.category is UserWarning]
    measured: list[Measured | AnnealedRecord] = [
        rung.to_json()
        for rung in evaluate_ladder(
            run, checkpoint, dataset, "test", samples=ks, seed=settings.seed, examples=examples, reporter=reporter
        )
    ]
    how = {"examples": min(examples, len(dataset.test)), "reporter": reporter}
    for budget in budgets:
        before = find_annealed(run, checkpoint, dataset, "test", budget, how["examples"])
        if before is None:
            before = anneal_checkpoint(run, checkpoint, dataset, "test", settings=budget, **how)
            said += [before.warning] if before.warning else []
        measured.append(before.record)
    rows = [_budget_record(bracket, one) for bracket, one in zip(found, measured, strict=True)]
    record: CertificateRecord = {
        "method": "certify",
        "num_examples": examples,
        "test_examples": measured[-1]["num_examples"],
        "chains": settings.chains,
        "leapfrogs": settings.leapfrogs,
        "start": settings.start,
        "seed": settings.seed,
        "budgets": rows,
        "conclusion": conclusion(rows[len(ks) - 1], rows[-1], measured[-1]["num_examples"]),
        **provenance(checkpoint, dataset, seconds=round(time.perf_counter() - start, 3)),
    }
    write_json(path, record)
    remove_unfinished(unfinished)
    return Certificate(record, path, list(dict.fromkeys(said)))


def _brackets(
    model: HierarchicalVAE, ks: Sequence[int], budgets: Sequence[AnnealedSettings], examples: int, unfinished: Path
) -> Iterator[Bracket]:
    """The brackets of every budget, of which those are made that `unfinished` does not have."""
    seed, chains = budgets[0].seed, budgets[0].chains
    kinds = [*(("importance", k, 0) for k in ks), *(("ais", chains, budget.steps) for budget in budgets)]
    done = _done(unfinished, [_key(*kind, side) for kind in kinds for side in ("lower", "upper")], examples)
    x, exact = simulate(model, examples, seed)
    for number, kind in enumerate(kinds):
        if _key(*kind, "upper") not in done:
            if kind[0] == "importance":
                made = importance_brackets(model, x, exact, ks, seed)
            else:
                made = [annealed_bracket(model, x, exact, budgets[number - len(ks)])]
            for one in made:
                sides = {"lower": one.lower, "upper": one.upper}
                done |= {_key(one.method, one.samples, one.steps, side): sides[side] for side in sides}
            write_arrays(unfinished, np.savez, **done)
        yield Bracket(*kind, done[_key(*kind, "lower")], done[_key(*kind, "upper")])  # pyright: ignore[reportArgumentType]


def _key(method: str, samples: int, steps: int, side: str) -> str:
    return f"{method}-{samples}-{steps}-{side}"


def _done(path: Path, keys: Sequence[str], examples: int) -> dict[str, np.ndarray]:
    """Both sides of what an interrupted certificate has: nothing where there was none, or its file is damaged."""
    arrays = read_kept(path, keys, len(keys) * examples)
    fits = all(array.shape == (examples,) for array in arrays.values())
    return arrays if fits and set(arrays) in (set(keys[:number]) for number in range(0, len(keys) + 1, 2)) else {}


def _budget_record(bracket: Bracket, test: Measured | AnnealedRecord) -> BudgetRecord:
    return {
        "method": bracket.method,
        "samples": bracket.samples,
        "steps": bracket.steps,
        "lower": finite_or_none(float(np.mean(bracket.lower))),
        "upper": finite_or_none(float(np.mean(bracket.upper))),
        "gap": finite_or_none(bracket.gap),
        "gap_stderr": finite_or_none(bracket.stderr),
        "test_nll": test["nll"],
        "test_stderr": test["stderr"],
    }


def conclusion(importance: BudgetRecord, annealed: BudgetRecord, test_examples: int) -> str:
    """One sentence: what is certified of the largest budgets, and what holds on the test set."""

    def figure(value: float | None, error: float | None = None) -> str:
        shown = "an unknown number of" if value is None else f"{value:.2f}"
        return shown + (f" ± {error:.2f}" if value is not None and error is not None else "")

    name = f"AIS with {annealed['samples']} chains of {annealed['steps']} steps"
    return (
        f"On data simulated from the model, {name} lies no further below log p(x) than its two bounds are apart, on"
        f" average {figure(annealed['gap'], annealed['gap_stderr'])} nats, and L_{importance['samples']} no further"
        f" than {figure(importance['gap'], importance['gap_stderr'])}, up to these standard errors; on"
        f" {test_examples:,} test examples, where nothing but the lower bound holds, the NLL is at most"
        f" {figure(annealed['test_nll'])} nats by AIS and"
        f" {figure(importance['test_nll'])} by L_{importance['samples']}."
    )
