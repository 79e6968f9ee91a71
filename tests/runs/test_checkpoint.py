"""Checkpoints: what is written is what is read, and nothing but an intact file is read."""

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

from helpers.small_runs import files_below, flip_byte
from iwae.io.files import write_atomically, write_json
from iwae.models.architecture import Architecture
from iwae.models.vae import HierarchicalVAE
from iwae.runs.checkpoint import FORMAT, Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from iwae.training.optim import paper_adam
from iwae.training.step import TrainState

ARCHITECTURES = {
    1: Architecture(6, (3,), ((8, 7),)),
    2: Architecture(6, (4, 3), ((8, 7), (6, 5))),
    3: Architecture(6, (4, 3, 2), ((8, 7), (6, 5), (4, 3))),
}
SEED = 3


def any_state(architecture: Architecture) -> TrainState:
    """A state that no two numbers of are equal, as in the middle of training."""
    rng = np.random.default_rng(0)
    skeleton = eqx.filter_eval_shape(HierarchicalVAE.create, architecture, jax.random.key(0))
    model = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), skeleton)
    start = TrainState.create(model, paper_adam(), SEED)
    moments = jax.tree.map(lambda leaf: leaf + jnp.asarray(rng.random(leaf.shape) * 9, leaf.dtype), start.optimizer)
    return TrainState(model, moments, jnp.int32(1234), jnp.float32(-7.25), start.key)


def save(path: Path, state: TrainState, architecture: Architecture) -> None:
    save_checkpoint(path, state, architecture=architecture, seed=SEED, stages_done=2, seconds=1.25)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "5.safetensors"
    save(path, any_state(ARCHITECTURES[1]), ARCHITECTURES[1])
    return path


def assert_one_line_naming(error: pytest.ExceptionInfo[CheckpointError], path: Path) -> None:
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def with_record(path: Path, target: Path, **changes: object) -> Path:
    """A copy of a checkpoint whose record says something else."""
    with safe_open(path, framework="numpy") as file:
        record = json.loads(file.metadata()["iwae"])
    safetensors.numpy.save_file(load_file(path), target, {"iwae": json.dumps(record | changes)})
    return target


@pytest.mark.parametrize("layers", ARCHITECTURES)
def test_a_state_comes_back_bit_for_bit(tmp_path: Path, layers: int) -> None:
    state = any_state(ARCHITECTURES[layers])
    path = tmp_path / "1.safetensors"
    save(path, state, ARCHITECTURES[layers])
    checkpoint = load_checkpoint(path)
    assert checkpoint.architecture == ARCHITECTURES[layers]
    assert (checkpoint.seed, checkpoint.stages_done, checkpoint.seconds) == (SEED, 2, 1.25)
    assert checkpoint.step == 1234
    restored = checkpoint.train_state(paper_adam())
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(restored), strict=True):
        if jnp.issubdtype(before.dtype, jax.dtypes.prng_key):
            before, after = jax.random.key_data(before), jax.random.key_data(after)
        assert before.dtype == after.dtype
        assert np.asarray(before).tobytes() == np.asarray(after).tobytes()


def test_weights_have_readable_names_and_plain_numpy_computes_with_them(tmp_path: Path) -> None:
    architecture = ARCHITECTURES[2]
    state = any_state(architecture)
    save(tmp_path / "1.safetensors", state, architecture)
    arrays = load_file(tmp_path / "1.safetensors")
    shapes = {name: array.shape for name, array in arrays.items() if name.startswith("model.")}
    assert shapes["model.encoder.0.hidden.0.weight"] == (6, 8)
    assert shapes["model.encoder.0.hidden.1.weight"] == (8, 7)
    assert shapes["model.encoder.0.mean.weight"] == (7, 4)
    assert shapes["model.encoder.1.log_sigma.bias"] == (3,)
    assert shapes["model.decoder.1.mean.weight"] == (6, 4)
    assert shapes["model.decoder.0.logits.weight"] == (8, 6)
    for kind in ("mu", "nu"):
        assert {name.replace("model.", f"optimizer.{kind}.") for name in shapes} <= arrays.keys()
    assert {"optimizer.count", "step", "epoch_bound"} <= arrays.keys()

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ arrays[f"{name}.weight"] + arrays[f"{name}.bias"]

    x = np.random.default_rng(1).random((5, 6), np.float32)
    hidden = np.tanh(linear("model.encoder.0.hidden.1", np.tanh(linear("model.encoder.0.hidden.0", x))))
    posterior = state.model.encoder[0](jnp.asarray(x))
    np.testing.assert_allclose(linear("model.encoder.0.mean", hidden), posterior.mean, atol=1e-6)
    np.testing.assert_allclose(linear("model.encoder.0.log_sigma", hidden), posterior.log_sigma, atol=1e-6)


def assert_noticed(path: Path, intact: Checkpoint) -> bool:
    """Asserts that a damaged file is refused in one line, or reads as the intact one; returns whether it was refused.

    Only bytes that mean nothing (blanks that pad the header) may change unnoticed.
    """
    read, message = None, ""
    try:
        read = load_checkpoint(path)
    except CheckpointError as error:
        message = str(error)
    if read is None:
        assert str(path) in message
        assert "\n" not in message
        return True
    assert read.arrays.keys() == intact.arrays.keys()
    for name, array in intact.arrays.items():
        assert read.arrays[name].dtype == array.dtype
        assert read.arrays[name].shape == array.shape
        assert read.arrays[name].tobytes() == array.tobytes()
    assert (read.architecture, read.seed, read.stages_done) == (intact.architecture, SEED, 2)
    return False


