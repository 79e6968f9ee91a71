"""Counts in proportion to a given column: their densities against SciPy's, and where the column comes from."""

from pathlib import Path
from typing import Any

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
import scipy.stats

import iwae
from helpers import peers
from iwae.data import load_dataset
from iwae.data.columns import Column, Reading, with_total
from iwae.data.tables import completed, learn_columns, to_frame, to_rows
from iwae.errors import IWAEError
from iwae.evaluation.imputation import check_imputation
from iwae.models.likelihoods import likelihood_from_json, likelihood_of

RNG = np.random.default_rng(0)
EXPOSURE = np.exp(RNG.normal(2, 1, 200)).round(2)
TYPICAL = np.exp(np.log(EXPOSURE).mean())
COUNTS = RNG.poisson(EXPOSURE[:, None] * [0.5, 3.0])
ROWS = np.column_stack([COUNTS, EXPOSURE, RNG.normal(size=200)])


def model_of(kind: str, rows: np.ndarray = ROWS, **options: Any) -> iwae.HierarchicalVAE:
    data = iwae.Dataset.from_arrays(rows, likelihood=f"{kind},2=exposure,3=gaussian")
    return iwae.create_model(data, iwae.Architecture(None, (2,), ((4,),), **options))


@pytest.mark.parametrize("kind", ["poisson", "negative-binomial", "zero-inflated-negative-binomial"])
def test_densities_are_those_of_the_scaled_rates(kind: str) -> None:
    model, h = model_of(kind), RNG.normal(size=(200, 2)).astype(np.float32)
    layer = model.decoder[0]
    at_typical, gaussian = layer(jnp.asarray(h)).parts[0], layer(jnp.asarray(h)).parts[2]
    factor = EXPOSURE[:, None] / TYPICAL
    if kind == "poisson":
        peer: Any = scipy.stats.poisson(np.exp(at_typical.log_rate) * factor)
    else:
        counts = getattr(at_typical, "counts", at_typical)
        shape, mean = np.exp(counts.log_shape), np.exp(counts.log_mean) * factor
        peer = scipy.stats.nbinom(shape, shape / (shape + mean))
        if kind.startswith("zero"):
            peer = peers.ZeroInflated(peer, np.asarray(jax.nn.sigmoid(at_typical.logits)))
    x = model.prepare(jnp.asarray(ROWS, jnp.float32), jax.random.key(0))
    expected = peer.logpmf(COUNTS).sum(axis=1) + np.asarray(gaussian.log_prob(x[:, 3:]))
    np.testing.assert_allclose(layer.log_prob(x, jnp.asarray(h)), expected, rtol=2e-4, atol=2e-3)


def test_a_missing_count_is_filled_in_by_its_rows_exposure() -> None:
    """Of a model whose rates depend on nothing else."""
    whole = model_of("poisson")
    model = eqx.tree_at(lambda m: m.decoder[0].outputs.weight, whole, replace_fn=jnp.zeros_like)
    rates = np.exp(model.decoder[0](jnp.zeros((1, 2))).parts[0].log_rate)[0] / TYPICAL
    np.testing.assert_allclose(rates, [0.5, 3.0], rtol=0.1)
    gaps = ROWS.copy()
    gaps[:, 1] = np.nan
    filled = iwae.impute(model, gaps, num_samples=10)
    np.testing.assert_allclose(filled[:, 1], rates[1] * EXPOSURE, rtol=1e-3)
    np.testing.assert_allclose(iwae.reconstruct(model, ROWS, num_samples=10)[:, 2], EXPOSURE, rtol=1e-5)
    # What is given is not hidden for a check.
    assert check_imputation(model, ROWS, num_samples=10).hidden < 0.2 * ROWS.size
    drawn = iwae.impute_multiple(model, gaps, 30, num_samples=10)[:, :, 1]
    assert abs(drawn.mean() / (rates[1] * EXPOSURE).mean() - 1) < 0.05
    assert np.asarray(model.sample(jax.random.key(0), 3))[:, 2] == pytest.approx(TYPICAL)


