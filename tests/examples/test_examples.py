"""Every example runs as it stands, as a script, and finds what it says."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.small_runs import environment

EXAMPLES = Path(__file__).parents[2] / "examples"
LINES = 50


def numbers(name: str, directory: Path | None = None) -> list[float]:
    """The numbers that an example prints; what it writes goes into `directory`."""
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), cwd=directory)
    assert done.returncode == 0, done.stderr
    return [float(text) for text in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", done.stdout)]


def test_every_example_is_short_and_has_a_test() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    tested = set(re.findall(r'numbers\("(\w+\.py)"', Path(__file__).read_text()))
    assert names == tested
    for name in names:
        assert len((EXAMPLES / name).read_text().splitlines()) < LINES, name


def test_a_custom_likelihood_learns_counts() -> None:
    before, after = numbers("custom_likelihood.py")
    assert after > before + 0.5


def test_a_convolutional_encoder_learns_bars() -> None:
    before, after, rows, units = numbers("convolutional_encoder.py")
    assert after > before + 2
    assert (rows, units) == (500, 4)


def test_a_custom_estimator_trains_beside_dreg() -> None:
    own_start, own_end, *_, dreg_end = numbers("custom_estimator.py")
    assert own_end > own_start + 0.5
    assert own_end == pytest.approx(dreg_end, abs=1.0)


def test_a_loop_with_optax_trains() -> None:
    start, end = numbers("training_loop.py")
    assert end < start - 0.5


def test_an_array_with_gaps_gets_log_densities() -> None:
    usual, rows, strange = numbers("array_to_log_likelihoods.py")
    assert rows == 100
    assert strange < usual - 20


def test_signal_to_noise_falls_and_grows_as_theory_says(tmp_path: Path) -> None:
    """As 1/sqrt(k) for the encoder's plain gradient, as sqrt(k) for its others and for the decoder's."""
    found = numbers("signal_to_noise.py", tmp_path)
    assert (tmp_path / "signal_to_noise.png").read_bytes().startswith(b"\x89PNG")
    rows = [found[start : start + 3] for start in range(0, len(found), 3)]
    assert [k for k, *_ in rows] == [3, 100] * 4
    for number in range(4):
        (_, *low), (_, *high) = rows[2 * number : 2 * number + 2]
        encoder, decoder = (math.log(b / a) / math.log(100 / 3) for a, b in zip(low, high, strict=True))
        assert decoder == pytest.approx(0.5, abs=0.15)
        assert encoder == pytest.approx(-0.5 if number == 0 else 0.42, abs=0.2)


def test_a_table_is_completed() -> None:
    means, ours, nominal, covered = numbers("imputation.py")
    assert ours < 0.7 * means
    assert nominal == 90
    assert abs(covered - 90) < 8
