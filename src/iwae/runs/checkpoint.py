"""TrainState <-> one safetensors file: no pickle, readable names, a digest over everything.

Tensors: `model.encoder.0.hidden.0.weight` `[in, out]` and so on for the weights, `optimizer.mu. ...` and
`optimizer.nu. ...` for Adam's moments, `optimizer.count`, `step` and `epoch_bound`. The file's metadata hold one
JSON text, `iwae`: the format's number, the architecture, the seed, the stage and the digest. A file of
`weights_alone`, a third as large, has neither moments nor `optimizer.count`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import optax
import safetensors
import safetensors.numpy

from iwae.errors import IWAEError
from iwae.io.files import open_regular, write_atomically
from iwae.io.json import Count, Seconds, decode, shortened
from iwae.models.architecture import Architecture, ArchitectureRecord
from iwae.models.likelihoods import BernoulliLikelihood, Likelihood, likelihood_from_json
from iwae.models.vae import HierarchicalVAE
from iwae.training.step import TrainState

FORMAT = 1
MAX_RECORD_BYTES = 1 << 20
# The types of a checkpoint's tensors, as safetensors calls them and as NumPy does.
DTYPES = {"F32": "float32", "I32": "int32"}
# Those that are one number each.
SCALARS = {"optimizer.count": "int32", "step": "int32", "epoch_bound": "float32"}

T = TypeVar("T", bound=Mapping[str, Any])
BERNOULLI = BernoulliLikelihood()


class CheckpointError(IWAEError):
    """A checkpoint that is missing, damaged, of another shape or of a newer format."""


class _Versioned(TypedDict):
    format: Count


class CheckpointRecord(_Versioned):
    """What a checkpoint's metadata record. Before 0.2 all likelihoods were Bernoulli."""

    architecture: ArchitectureRecord
    likelihood: NotRequired[dict[str, Any]]
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    stages_done: Count
    seconds: Seconds
    weights_alone: NotRequired[bool]
    digest: str


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's content: NumPy arrays by name, and what is recorded beside them.

    `stages_done` counts complete stages of the schedule; `seconds` is the training time so far.
    """

    path: Path
    arrays: dict[str, np.ndarray]
    architecture: Architecture
    seed: int
    stages_done: int
    seconds: float
    likelihood: Likelihood = BERNOULLI

    @property
    def step(self) -> int:
        """Number of training steps done."""
        return int(self.arrays["step"])

    @property
    def has_moments(self) -> bool:
        """Whether training can go on from it: not from weights alone."""
        return "optimizer.count" in self.arrays

    def model(self) -> HierarchicalVAE:
        """The model."""
        return self._fill(model_skeleton(self.architecture, self.likelihood), "model")

    def train_state(self, optimizer: optax.GradientTransformation) -> TrainState:
        """The whole state, ready to train on. Raises CheckpointError for weights alone."""
        if not self.has_moments:
            raise CheckpointError(
                f"{self.path}: the checkpoint has weights alone, without the optimizer's moments: its training can't"
                " be continued; start a new run from it with `init_from` and `fresh_optimizer`"
            )
        state = TrainState.create(self.model(), optimizer, self.seed)
        return replace(self.state_of_weights(), optimizer=self._fill(state.optimizer, "optimizer"))

    def state_of_weights(self) -> TrainState:
        """The state without an optimizer's: weights, step and the epoch's bound."""
        state = TrainState.create(self.model(), optax.identity(), self.seed)
        step, epoch_bound = (
            self._fill(part, name) for name, part in (("step", state.step), ("epoch_bound", state.epoch_bound))
        )
        return replace(state, step=step, epoch_bound=epoch_bound)

    def weights_digest(self) -> str:
        """sha256 over the model's tensors: names, shapes and bytes."""
        return digest({n: a for n, a in self.arrays.items() if n.startswith("model.")}, {})

    def _fill(self, skeleton: Any, prefix: str) -> Any:
        """The tree with the arrays of its names, which were checked when they were read."""
        leaves, structure = jax.tree_util.tree_flatten_with_path(skeleton)
        filled = [jnp.asarray(self.arrays[tensor_name(prefix, path)]) for path, _ in leaves]
        return jax.tree.unflatten(structure, filled)


@lru_cache(maxsize=4)
def model_skeleton(architecture: Architecture, likelihood: Likelihood) -> HierarchicalVAE:
    """The model's shapes without any numbers."""
    return eqx.filter_eval_shape(HierarchicalVAE.create, architecture, jax.random.key(0), likelihood)


def tensor_name(prefix: str, path: tuple[Any, ...]) -> str:
    """As version 0.1 called them, so that its files are read and its digests still fit: a network's tanh layers lie in
    their stochastic layer, and the visible layer's outputs are logits.
    """
    name = ".".join([prefix, *(jax.tree_util.keystr((entry,), simple=True) for entry in path)])
    return name.replace(".network.hidden.", ".hidden.").replace("decoder.0.outputs.", "decoder.0.logits.")