def test_it_trains_is_kept_and_goes_with_missing_values(tmp_path: Path) -> None:
    gaps = ROWS.copy()
    gaps[::3, 0] = gaps[1::3, 3] = np.nan
    start = model_of("negative-binomial", gaps, mask="concatenate")
    data = iwae.Dataset.from_arrays(gaps, likelihood="negative-binomial,2=exposure,3=gaussian")
    model = iwae.fit(start, data, iwae.make_estimator("iwae:dreg", k=3), epochs=10, batch_size=50, progress=False)
    before, after = (iwae.log_likelihood(each, gaps, num_samples=20).mean() for each in (start, model))
    assert after > before
    iwae.save(model, tmp_path / "m.safetensors")
    assert iwae.load(tmp_path / "m.safetensors").likelihood == model.likelihood
    assert likelihood_from_json(model.likelihood.to_json()) == model.likelihood


def test_the_rows_totals_can_be_their_exposure(tmp_path: Path) -> None:
    counts = COUNTS + 1
    data = iwae.Dataset.from_arrays(counts, likelihood="poisson,row-total=exposure")
    np.testing.assert_array_equal(data.train, np.column_stack([counts, counts.sum(axis=1)]))
    assert data.likelihood == ("poisson", "poisson", "exposure")
    gaps = np.where([[True, False]] * 100 + [[False, False]] * 100, np.nan, counts)
    assert iwae.Dataset.from_arrays(gaps, likelihood="poisson,row-total=exposure").train[0, 2] == counts[0, 1]
    frame = pl.DataFrame({"a": counts[:, 0], "age": ROWS[:, 3], "b": counts[:, 1]})
    columns = learn_columns({"train": frame}, Reading("a=poisson,b=poisson,row-total=exposure"))
    assert columns[-1] == Column("row-total", "exposure", "real")
    rows = to_rows(frame, columns)
    np.testing.assert_array_equal(rows[:, 3], counts.sum(axis=1))
    assert completed(frame, columns, rows).equals(frame)
    assert to_frame(rows, columns).columns == frame.columns
    np.save(tmp_path / "d.npy", counts)
    assert load_dataset(str(tmp_path / "d.npy"), reading=Reading("row-total=exposure")).likelihood[-1] == "exposure"


@pytest.mark.parametrize("name", ["obs/size", "row-total"])
def test_exposures_of_cells_come_from_the_file(tmp_path: Path, name: str) -> None:
    with h5py.File(tmp_path / "d.h5ad", "w") as file:
        file["X"], file["obs/size"] = COUNTS + 1.0, EXPOSURE
        file.create_group("var").attrs["_index"] = "gene"
        file["var/gene"] = ["g0", "g1"]
    reading = Reading(f"negative-binomial,{name}=exposure", target=("g0",), shuffled=False)
    data = load_dataset(str(tmp_path / "d.h5ad"), reading=reading)
    expected = EXPOSURE if name == "obs/size" else COUNTS[:, 1] + 1
    np.testing.assert_allclose(data.train[:, 1], expected[: len(data.train)], rtol=1e-6)
    assert [column.name for column in data.columns] == ["g1", name]
    with pytest.raises(IWAEError, match=r"not an .h5ad file"):
        load_dataset(str(tmp_path / "d.h5ad"), reading=Reading("poisson,obs/none=exposure"))


@pytest.mark.parametrize(
    ("likelihood", "words"),
    [
        ("gaussian,2=exposure", "an exposure is one column beside columns of counts"),
        ("poisson,1=exposure,2=exposure,3=gaussian", "an exposure is one column beside columns of counts"),
        ("exposure", "an exposure is one column beside columns of counts"),
        ("poisson,2=gaussian,3=exposure", "column '3' of the train split of array has exposures that are no positive"),
        ("gaussian,row-total=exposure", "`likelihood` row-total=exposure needs columns of counts"),
    ],
)
def test_what_can_be_no_exposure_is_refused(likelihood: str, words: str) -> None:
    with pytest.raises(IWAEError, match=words):
        likelihood_of(iwae.Dataset.from_arrays(np.abs(ROWS) * [1, 1, 1, -1], likelihood=likelihood))


def test_rows_without_counts_and_doubled_names_are_refused() -> None:
    counted = [Column("a", "poisson", "integer")]
    with pytest.raises(IWAEError, match="row 2 has a total of 0, which can be no exposure"):
        with_total(np.array([[1], [0]]), counted)
    with pytest.raises(IWAEError, match="a column is called 'row-total'"):
        with_total(np.ones((1, 2)), [*counted, Column("row-total", "poisson", "integer")])