def damage_everywhere(content: bytes, path: Path, masks: Sequence[int]) -> dict[str, int]:
    """Cuts a checkpoint at every length and flips every byte, by every mask where one is given and otherwise by one
    bit, another from byte to byte. Asserts that all is noticed, and returns how much was done.
    """
    path.write_bytes(content)
    intact = load_checkpoint(path)
    tensors = 8 + int.from_bytes(content[:8], "little")
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert assert_noticed(path, intact), length
    flips = unnoticed = 0
    for position, byte in enumerate(content):
        for mask in masks or [1 << position % 8]:
            path.write_bytes(b"".join((content[:position], bytes([byte ^ mask]), content[position + 1 :])))
            noticed = assert_noticed(path, intact)
            assert noticed or position < tensors, position
            flips, unnoticed = flips + 1, unnoticed + (not noticed)
    return {"bytes": len(content), "cuts": len(content), "flips": flips, "unnoticed": unnoticed}


def test_every_byte_flipped_and_every_cut_is_noticed(tmp_path: Path) -> None:
    """Of the smallest checkpoint that there is: two linear layers, each of one unit."""
    architecture = Architecture(1, (1,), ((),))
    save(tmp_path / "1.safetensors", any_state(architecture), architecture)
    done = damage_everywhere((tmp_path / "1.safetensors").read_bytes(), tmp_path / "7.safetensors", [])
    assert done["cuts"] == done["flips"] == done["bytes"] > 2000
    assert done["unnoticed"] < 8


@pytest.mark.torture
def test_every_bit_flipped_and_every_cut_is_noticed(tmp_path: Path) -> None:
    """Of a checkpoint with hidden layers, every bit, and all bits of a byte at once."""
    architecture = Architecture(2, (1,), ((1, 1),))
    save(tmp_path / "1.safetensors", any_state(architecture), architecture)
    masks = [*(1 << bit for bit in range(8)), 255]
    done = damage_everywhere((tmp_path / "1.safetensors").read_bytes(), tmp_path / "7.safetensors", masks)
    assert done["cuts"] == done["bytes"] > 4000
    assert done["flips"] == 9 * done["bytes"]
    assert done["unnoticed"] < 9 * 8


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), in_header=st.booleans(), mask=st.integers(1, 255))
def test_a_flipped_byte_is_noticed(saved: Path, tmp_path: Path, where: float, in_header: bool, mask: int) -> None:
    content = saved.read_bytes()
    size = 8 + int.from_bytes(content[:8], "little") if in_header else len(content)
    path = tmp_path / "7.safetensors"
    path.write_bytes(content)
    flip_byte(path, int(where * size), mask)
    assert_noticed(path, load_checkpoint(saved))


@pytest.mark.parametrize("change", [{"seed": 4}, {"stages_done": 3}, {"seconds": 9.0}, {"digest": "0" * 64}])
def test_a_changed_record_is_noticed(saved: Path, tmp_path: Path, change: dict[str, object]) -> None:
    path = with_record(saved, tmp_path / "7.safetensors", **change)
    with pytest.raises(CheckpointError, match="damaged") as error:
        load_checkpoint(path)
    assert_one_line_naming(error, path)


def test_a_missing_file_a_directory_and_other_files_are_refused(saved: Path, tmp_path: Path) -> None:
    foreign, folder, text = tmp_path / "foreign.safetensors", tmp_path / "folder", tmp_path / "text.safetensors"
    safetensors.numpy.save_file(load_file(saved), foreign)
    folder.mkdir()
    text.write_text('{"step": 3}\n')
    for path, what in [
        (tmp_path / "no.safetensors", "no such checkpoint"),
        (folder, "cannot be read"),
        (foreign, "not an intact checkpoint"),
        (text, "not an intact checkpoint"),
    ]:
        with pytest.raises(CheckpointError, match=what) as error:
            load_checkpoint(path)
        assert_one_line_naming(error, path)


def test_a_newer_format_is_refused_and_says_so(saved: Path, tmp_path: Path) -> None:
    path = with_record(saved, tmp_path / "7.safetensors", format=FORMAT + 1)
    with pytest.raises(CheckpointError, match=rf"format {FORMAT + 1} is newer .* upgrade iwae") as error:
        load_checkpoint(path)
    assert_one_line_naming(error, path)


def test_another_architecture_names_the_tensor_and_both_shapes(tmp_path: Path) -> None:
    path = tmp_path / "1.safetensors"
    save(path, any_state(ARCHITECTURES[1]), Architecture(6, (3,), ((9, 7),)))
    with pytest.raises(CheckpointError, match=r"hidden\.0\.weight.*\[6, 8\].*needs float32\[6, 9\]") as error:
        load_checkpoint(path).model()
    assert_one_line_naming(error, path)
    save(path, any_state(ARCHITECTURES[1]), ARCHITECTURES[2])
    with pytest.raises(CheckpointError, match="encoder") as error:
        load_checkpoint(path).train_state(paper_adam())
    assert_one_line_naming(error, path)


@pytest.mark.parametrize("failing", ["replace", "fsync"])
@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=["full", "interrupted"]
)
def test_an_interrupted_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, failure: BaseException
) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"old": 1})
    before = files_below(tmp_path)

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(failure)) as error:
        write_json(path, {"new": 2})
    monkeypatch.undo()
    assert files_below(tmp_path) == before
    if isinstance(error.value, OSError):
        assert error.value.filename == str(path)
        assert error.value.errno == errno.ENOSPC
    write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"new": 2}
    assert list(files_below(tmp_path)) == ["value.json"]


def test_the_content_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    write_atomically(tmp_path / "value", b"content")
    assert calls == ["fsync", "replace", "fsync"]
