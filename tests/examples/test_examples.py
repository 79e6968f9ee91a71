"""Every example runs as it stands, as a script, and finds what it says."""

import math
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LINES = 50
Numbers = Callable[[str], list[float]]


@pytest.fixture
def numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Numbers:
    """Runs an example, with an empty directory to work in, and returns the numbers that it prints."""
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> list[float]:
        monkeypatch.setattr(sys, "argv", [name])
        # A script finds those beside it.
        monkeypatch.syspath_prepend(EXAMPLES)
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return [float(text) for text in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", capsys.readouterr().out)]

    return run


def test_every_example_is_short_and_has_a_test() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    tested = set(re.findall(r'numbers\("(\w+\.py)"', Path(__file__).read_text()))
    assert names == tested
    for name in names:
        assert len((EXAMPLES / name).read_text().splitlines()) < LINES, name


def test_a_custom_likelihood_learns_counts(numbers: Numbers) -> None:
    before, after = numbers("custom_likelihood.py")
    assert after > before + 0.5


@pytest.mark.slow
def test_a_convolutional_encoder_learns_bars(numbers: Numbers) -> None:
    before, after, rows, units = numbers("convolutional_encoder.py")
    assert after > before + 2
    assert (rows, units) == (500, 4)


def test_a_custom_estimator_trains_beside_dreg(numbers: Numbers) -> None:
    own_start, own_end, *_, dreg_end = numbers("custom_estimator.py")
    assert own_end > own_start + 0.5
    assert own_end == pytest.approx(dreg_end, abs=1.0)


def test_a_loop_with_optax_trains(numbers: Numbers) -> None:
    start, end = numbers("training_loop.py")
    assert end < start - 0.5


def test_an_array_with_gaps_gets_log_densities(numbers: Numbers) -> None:
    usual, rows, strange = numbers("array_to_log_likelihoods.py")
    assert rows == 100
    assert strange < usual - 20


@pytest.mark.slow
def test_signal_to_noise_falls_and_grows_as_theory_says(numbers: Numbers, tmp_path: Path) -> None:
    """As 1/sqrt(k) for the encoder's plain gradient, as sqrt(k) for its others and for the decoder's."""
    found = numbers("signal_to_noise.py")
    assert (tmp_path / "signal_to_noise.png").read_bytes().startswith(b"\x89PNG")
    rows = [found[start : start + 3] for start in range(0, len(found), 3)]
    assert [k for k, *_ in rows] == [3, 100] * 4
    for number in range(4):
        (_, *low), (_, *high) = rows[2 * number : 2 * number + 2]
        encoder, decoder = (math.log(b / a) / math.log(100 / 3) for a, b in zip(low, high, strict=True))
        assert decoder == pytest.approx(0.5, abs=0.15)
        assert encoder == pytest.approx(-0.5 if number == 0 else 0.42, abs=0.2)


@pytest.mark.slow
def test_the_vr_iwae_bound_lacks_what_its_theory_says(numbers: Numbers, tmp_path: Path) -> None:
    found = numbers("vr_iwae.py")
    # Words' alpha, k, the ratio; then names' alpha (and the 1 of 1/N) and the values, for k = 10 and 100.
    ratios, rest = [found[start + 2] for start in range(0, 12, 3)], found[12:]
    assert ratios[1] < 0.6 * ratios[0]
    assert ratios[3] > 1.2 * ratios[2]
    for start in (0, 10):
        measured = [rest[start + 1], rest[start + 3]]
        expected = [rest[start + 6], rest[start + 9]]
        assert measured[1] == pytest.approx(expected[1], rel=0.25)
        assert measured[0] == pytest.approx(expected[0], rel=0.25)
    for name in ("vr_iwae_signal_to_noise.png", "vr_iwae_bias.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_table_is_completed(numbers: Numbers) -> None:
    means, ours, nominal, covered = numbers("imputation.py")
    assert ours < 0.7 * means
    assert nominal == 90
    assert abs(covered - 90) < 8
