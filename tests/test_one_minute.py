"""What is easy to add: each thing of the design's table, added from here in as many places as the table says."""

import dataclasses
import hashlib
import json
import re
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import iwae
from helpers.small_runs import QUICK_MEASURE, Messages, go, small_config, write_data
from iwae.cli.app import main
from iwae.cli.registry import COMMANDS, Command
from iwae.data import load_dataset
from iwae.data.catalog import PUBLISHED, Published
from iwae.data.files import CanonicalFile
from iwae.estimators import table
from iwae.models import likelihoods
from iwae.models.networks import NETWORKS
from iwae.models.networks.base import Linear
from iwae.models.registry import Kind

ARCHITECTURE = iwae.Architecture(6, latent=(2,), hidden=((8,),))


class Laplace:
    """Independent Laplace distributions: log p(x) = -|x - m| - log 2."""

    def __init__(self, mean: jax.Array):
        self.mean = mean

    def log_prob(self, value: jax.Array, observed: jax.Array | None = None) -> jax.Array:
        terms = -jnp.abs(value - self.mean) - jnp.log(2.0)
        return jnp.sum(terms if observed is None else jnp.where(observed, terms, 0.0), axis=-1)


class LaplaceLikelihood(iwae.Likelihood):
    """Real numbers with heavy tails."""

    name: ClassVar[str] = "laplace"
    words: ClassVar[str] = "Laplace"

    def distribution(self, outputs: jax.Array) -> Any:
        return Laplace(outputs)


class Halved(iwae.WeightedEstimator):
    """The variational bound, half of it for the decoder."""

    derivative: ClassVar[Any] = "path"

    def coefficients(self, log_weights: Any) -> Any:
        share = jnp.full_like(log_weights, 1.0 / log_weights.shape[0])
        return iwae.Coefficients(bound=iwae.bounds.elbo(log_weights), decoder=0.5 * share, encoder=share)


def test_a_likelihood_is_a_class_and_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(likelihoods.LIKELIHOODS, "laplace", LaplaceLikelihood)
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(120, 1)) * rng.normal(size=6) * 3 + 0.1 * rng.normal(size=(120, 6))).astype(np.float32)
    data = iwae.Dataset.from_arrays(rows[:100], rows[100:], likelihood="laplace")
    start = iwae.create_model(data, ARCHITECTURE)
    model = iwae.fit(start, data, iwae.make_estimator("iwae", k=5), epochs=20, learning_rate=1e-2)
    before, after = (iwae.log_likelihood(each, data.test, num_samples=50) for each in (start, model))
    assert after.mean() > before.mean() + 1.0
    iwae.save(model, tmp_path / "model.safetensors")
    loaded = iwae.load(tmp_path / "model.safetensors")
    assert isinstance(loaded.likelihood, LaplaceLikelihood)
    np.testing.assert_array_equal(iwae.log_likelihood(loaded, data.test, num_samples=50), after)


def test_an_estimator_is_a_class_and_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = types.ModuleType("iwae.estimators.halved")
    module.Halved = Halved  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    row = table.Row("Halved", "half a bound, from {k} samples", {"dreg": table.Method("halved", "Halved")})
    monkeypatch.setitem(table.OBJECTIVES, "halved", row)
    estimator = iwae.make_estimator("halved", k=3)
    assert isinstance(estimator, Halved)
    assert estimator.num_samples == 3
    run = tmp_path / "run"
    options = ["--latent", "2", "--hidden", "4", "--k", "3", "--stages", "1", "--test-samples", "10"]
    data = str(write_data(tmp_path / "own.npz"))
    assert main(["train", "--dataset", data, "--objective", "halved", *options, "--run-dir", str(run)]) == 0
    assert json.loads((run / "run.json").read_text())["config"]["objective"] == "halved"
    assert iwae.RunConfig.of(objective="halved", k=3).name().startswith("mnist-halved-k3")


def test_a_network_from_python_needs_no_change() -> None:
    rows = (np.random.default_rng(0).random((100, 6)) < 0.3).astype(np.uint8)

    class Encoder:
        """A function with weights that nothing registers."""

        def __call__(self, x: jax.Array) -> jax.Array:
            return jnp.concatenate([jnp.sin(x), jnp.cos(x)])

    model = iwae.create_model(rows, encoder=[Encoder()], decoder=[jnp.tanh], latent=[2])
    model = iwae.fit(model, rows, iwae.make_estimator("iwae", k=2), epochs=1)
    assert np.isfinite(iwae.log_likelihood(model, rows, num_samples=5)).all()


