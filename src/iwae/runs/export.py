"""A model's encoder and decoder as StableHLO or ONNX, with their weights, for use without this package."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jaxtyping import Array, Float

from iwae.arithmetic import standard_arithmetic
from iwae.errors import IWAEError, needs_extra
from iwae.io.files import check_writable, write_atomically, write_json
from iwae.models.distributions import Normal
from iwae.models.likelihoods import BernoulliLikelihood, Likelihood
from iwae.models.vae import HierarchicalVAE
from iwae.runs.checkpoint import Checkpoint
from iwae.runs.directory import Run
from iwae.runs.evaluate import versions

ExportFormat = Literal["stablehlo", "onnx"]
NEEDED = {"stablehlo": ("export", ("flatbuffers",)), "onnx": ("onnx", ("jax2onnx", "onnxruntime"))}
"""The extra of each format, and its packages."""
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
CHECKED_ROWS = 7
TOLERANCE = 1e-5


def export_model(
    model: HierarchicalVAE,
    directory: str | Path,
    format: ExportFormat = "stablehlo",
    *,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Path]:
    """Writes `encoder.<format>`, `decoder.<format>` and `export.json`, which says what goes in and comes out, into a
    directory; returns their paths by name. The number of rows of a call is free; the weights are in the files.

    The encoder maps rows `[batch, visible]`, float32 in the units of the data (it standardizes them itself; NaN is a
    missing value where the model knows such), to the mean and sigma of every q(h_l | h_{l-1}), h_1 first, with the
    layers below at their means; binary latents have a mean alone. The decoder maps the top layer `[batch, units]` to
    the means of the visible layer in the units of the data, with the layers between at their means; of categories it
    gives the probability of each level. Bits are drawn by nobody: a model of grey values takes zeros and ones.

    StableHLO, which needs the extra `export`, is what `jax.export.deserialize` reads. ONNX needs the extra `onnx`; it
    is compared with the model, by onnxruntime, before it is written. `about` is added to `export.json`.

    Raises IWAEError for another format, a missing package and an ONNX file that differs by more than 1e-5, and OSError
    where nothing can be written.
    """
    if format not in get_args(ExportFormat):
        raise IWAEError(f"`format` must be one of {', '.join(get_args(ExportFormat))}, got {format!r}")
    check_packages(format)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    check_writable(directory)
    parts = {"encoder": encoder_of(model), "decoder": decoder_of(model)}
    sizes = {"encoder": model.visible, "decoder": model.latent[-1]}
    convert = to_stablehlo if format == "stablehlo" else to_onnx
    content = {name: convert(function, sizes[name]) for name, function in parts.items()}
    record = {"format": format, "versions": versions(), "likelihood": model.likelihood.to_json(), **_signatures(model)}
    for name, made in content.items():
        write_atomically(directory / f"{name}.{format}", made)
    write_json(directory / "export.json", {**record, **(about or {})})
    return {name: directory / f"{name}.{format}" for name in parts} | {"export": directory / "export.json"}


def export_run(run: Run, checkpoint: Checkpoint, format: ExportFormat, directory: Path | None = None) -> list[Path]:
    """`export_model` of a run's checkpoint, by default into `<run>/export/<format>`; `export.json` also says which run
    and weights it is of, the shape of images and the columns of a table.
    """
    about = {
        "run": run.path.resolve().name,
        "checkpoint": str(checkpoint.path.relative_to(run.path)),
        "weights_sha256": checkpoint.weights_digest(),
        "data": run.data["name"],
        "image_shape": run.data["image_shape"],
        "columns": run.data.get("columns", []),
    }
    written = export_model(checkpoint.model(), directory or run.path / "export" / format, format, about=about)
    return list(written.values())


def encoder_of(model: HierarchicalVAE) -> Callable[[Array], tuple[Array, ...]]:
    """The encoder as a function of rows in the units of the data, as `export_model` describes it."""
    likelihood = _without_draws(model.likelihood)

    def encoder(x: Float[Array, "batch visible"]) -> tuple[Array, ...]:
        found: list[Array] = []
        value = model.encoder_input(likelihood.prepare(x, jax.random.key(0)))
        for layer in model.encoder:
            given = layer(value)
            value = given.mean
            found += [value, jnp.exp(given.log_sigma)] if isinstance(given, Normal) else [value]
        return tuple(found)

    return encoder


def decoder_of(model: HierarchicalVAE) -> Callable[[Array], Array]:
    """The decoder as a function of the top layer, as `export_model` describes it."""

    def decoder(h: Float[Array, "batch units"]) -> Array:
        for layer in reversed(model.decoder[1:]):
            h = layer(h).mean
        return model.likelihood.averaged(model.decoder[0](h))

    return decoder


def check_packages(format: ExportFormat) -> None:
    """Raises IWAEError where a package that a format needs is missing."""
    extra, packages = NEEDED[format]
    for package in packages:
        needs_extra(package, extra)


def to_stablehlo(function: Callable[[Array], Any], size: int) -> bytes:
    """A function of rows `[batch, size]`, for any number of rows and every kind of device, as JAX's serialized
    StableHLO. Raises IWAEError without the package for it.
    """
    check_packages("stablehlo")
    with standard_arithmetic():
        (batch,) = jax_export.symbolic_shape("batch")
        rows = jax.ShapeDtypeStruct((batch, size), jnp.float32)
        return bytes(jax_export.export(jax.jit(function), platforms=PLATFORMS)(rows).serialize())


def to_onnx(function: Callable[[Array], Any], size: int) -> bytes:
    """A function of rows `[batch, size]`, for any number of rows, as an ONNX model that onnxruntime computes to 1e-5.

    Raises IWAEError where the packages are missing, where the conversion fails, and where the two differ.
    """
    check_packages("onnx")
    import jax2onnx  # pyright: ignore[reportMissingImports]
    import onnxruntime  # pyright: ignore[reportMissingImports]

    rows = np.random.default_rng(0).random((CHECKED_ROWS, size), np.float32)
    try:
        with standard_arithmetic():
            expected = jax.tree.leaves(jax.jit(function)(rows))
            content = jax2onnx.to_onnx(function, inputs=[("batch", size)]).SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        found: Sequence[Any] = session.run(None, {session.get_inputs()[0].name: rows})
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise IWAEError(f"`format` onnx: jax2onnx can't convert this model ({reason}): use stablehlo") from None
    for mine, theirs in zip(expected, found, strict=True):
        if not np.allclose(mine, theirs, rtol=TOLERANCE, atol=TOLERANCE):
            gap = float(np.max(np.abs(np.asarray(mine) - theirs)))
            raise IWAEError(f"`format` onnx: onnxruntime differs from the model by {gap:.1e}: use stablehlo")
    return content


def _without_draws(likelihood: Likelihood) -> Likelihood:
    """The likelihood, whose Bernoulli values, also those of some columns, are taken as they are."""

    def is_bernoulli(node: Any) -> bool:
        return isinstance(node, BernoulliLikelihood)

    return jax.tree.map(
        lambda node: replace(node, resample=False) if is_bernoulli(node) else node, likelihood, is_leaf=is_bernoulli
    )


def _signatures(model: HierarchicalVAE) -> dict[str, Any]:
    """What goes into and comes out of the two, in words and numbers."""
    likelihood, latent = model.likelihood, model.latent
    codes = []
    for layer, (conditional, units) in enumerate(zip(model.encoder, latent, strict=True), 1):
        given = jax.eval_shape(conditional, jax.ShapeDtypeStruct((1, _inputs(model, layer)), jnp.float32))
        kinds = ("mean", "sigma") if isinstance(given, Normal) else ("mean",)
        codes += [_array(f"h_{layer}_{kind}", units, f"{kind} of q(h_{layer} | h_{layer - 1})") for kind in kinds]
    has_levels = likelihood.num_inputs(model.visible) != model.visible
    means = "means, and the probability of every level of a category" if has_levels else "means"
    gaps = "; NaN is a missing value" if likelihood.missing else ""
    outputs = likelihood.num_inputs(model.visible)
    return {
        "encoder": {
            "inputs": [_array("x", model.visible, f"rows in the units of the data ({likelihood.words}){gaps}")],
            "outputs": codes,
        },
        "decoder": {
            "inputs": [_array("h", latent[-1], f"values of h_{len(latent)}, the top layer")],
            "outputs": [_array("mean", outputs, f"{means}, in the units of the data")],
        },
    }


def _inputs(model: HierarchicalVAE, layer: int) -> int:
    """Numbers that the encoder's `layer`, from 1, is given."""
    if layer > 1:
        return model.latent[layer - 2]
    return jax.eval_shape(model.encoder_input, jax.ShapeDtypeStruct((1, model.visible), jnp.float32)).shape[1]


def _array(name: str, size: int, words: str) -> dict[str, Any]:
    return {"name": name, "shape": ["batch", size], "type": "float32", "what": words}
