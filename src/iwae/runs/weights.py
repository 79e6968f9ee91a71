"""A model's weights in one safetensors file, without moments: `iwae.save` and the loading of it."""

from pathlib import Path
from typing import Any, NotRequired, TypedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from iwae.errors import IWAEError
from iwae.io.json import Count
from iwae.models.architecture import Architecture, ArchitectureRecord
from iwae.models.layers import BernoulliLayer
from iwae.models.vae import HierarchicalVAE
from iwae.runs.checkpoint import (
    FORMAT,
    CheckpointError,
    Expected,
    model_tensors,
    named_tensors,
    read_tensors,
    recorded_model,
    tensor_name,
    write_tensors,
)


class WeightsRecord(TypedDict):
    """What is recorded beside the weights: nothing of a model with custom networks."""

    format: Count
    digest: str
    architecture: NotRequired[ArchitectureRecord]
    likelihood: NotRequired[dict[str, Any]]
    seed: NotRequired[Count]


def save(model: HierarchicalVAE, path: str | Path) -> None:
    """Writes a model's weights, with its architecture and likelihood, to a safetensors file.

    Of a model with custom networks the weights alone are written: `load` then needs such a model to fill.

    Raises OSError, naming the file, when it can't be written.
    """
    record: dict[str, Any] = {"format": FORMAT}
    if (architecture := architecture_of(model)) is not None:
        record |= {"architecture": architecture.to_json(), "likelihood": model.likelihood.to_json()}
    write_tensors(Path(path), _weights(model), record)


def load_weights(path: Path, into: HierarchicalVAE | None = None) -> HierarchicalVAE:
    """The model in a file that `save` wrote, or in a checkpoint of a run. `into` is a model of the same structure, for
    files that hold no architecture.

    Raises CheckpointError, naming the file, for anything but an intact one, and where `into` is needed or does not fit.
    """
    record, arrays = read_tensors(path, WeightsRecord, _expected)
    if into is None:
        if "architecture" not in record:
            raise CheckpointError(
                f"{path}: the networks of this model are not in the file: give `into`, a model of the same networks"
            )
        into = HierarchicalVAE.create(recorded_model(record)[0], jax.random.key(0), recorded_model(record)[1])
    params, rest = eqx.partition(into, eqx.is_inexact_array)
    wanted = _weights(into)
    found = {name: array for name, array in arrays.items() if name.startswith("model.")}
    for name in sorted(wanted.keys() ^ found.keys()):
        raise CheckpointError(f"{path}: {name!r} is {'not in the file' if name in wanted else 'not in `into`'}")
    for name, leaf in wanted.items():
        if leaf.shape != found[name].shape:
            raise CheckpointError(f"{path}: {name!r} has shape {list(found[name].shape)}, `into` {list(leaf.shape)}")
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    filled = [jnp.asarray(found[tensor_name("model", leaf_path)]) for leaf_path, _ in leaves]
    return eqx.combine(jax.tree.unflatten(structure, filled), rest)


def _expected(record: WeightsRecord) -> Expected | None:
    """A checkpoint's tensors are checked where it is loaded as one."""
    return model_tensors(record) if "architecture" in record and "seed" not in record else None


def _weights(model: HierarchicalVAE) -> dict[str, np.ndarray]:
    return named_tensors("model", eqx.filter(model, eqx.is_inexact_array))


def architecture_of(model: HierarchicalVAE) -> Architecture | None:
    """The architecture of a model; None for one with custom parts, which none describes."""
    parts = {"network": model.network, "prior": model.prior_name, "posterior": model.posterior_name}
    if None in parts.values():
        return None
    encoder: Any = model.encoder
    hidden = tuple(layer.network.widths for layer in encoder)
    kinds: Any = tuple("bernoulli" if isinstance(layer, BernoulliLayer) else "gaussian" for layer in encoder)
    made_of = (encoder[0].network, encoder[0], model.prior)
    own = {**{name: value for part in made_of for name, value in getattr(part, "settings", {}).items()}, **parts}
    missing = "at-random" if model.missing is None else "self-masking"
    try:
        found = Architecture(model.visible, model.latent, hidden, kinds, mask=model.mask, missing=missing, **own)
    except IWAEError:
        return None
    same = eqx.filter_eval_shape(HierarchicalVAE.create, found, jax.random.key(0), model.likelihood)
    # A custom part may hold functions, which have no shape.
    shapes = [jax.tree.map(lambda leaf: getattr(leaf, "shape", ()), one) for one in (same, model)]
    return found if eqx.tree_equal(*shapes) else None
