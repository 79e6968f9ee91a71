"""Plots are matplotlib's figures, of what the library's functions return; what is printed of objects can be read."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import iwae
from helpers.small_runs import go, small_config, write_data

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def likelihoods(k: int, count: int = 40) -> Any:
    from iwae.evaluation.likelihood import Likelihoods

    rng = np.random.default_rng(k)
    tail = rng.normal(0.4, 0.1, count) if k >= 100 else np.full(count, np.nan)
    return Likelihoods(rng.normal(-20, 1, count), rng.uniform(1, k, count), k, rng.normal(-19.9, 1, count), tail)


def test_likelihoods_as_figures(tmp_path: Path) -> None:
    found = [likelihoods(k) for k in (5, 50, 500)]
    axes = iwae.plots.ladder(found).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(lines["-L_k"].get_xdata(), [5, 50, 500])
    np.testing.assert_allclose(np.asarray(lines["-L_k"].get_ydata()), [each.nll for each in found])
    np.testing.assert_allclose(np.asarray(lines["JVI-2"].get_ydata()), [each.jvi2_nll for each in found])
    for draw in (iwae.plots.effective_sample_size, iwae.plots.pareto_k):
        figure = draw(found[-1])
        assert isinstance(figure, matplotlib.figure.Figure)
        assert sum(patch.get_height() for patch in figure.axes[0].patches if hasattr(patch, "get_height")) >= 40
    figure.savefig(tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(iwae.IWAEError, match="no Pareto k-hat"):
        iwae.plots.pareto_k(found[0])
    with pytest.raises(iwae.IWAEError, match="no likelihoods"):
        iwae.plots.ladder([])


def test_units_and_images_as_figures() -> None:
    from iwae.evaluation.active_units import ActiveUnits

    found = ActiveUnits((np.zeros(3), np.zeros(2)), (np.array([1.0, 0.001, 0.5]), np.array([0.3, 0.2])))
    titles = [axes.get_title(loc="left") for axes in iwae.plots.active_units(found).axes]
    assert titles == ["Layer 1: 3 units", "Layer 2: 2 units"]
    shown = iwae.plots.images(np.linspace(0, 1, 4 * 9).reshape(4, 9), (3, 3)).axes[0].images[0].get_array()
    assert shown is not None
    assert (shown.min(), shown.max()) == (0, 255)
    colours = iwae.plots.images(np.linspace(0, 1, 2 * 12).reshape(2, 12), (2, 2, 3)).axes[0].images[0].get_array()
    assert colours is not None
    assert colours.shape[2] == 3


def test_a_run_as_a_figure(tmp_path: Path) -> None:
    go(tmp_path / "run", small_config(write_data(tmp_path / "own.npz"), epochs=2, batch_size=20))
    (line,) = iwae.plots.training(tmp_path / "run").axes[0].lines
    np.testing.assert_array_equal(line.get_xdata(), [1, 2])
    with pytest.raises(iwae.IWAEError, match="there is no run here"):
        iwae.plots.training(tmp_path)
    with pytest.raises(iwae.IWAEError, match=r"given one by one: iwae.plots.training\(\*directories\), got list"):
        iwae.plots.training([tmp_path / "run"])  # pyright: ignore[reportArgumentType]


def test_a_model_and_its_data_are_said_in_words() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (20, 4, 5)).astype(np.uint8)
    data = iwae.Dataset.from_arrays(rows, rows[:3])
    assert repr(data) == "Dataset(array: 20 / 0 / 3 examples to train, validate and test, of 4 x 5 pixels, bernoulli)"
    page = data._repr_html_()
    assert "20 / 0 / 3" in page
    assert 'src="data:image/png;base64,iVBOR' in page
    model = iwae.create_model(data, iwae.Architecture(None, (6, 2), ((8, 7), (4,))))
    lines = repr(model).splitlines()
    count = sum(leaf.size for leaf in jax.tree.leaves(model))
    assert lines[0] == f"HierarchicalVAE: 20 values, latent 6+2, {count:,} weights"
    assert [line.split()[0] for line in lines[1:]] == ["q(h_1", "q(h_2", "p(x", "p(h_1", "p(h_2)"]
    assert lines[1].endswith("Gaussian, 6 units, TanhNetwork 8-7")
    assert lines[3].endswith("Bernoulli, 20 units, TanhNetwork 7-8")
    assert lines[-1].endswith("StandardNormal")


def test_the_columns_of_a_table_are_shown() -> None:
    rows = np.stack([np.arange(9) % 3, np.linspace(0, 1, 9)], axis=1).astype(np.float32)
    data = iwae.Dataset.from_arrays(rows, likelihood="0=categorical,1=gaussian")
    assert "<td>0</td><td>categorical</td>" in data._repr_html_()
    assert "mixed" in repr(data)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("iwae", "Reparameterized(num_samples=4, num_backward=None, bound=iwae, num_groups=1)"),
        ("ciwae:beta=0.5", "Reparameterized(num_samples=4, num_backward=None, bound=ciwae(beta=0.5), num_groups=1)"),
        ("iwae:dreg", "alpha=0)"),
        ("vimco", "VIMCO(num_samples=4"),
    ],
)
def test_an_estimator_shows_its_numbers(name: str, shown: str) -> None:
    text = repr(iwae.make_estimator(name, k=4))
    assert shown in text
    assert "\n" not in text


def test_results_are_figures_in_words() -> None:
    found = likelihoods(500)
    assert f"NLL {found.nll:.2f} ± {found.stderr:.2f} nats, L_500 of 40 examples" in repr(found)
    assert "Pareto k-hat above 0.7 for 0%" in repr(found)
    assert "Pareto" not in repr(likelihoods(5))
    assert "1 example;" in repr(likelihoods(5, count=1))
