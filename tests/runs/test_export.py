"""Encoders and decoders that are written for other programs: the numbers are the model's, and iwae is not needed."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import iwae
from helpers.small_runs import environment, go, small_config, write_data
from iwae.cli.app import main
from iwae.models.distributions import Normal
from iwae.runs import export

ALONE = """
import sys
sys.modules["iwae"] = None  # As where it is not installed.
import json, jax, numpy as np
from jax import export
directory, rows, result = sys.argv[1:]
record = json.load(open(directory + "/export.json"))
def load(name):
    return export.deserialize(bytearray(open(f"{directory}/{name}.stablehlo", "rb").read()))
encoder, decoder = load("encoder"), load("decoder")
found = encoder.call(np.load(rows))
names = [output["name"] for output in record["encoder"]["outputs"]]
top = [value for name, value in zip(names, found) if name.endswith("_mean")][-1]
np.savez(result, mean=decoder.call(top), **dict(zip(names, found)))
assert "iwae.models" not in sys.modules
"""


def in_a_process_without_iwae(directory: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
    np.save(directory / "rows.npy", rows.astype(np.float32))
    result = directory / "found.npz"
    command = [sys.executable, "-c", ALONE, str(directory), str(directory / "rows.npy"), str(result)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(np.load(result))


def test_a_run_of_real_numbers_is_computed_elsewhere_in_its_own_units(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.random.default_rng(0).normal(50.0, [1.0, 5.0, 20.0], size=(40, 3)).astype(np.float32)
    np.savez(tmp_path / "own.npz", train=rows, valid=rows[:5], test=rows[:9])
    run = tmp_path / "run"
    go(run, small_config(tmp_path / "own.npz", latent=(3, 2), hidden=(8, 4), epochs=1, batch_size=10))
    assert main(["export", str(run)]) == 0
    written = capsys.readouterr().out.split()
    assert written == [str(run / "export/stablehlo" / name) for name in EXPORTED]
    found = in_a_process_without_iwae(run / "export/stablehlo", rows[:9])
    model = iwae.load(run)
    for layer in (1, 2):
        np.testing.assert_allclose(found[f"h_{layer}_mean"], iwae.encode(model, rows[:9], layer), rtol=1e-5, atol=1e-5)
    given: Any = model.encoder[0](model.prepare(jnp.asarray(rows[:9]), jax.random.key(0)))
    assert isinstance(given, Normal)
    np.testing.assert_allclose(found["h_1_sigma"], np.exp(given.log_sigma), rtol=1e-5)
    # Near the data's mean of 50, not of zero.
    assert found["mean"].shape == (9, 3)
    assert np.abs(found["mean"] - 50.0).max() < 60.0
    assert found["mean"][:, 0].mean() == pytest.approx(50.0, abs=3.0)
    record = json.loads((run / "export/stablehlo/export.json").read_text())
    assert record["weights_sha256"] == json.loads((run / "results.json").read_text())["weights_sha256"]
    assert record["decoder"]["inputs"] == [
        {"name": "h", "shape": ["batch", 2], "type": "float32", "what": "values of h_2, the top layer"}
    ]


EXPORTED = ("encoder.stablehlo", "decoder.stablehlo", "export.json")


def call(function: Any, rows: np.ndarray) -> Any:
    """What a function gives after it has been written and read."""
    exported = jax.export.deserialize(bytearray(export.to_stablehlo(function, rows.shape[1])))
    assert exported.platforms == export.PLATFORMS
    return exported.call(rows.astype(np.float32))


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param((np.arange(24).reshape(8, 3) % 2).astype(np.uint8), id="bits"),
        pytest.param((np.arange(24).reshape(8, 3) * 10).astype(np.uint8), id="grey"),
    ],
)
def test_bernoulli_rows_are_taken_as_they_are(rows: np.ndarray) -> None:
    """Zeros and ones give what the model gives; nothing is drawn, and any number of rows will do."""
    model = iwae.create_model(rows, iwae.Architecture(3, (2,), ((4,),)))
    bits = (rows > 100).astype(np.float32)
    for count in (1, 8):
        mean, sigma = call(export.encoder_of(model), bits[:count])
        given: Any = model.encoder[0](jnp.asarray(bits[:count]))
        np.testing.assert_allclose(mean, given.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(sigma, np.exp(given.log_sigma), rtol=1e-5)
    decoded = call(export.decoder_of(model), np.zeros((4, 2)))
    np.testing.assert_allclose(decoded, model.decoder[0](jnp.zeros((4, 2))).mean, rtol=1e-5)


def test_missing_values_and_categories(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.normal(100, 7, 30), rng.integers(0, 3, 30), rng.random(30) < 0.5], axis=1).astype(np.float32)
    rows[3, 0] = np.nan
    data = iwae.Dataset.from_arrays(rows, likelihood=["gaussian", "categorical", "bernoulli"])
    model = iwae.create_model(data, iwae.Architecture(3, (2,), ((4,),), mask="concatenate"))
    mean, _ = call(export.encoder_of(model), rows)
    np.testing.assert_allclose(mean, iwae.encode(model, rows), rtol=1e-5, atol=1e-5)
    decoded = np.asarray(call(export.decoder_of(model), np.zeros((2, 2))))
    assert decoded.shape == (2, 5)
    order = json.loads(json.dumps(model.likelihood.to_json()))["columns"]
    assert order == [[0], [1], [2]]
    np.testing.assert_allclose(decoded[:, 1:4].sum(axis=1), 1.0, rtol=1e-5)
    written = iwae.export_model(model, tmp_path)
    record = json.loads(written["export"].read_text())
    assert record["encoder"]["inputs"][0]["what"].endswith("NaN is a missing value")
    assert record["decoder"]["outputs"][0]["shape"] == ["batch", 5]


def test_binary_latents_have_a_mean_alone(tmp_path: Path) -> None:
    rows = (np.random.default_rng(0).random((20, 4)) < 0.5).astype(np.uint8)
    model = iwae.create_model(rows, iwae.Architecture(4, (3,), ((4,),), kinds=("bernoulli",)))
    (mean,) = call(export.encoder_of(model), rows)
    np.testing.assert_allclose(mean, iwae.encode(model, rows), rtol=1e-5, atol=1e-6)
    record = json.loads(iwae.export_model(model, tmp_path)["export"].read_text())
    assert [output["name"] for output in record["encoder"]["outputs"]] == ["h_1_mean"]


def test_onnx_is_what_onnxruntime_computes(tmp_path: Path) -> None:
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    rows = np.random.default_rng(0).normal(50, 9, size=(20, 4)).astype(np.float32)
    data = iwae.Dataset.from_arrays(rows, likelihood="gaussian")
    model = iwae.create_model(data, iwae.Architecture(4, (2,), ((5,),)))
    written = iwae.export_model(model, tmp_path, "onnx")
    encoder, decoder = (runtime.InferenceSession(str(written[name])) for name in ("encoder", "decoder"))
    for count in (1, 20):
        mean, _ = encoder.run(None, {encoder.get_inputs()[0].name: rows[:count]})
        np.testing.assert_allclose(mean, iwae.encode(model, rows[:count]), rtol=1e-5, atol=1e-5)
        (decoded,) = decoder.run(None, {decoder.get_inputs()[0].name: mean})
        np.testing.assert_allclose(decoded, export.decoder_of(model)(jnp.asarray(mean)), rtol=1e-5, atol=1e-4)


def test_onnx_without_its_packages_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("iwae.errors.find_spec", lambda name: None if name == "jax2onnx" else find_spec(name))
    go(tmp_path / "run", small_config(write_data(tmp_path / "own.npz"), epochs=1, batch_size=20))
    assert main(["export", str(tmp_path / "run"), "--format", "onnx"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith('not installed: pip install "iwae[onnx]"')
    assert not (tmp_path / "run/export").exists()


def test_what_can_not_be_exported_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = iwae.create_model(np.eye(4, dtype=np.uint8), iwae.Architecture(4, (2,), ((4,),)))
    with pytest.raises(iwae.IWAEError, match="`format` must be one of stablehlo, onnx, got 'tflite'"):
        iwae.export_model(model, tmp_path, "tflite")  # pyright: ignore[reportArgumentType]
    assert main(["export", str(tmp_path)]) == 1
    assert "there is no run here" in capsys.readouterr().err
