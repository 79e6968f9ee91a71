"""`--precision`: part of a run's configuration, and of nothing that is measured."""

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from helpers.small_runs import go, same_training, small_config
from iwae import RunConfig
from iwae.errors import IWAEError


def test_a_run_in_bfloat16_is_another_run_that_continues_exactly(data: Path, config: RunConfig, whole: Path, tmp_path):
    other = small_config(data, precision="bfloat16")
    assert other.name() == config.name().replace("-seed0", "-bfloat16-seed0")
    assert config.kept_apart(other) == ["precision: float32, there bfloat16"]
    go(tmp_path / "once", other, stages=2)
    go(tmp_path / "twice", other, stages=1)
    with pytest.raises(IWAEError, match="precision: float32, there bfloat16"):
        go(tmp_path / "twice", config, stages=2)
    go(tmp_path / "twice", other, stages=2)
    same_training(tmp_path / "twice", tmp_path / "once", 2)
    mine, plain = (load_file(path / "checkpoints/1.safetensors") for path in (tmp_path / "once", whole))
    assert {name: (a.dtype, a.shape) for name, a in mine.items()} == {n: (a.dtype, a.shape) for n, a in plain.items()}
    assert any((mine[name] != plain[name]).any() for name in mine if name.startswith("model."))


def test_measuring_is_in_float32_whatever_a_run_was_trained_in(data: Path, whole: Path, tmp_path: Path):
    """The same weights have the same likelihood, to the last bit."""
    path = tmp_path / "run"
    go(path, small_config(data, precision="bfloat16"), stages=1)
    measured = json.loads((path / "results.json").read_text())["test"]["nll"]
    weights = path / "checkpoints/1.safetensors"
    plain = tmp_path / "plain"
    go(plain, small_config(data), stages=1)
    (plain / "checkpoints/1.safetensors").write_bytes(weights.read_bytes())
    (plain / "results.json").unlink()
    for evaluation in (plain / "evaluations").iterdir():
        evaluation.unlink()
    go(plain, small_config(data), stages=1)
    assert json.loads((plain / "results.json").read_text())["test"]["nll"] == measured


def test_what_is_no_precision_is_refused():
    with pytest.raises(IWAEError, match=r"`precision` must be float32 or bfloat16, got 'float16'"):
        RunConfig.of(precision="float16")  # pyright: ignore[reportArgumentType]
