"""Pictures of arrays: grids, charts of extreme values, and what can't be shown."""

import io
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from iwae.errors import IWAEError
from iwae.figures import charts, grids
from iwae.figures.analysis import Findings, Images, draw


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def test_colours_of_weights() -> None:
    levels = grids.diverging(np.array([-1.0, 0.0, 1.0]))
    assert [tuple(grids.PALETTE[level]) for level in levels] == [grids.NEGATIVE, grids.ZERO, grids.POSITIVE]
    assert set(grids.diverging(np.zeros(3))) == {grids.LEVELS}


def test_tiles_stand_where_they_should() -> None:
    cells = np.stack([np.full((60, 60), value, np.uint8) for value in (10, 20, 30)])
    canvas = grids.tile(cells, 2)
    assert canvas.shape == (2 * 62 + 2, 2 * 62 + 2)
    assert (canvas[2, 2], canvas[2, 64], canvas[64, 2], canvas[64, 64]) == (10, 20, 30, grids.GROUND)
    large = np.zeros((25, 900 * 300))
    assert pixels(grids.weight_grid(large, (900, 300))).shape[0] <= grids.MAX_SIDE + 30
    assert pixels(grids.reconstruction_grid(large, large, (900, 300))).shape[1] <= grids.MAX_SIDE + 30
    originals, decoded = np.ones((4, 6)), np.zeros((4, 6))
    with Image.open(io.BytesIO(grids.reconstruction_grid(originals, decoded, (2, 3)))) as image:
        values = np.asarray(image)
    assert (values[4, 4], values[-4, 4]) == (255, 0)


@pytest.mark.parametrize(
    "content",
    [
        charts.log_variance_chart([np.array([0.0]), np.array([-0.1, 40.0])], 0.01),
        charts.log_weight_chart(np.array([[0.0]])),
        charts.log_weight_chart(np.array([[-np.inf, math.log(2)]])),
        charts.effective_sample_size_chart(np.array([0.0, 1.0]), 1),
        charts.training_chart([charts.Curve("one", [1], [-3.0], [1, 4])]),
        charts.training_chart([charts.Curve(f"run {i}", [1, 2, 3280], [-3.0, -2.0, -1.0], [1]) for i in range(9)]),
        charts.estimator_chart({"encoder": ("bias", [charts.Line("one", [1], [math.nan], [True])])}),
        charts.estimator_chart({"a": ("b", [charts.Line("c", [1, 5, 50], [0.5] * 3, [False] * 3)])}, slope=("d", 1.0)),
        charts.ladder_chart([1], {"-L_k": [math.nan]}, None),
        charts.ladder_chart([50, 500, 100_000], {"-L_k": [3.0, 2.0, 1.5], "JVI-2": [2.0, 1.6, math.inf]}, (1.2, 0.1)),
        charts.pareto_chart(np.array([math.nan, math.inf]), 0.7),
    ],
)
def test_charts_of_extremes(content: bytes) -> None:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        assert image.size[0] == 1000


def test_a_grid_of_samples_has_every_pixel() -> None:
    values = np.linspace(0, 1, 5 * 6).reshape(5, 6)
    shown = pixels(grids.sample_grid(values, (2, 3)))
    # Three columns of two rows; cells of 2 x 3 pixels, enlarged 19 times.
    assert shown.shape == (2 * (38 + 2) + 2, 3 * (57 + 2) + 2)
    assert shown[42, 2] == round(255 * values[3, 0])
    assert shown[-3, 61 + 56] == round(255 * values[4, 5])
    assert shown[-3, -3] == grids.GROUND
    wide = pixels(grids.sample_grid(np.ones((4, 300 * 400)), (300, 400)))
    assert wide.shape == (2 * 302 + 2, 2 * 402 + 2)
    rows = pixels(grids.sample_grid(values, None))
    assert rows.shape == (5 * 10, 6 * 10)
    assert rows[10, 0] == round(values[1, 0] * 255)


def findings() -> Findings:
    rng = np.random.default_rng(0)
    images = Images(
        shape=(2, 3),
        samples=rng.random((4, 6)),
        originals=rng.random((4, 6)),
        reconstructions=rng.random((4, 6)),
        traversals=rng.random((1, 3, 6)),
        units=[1],
        values=(0, 0.5, 1),
        encoder_weights=rng.normal(size=(4, 6)),
        decoder_weights=rng.normal(size=(4, 6)),
    )
    curve = charts.Curve("run", [1, 2], [-3.0, -2.0], [1, 4])
    return Findings(curve, [rng.random(3)], 0.01, rng.normal(size=(4, 9)), 1 + rng.random(4), 9, images)


def test_what_can_not_be_shown_is_said() -> None:
    found = findings()
    made, skipped = draw(found)
    assert len(made) == 9
    assert not skipped
    made, skipped = draw(replace(found, images=None, curve=None, relative_log_weights=np.zeros((0, 9))))
    assert set(made) == {"log_variances.png", "effective_sample_size.png"}
    vectors = dict.fromkeys(
        ("samples", "reconstructions", "traversals", "encoder_weights", "decoder_weights"),
        "the data are vectors, not images",
    )
    assert skipped == {
        **vectors,
        "training_curve": "no epoch has been trained yet",
        "log_weights": "no weight is finite",
    }
    assert found.images is not None
    none = replace(found.images, units=[], traversals=np.zeros((0, 3, 6)))
    assert draw(replace(found, images=none))[1] == {"traversals": "no unit of the top layer is active"}


def test_grids_need_no_matplotlib_and_charts_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import iwae.figures.analysis, iwae.figures.grids, sys; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.split() == [b"False"]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    grids.sample_grid(np.ones((4, 6)), (2, 3))
    with pytest.raises(IWAEError, match=r'matplotlib, which is not installed: pip install "iwae\[report\]"'):
        charts.pareto_chart(np.ones(3), 0.7)