def digest(arrays: dict[str, np.ndarray], record: dict[str, Any]) -> str:
    """sha256 over a record and tensors: names, types, shapes and bytes."""
    found = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        found.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def named_tensors(prefix: str, part: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree by their names in files."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(part)
    # safetensors writes the bytes of an array that is not in C order in the wrong places.
    return {tensor_name(prefix, leaf_path): np.asarray(leaf, order="C") for leaf_path, leaf in leaves}


def save_checkpoint(
    path: Path,
    state: TrainState,
    *,
    architecture: Architecture,
    seed: int,
    stages_done: int,
    seconds: float,
    weights_alone: bool = False,
) -> None:
    """Writes a checkpoint atomically and durably. Raises OSError when it can't be written."""
    parts = {"model": state.model, "step": state.step, "epoch_bound": state.epoch_bound}
    if not weights_alone:
        parts["optimizer"] = state.optimizer
    arrays = {name: array for prefix, part in parts.items() for name, array in named_tensors(prefix, part).items()}
    record: dict[str, Any] = {
        "format": FORMAT,
        "architecture": architecture.to_json(),
        "likelihood": state.model.likelihood.to_json(),
        "seed": seed,
        "stages_done": stages_done,
        "seconds": seconds,
    }
    write_tensors(path, arrays, {**record, "weights_alone": True} if weights_alone else record)


def save_weights_alone(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint without the optimizer's moments. Raises OSError when it can't be written."""
    save_checkpoint(
        path,
        checkpoint.state_of_weights(),
        architecture=checkpoint.architecture,
        seed=checkpoint.seed,
        stages_done=checkpoint.stages_done,
        seconds=checkpoint.seconds,
        weights_alone=True,
    )


def write_tensors(path: Path, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    """Writes tensors and what is recorded of them, with a digest over both. Raises OSError when it can't."""
    record = {**record, "digest": digest(arrays, record)}
    write_atomically(path, safetensors.numpy.save(arrays, {"iwae": json.dumps(record)}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads and checks a checkpoint: every tensor is of the name, type and shape that its architecture asks for, before
    memory is taken for any, and the digest fits.

    Raises CheckpointError, naming the file, for anything but an intact one.
    """
    checked, arrays = read_tensors(path, CheckpointRecord, _state_tensors)
    architecture, likelihood = recorded_model(checked)
    if arrays["step"] < 0:
        raise CheckpointError(f"{path}: not an intact checkpoint (its step is {int(arrays['step'])})")
    return Checkpoint(
        path, arrays, architecture, checked["seed"], checked["stages_done"], float(checked["seconds"]), likelihood
    )


Expected = dict[str, tuple[str, list[int]]]
"""Types and shapes of tensors by name."""


def recorded_model(record: Mapping[str, Any]) -> tuple[Architecture, Likelihood]:
    """What a file's record says of its model. Raises IWAEError for what has no meaning."""
    likelihood = likelihood_from_json(record.get("likelihood", {"name": "bernoulli"}))
    return Architecture.from_json(record["architecture"]), likelihood


def model_tensors(record: Mapping[str, Any], prefixes: Sequence[str] = ("model",)) -> Expected:
    """The tensors of the recorded model, once for every prefix."""
    skeleton, _ = jax.tree_util.tree_flatten_with_path(model_skeleton(*recorded_model(record)))
    return {
        tensor_name(prefix, leaf_path): (str(leaf.dtype), list(leaf.shape))
        for leaf_path, leaf in skeleton
        for prefix in prefixes
    }


def _state_tensors(record: Mapping[str, Any]) -> Expected:
    scalars: Expected = {name: (dtype, []) for name, dtype in SCALARS.items()}
    if record.get("weights_alone"):
        del scalars["optimizer.count"]
        return {**scalars, **model_tensors(record)}
    return {**scalars, **model_tensors(record, ("model", "optimizer.mu", "optimizer.nu"))}


def read_tensors(path: Path, kind: type[T], expect: Callable[[T], Expected | None]) -> tuple[T, dict[str, np.ndarray]]:
    """The record and the tensors of a file. `expect` says which tensors the record asks for, None: any; memory is taken
    once the file claims just these.

    Raises CheckpointError, naming the file, for anything but an intact one.
    """
    try:
        # What is no regular file would be waited for by what opens it next.
        open_regular(path).close()
        with safetensors.safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {})["iwae"]
            if len(text) > MAX_RECORD_BYTES:
                raise ValueError(f"its record has {len(text):,} bytes")
            if (version := decode(text, _Versioned)["format"]) > FORMAT:
                raise CheckpointError(
                    f"{path}: checkpoint format {version} is newer than this version reads ({FORMAT}): upgrade iwae"
                )
            checked = decode(text, kind)
            _check_tensors(path, file, expect(checked))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        # The digest is of all that was recorded, also of what only newer versions know.
        record = json.loads(text)
        claimed = record.pop("digest")
        if digest(arrays, record) != claimed:
            raise CheckpointError(f"{path}: the checkpoint is damaged (its digest does not match its content)")
        return checked, arrays
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such checkpoint") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except CheckpointError:
        raise
    except (safetensors.SafetensorError, IWAEError, ValueError, KeyError, RecursionError) as error:
        detail = shortened(" ".join(str(error).removeprefix(f"{path}: ").split()))
        raise CheckpointError(
            f"{path}: not an intact checkpoint, it may be truncated or another file ({detail})"
        ) from None


def _check_tensors(path: Path, file: safetensors.safe_open, expected: Expected | None) -> None:
    """Raises CheckpointError unless a file claims exactly the expected tensors."""
    if expected is None:
        return
    names = set(file.keys())
    for name in [*(name for name in expected if name not in names), *sorted(names - expected.keys())]:
        what = "has no tensor" if name in expected else "has a tensor that no checkpoint has,"
        raise CheckpointError(f"{path}: the checkpoint {what} {shortened(repr(name))}")
    for name, (dtype, shape) in expected.items():
        found = file.get_slice(name)
        found_dtype, found_shape = DTYPES.get(found.get_dtype(), found.get_dtype()), found.get_shape()
        if (found_dtype, found_shape) != (dtype, shape):
            raise CheckpointError(
                f"{path}: tensor {name!r} is {found_dtype}{shortened(str(found_shape))}, but the model needs"
                f" {dtype}{shape}"
            )