class SineNetwork(eqx.Module):
    """One linear layer and a sine."""

    takes_batches: ClassVar[bool] = True
    linear: Linear

    @classmethod
    def create(cls, sizes: tuple[int, ...], key: jax.Array) -> "SineNetwork":
        return cls(Linear.create(sizes[0], sizes[-1], key))

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.sin(self.linear(x))

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.linear.bias.shape[0],)


def test_a_network_with_a_name_is_a_class_and_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = types.ModuleType("iwae.models.networks.sine")
    module.SineNetwork = SineNetwork  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(NETWORKS, "sine", Kind("networks.sine.SineNetwork"))
    run = tmp_path / "run"
    options = ["--latent", "2", "--hidden", "4", "--network", "sine", "--stages", "1", "--test-samples", "10"]
    assert main(["train", "--dataset", str(write_data(tmp_path / "own.npz")), *options, "--run-dir", str(run)]) == 0
    assert main(["evaluate", str(run), "--samples", "5"]) == 0
    model = iwae.load(run)
    assert isinstance(model.encoder[0].network, SineNetwork)  # pyright: ignore[reportAttributeAccessIssue]
    iwae.save(model, tmp_path / "model.safetensors")
    assert iwae.load(tmp_path / "model.safetensors").network == "sine"
    assert main(["prune", str(run)]) == 1


def test_a_dataset_is_an_entry_of_the_catalog(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Real numbers in images of another size than MNIST's: nothing else is told of it."""
    content = np.random.default_rng(0).normal(5, 2, size=(60, 12)).astype(np.float32).tobytes()

    def build(contents: Any) -> Any:
        rows = np.frombuffer(contents[0], np.float32).reshape(-1, 12)
        return {"train": rows[:40], "valid": rows[40:50], "test": rows[50:]}, 1.0, False

    file = CanonicalFile("Noise/noise.bin", f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
    sizes = (40, 10, 10)
    entry = Published("noise", "Noise", "pure noise", sizes, (file,), (), build, None, (3, 4), "gaussian")
    monkeypatch.setitem(PUBLISHED, "noise", entry)
    (tmp_path / "Noise").mkdir()
    (tmp_path / file.relative).write_bytes(content)
    data = load_dataset("noise", directory=tmp_path)
    assert (len(data.train), len(data.valid), len(data.test)) == entry.sizes
    assert (data.mark, data.image_shape) == ("verified", (3, 4))
    assert iwae.RunConfig.of(dataset="Noise").dataset == "noise"
    run = tmp_path / "run"
    options = ["--latent", "2", "--hidden", "4", "--stages", "1", "--test-samples", "10"]
    there = ["--datasets-dir", str(tmp_path), "--run-dir", str(run)]
    assert main(["train", "--dataset", "noise", *options, *there]) == 0
    assert isinstance(iwae.load(run).likelihood, iwae.GaussianLikelihood)
    assert main(["evaluate", str(run), "--samples", "5", "--datasets-dir", str(tmp_path)]) == 0


def test_a_command_is_a_file_and_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(COMMANDS, "greet", Command(f"{__name__}:Greet", "Say hello."))
    assert main(["greet", "--name", "Ada"]) == 0
    assert capsys.readouterr().out == "hello Ada\n"
    assert main(["--help"]) == 0
    assert re.search(r"^  greet +Say hello\.$", capsys.readouterr().out, re.MULTILINE)
    assert main(["greet", "--nme", "Ada"]) == 2


@dataclasses.dataclass(frozen=True)
class Greet:
    """Say hello."""

    name: str = "you"
    """Whom to greet."""

    def run(self, arguments: list[str]) -> int:
        """Says it."""
        print(f"hello {self.name}")
        return 0


def test_a_metric_per_epoch_is_at_hand_in_the_callback(tmp_path: Path) -> None:
    """From Python: the model after each epoch can be measured. A run's metrics.jsonl holds what a run records."""
    rows = (np.random.default_rng(0).random((100, 6)) < 0.3).astype(np.uint8)
    found: list[float] = []

    def measure(progress: Any) -> None:
        found.append(float(iwae.log_likelihood(progress.state.model, rows, num_samples=5).mean()))

    model = iwae.create_model(rows, ARCHITECTURE)
    model = iwae.fit(model, rows, iwae.make_estimator("iwae", k=2), epochs=3, callback=measure)
    assert found[-1] == float(iwae.log_likelihood(model, rows, num_samples=5).mean())
    assert len(found) == 3
    path = tmp_path / "run"
    go(path, small_config(write_data(tmp_path / "own.npz")), stages=1, measure=QUICK_MEASURE, reporter=Messages())
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert lines
    assert all("bound" in json.dumps(line) for line in lines)
