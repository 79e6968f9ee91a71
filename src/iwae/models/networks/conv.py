"""Convolutional networks, for images of any size and number of channels, which come and go as vectors."""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from iwae.errors import IWAEError
from iwae.models.architecture import ImageShape, Precision
from iwae.models.networks.base import Linear, Nonlinearity, Options

LAYOUT = ("NHWC", "HWIO", "NHWC")
# Of convolutions that halve an image's sides: each number meets as many weights as any other.
KERNEL = 4


class Convolution(eqx.Module):
    """A convolution of images `[*rows, height, width, n_in]`, its edges filled up with zeros; then the bias. Both are
    float32 whatever the products' `precision`.
    """

    weight: Float[Array, "height width n_in n_out"]
    bias: Float[Array, " n_out"]
    stride: int = eqx.field(static=True, default=1)
    precision: Precision = eqx.field(static=True, default="float32")

    @classmethod
    def create(cls, n_in: int, n_out: int, key: Key[Array, ""], *, side: int = 3, stride: int = 1) -> "Convolution":
        """Glorot uniform weights and zero biases, as of `Linear`."""
        limit = math.sqrt(6.0 / (side * side * (n_in + n_out)))
        weight = jax.random.uniform(key, (side, side, n_in, n_out), minval=-limit, maxval=limit)
        return cls(weight, jnp.zeros(n_out), stride)

    @classmethod
    def doubling(cls, n_in: int, n_out: int, key: Key[Array, ""]) -> "Convolution":
        """One to 4 times as many channels, which `depth_to_space` makes an image of twice the sides of: a sub-pixel
        convolution (Shi et al. 2016), here quicker than the transposed one that it stands for. At first the four
        pixels are alike, so that there is no checkerboard (Aitken et al. 2017).
        """
        one = cls.create(n_in, n_out, key)
        return cls(jnp.tile(one.weight, 4), jnp.tile(one.bias, 4))

    def __call__(self, x: Float[Array, "*rows height width n_in"]) -> Float[Array, "*rows newheight newwidth n_out"]:
        flat = x.reshape(-1, *x.shape[-3:])
        convolve: Any = _in_float32 if self.precision == "float32" else _in_bfloat16
        found = convolve(flat, self.weight, self.stride)
        return found.reshape(*x.shape[:-3], *found.shape[1:]) + self.bias


def depth_to_space(x: Float[Array, "*rows height width four_n"]) -> Float[Array, "*rows newheight newwidth n"]:
    """Images of twice the sides, whose 2 x 2 pixels are what lies at one place of `x`, row by row."""
    *rows, height, width, count = x.shape
    pixels = x.reshape(*rows, height, width, 2, 2, count // 4)
    return jnp.moveaxis(pixels, -3, -4).reshape(*rows, 2 * height, 2 * width, count // 4)


def _in_float32(x: Array, weight: Array, stride: int) -> Array:
    return _convolve(x, weight, stride, precision=jax.lax.Precision.HIGHEST)


def _convolve(x: Array, weight: Array, stride: int, **how: Any) -> Array:
    return jax.lax.conv_general_dilated(x, weight, (stride, stride), "SAME", dimension_numbers=LAYOUT, **how)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _in_bfloat16(x: Array, weight: Array, stride: int) -> Array:
    return _forward(x, weight, stride)[0]


def _forward(x: Array, weight: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    saved = x.astype(jnp.bfloat16), weight.astype(jnp.bfloat16)
    return _convolve(*saved, stride, preferred_element_type=jnp.float32), saved


def _backward(stride: int, saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, ...]:
    _, pull = jax.vjp(partial(_convolve, stride=stride), *saved)
    return tuple(found.astype(jnp.float32) for found in pull(cotangent.astype(jnp.bfloat16)))


_in_bfloat16.defvjp(_forward, _backward)


class ConvBlock(eqx.Module):
    """x + second(after(first(before(x)))), of convolutions that keep the size; the second is zero at first (He et al.
    2016; Goyal et al. 2017).
    """

    before: Nonlinearity
    first: Convolution
    after: Nonlinearity
    second: Convolution

    @classmethod
    def create(cls, channels: int, key: Key[Array, ""], **how: Unpack[Options]) -> "ConvBlock":
        first = Convolution.create(channels, channels, key)
        second = jax.tree.map(jnp.zeros_like, first)
        return cls(Nonlinearity.create(channels, **how), first, Nonlinearity.create(channels, **how), second)

    def __call__(self, x: Float[Array, "*rows height width n"]) -> Float[Array, "*rows height width n"]:
        return x + self.second(self.after(self.first(self.before(x, 3)), 3))


class _Stage(eqx.Module):
    """A layer to another size, its nonlinearity, and blocks."""

    layer: Convolution | Linear
    after: Nonlinearity
    blocks: tuple[ConvBlock, ...]

    @classmethod
    def of(cls, layer: Any, channels: int, key: Key[Array, ""], conv_blocks: int, **how: Unpack[Options]) -> "_Stage":
        keys = (jax.random.fold_in(key, i) for i in range(conv_blocks))
        after = Nonlinearity.create(channels, **how)
        return cls(layer, after, tuple(ConvBlock.create(channels, own, **how) for own in keys))

    def __call__(self, x: Array) -> Array:
        """From images that the layer has made."""
        x = self.after(x, 3)
        for block in self.blocks:
            x = block(x)
        return x


class _Convolutional(eqx.Module):
    """What the two networks have in common."""

    takes_batches: ClassVar[bool] = True
    stages: tuple[_Stage, ...]
    image_shape: ImageShape = eqx.field(static=True)

    @property
    def settings(self) -> dict[str, Any]:
        """The options that it was made with."""
        first = self.stages[0]
        return {**first.after.settings, "conv_blocks": len(first.blocks), "image_shape": self.image_shape}


class ConvEncoder(_Convolutional):
    """Convolutions of stride 2, one for each width, its channels, which halve the sides (rounded up); each is followed
    by layer norm over channels, an activation, dropout, and `conv_blocks` residual blocks. What the last one gives is
    the features.

    Inputs of several numbers a pixel lie one after the other, as whole images.
    """

    @classmethod
    def create(
        cls,
        sizes: Sequence[int],
        key: Key[Array, ""],
        *,
        image_shape: ImageShape,
        conv_blocks: int = 0,
        **options: Unpack[Options],
    ) -> "ConvEncoder":
        """A network of `sizes[0]` inputs; the other sizes are channels, and `options` are those of `Nonlinearity`.

        Raises IWAEError for no channels, and for inputs that are not whole images.
        """
        images, rest = divmod(sizes[0], math.prod(image_shape))
        _check(sizes, f"{sizes[0]} inputs are no images of shape {image_shape}" if rest else None)
        pairs = itertools.pairwise((image_shape[2] * images, *sizes[1:]))
        stages = []
        for i, (a, b) in enumerate(pairs):
            own, of_blocks = jax.random.split(jax.random.fold_in(key, i))
            layer = Convolution.create(a, b, own, side=KERNEL, stride=2)
            stages.append(_Stage.of(layer, b, of_blocks, conv_blocks, **options))
        return cls(tuple(stages), image_shape)

    def __call__(self, x: Float[Array, "*rows n_in"]) -> Float[Array, "*rows n_features"]:
        rows = x.shape[:-1]
        height, width, channels = self.image_shape
        images = jnp.moveaxis(x.reshape(*rows, -1, height, width, channels), -4, -2)
        found = images.reshape(*rows, height, width, -1)
        for stage in self.stages:
            found = stage(stage.layer(found))
        return found.reshape(*rows, -1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after every convolution."""
        return tuple(stage.layer.bias.shape[0] for stage in self.stages)


class ConvDecoder(_Convolutional):
    """The mirror image of `ConvEncoder`: a linear layer to small images of the first width's channels, then sub-pixel
    convolutions to the other widths' and once more to the last one's, which double the sides. The features are images
    of the full size.
    """

    @classmethod
    def create(
        cls,
        sizes: Sequence[int],
        key: Key[Array, ""],
        *,
        image_shape: ImageShape,
        conv_blocks: int = 0,
        **options: Unpack[Options],
    ) -> "ConvDecoder":
        """A network of `sizes[0]` inputs; the other sizes are channels, those of the smallest images first, and
        `options` are those of `Nonlinearity`.

        Raises IWAEError for no channels.
        """
        _check(sizes, None)
        widths = (*sizes[1:], sizes[-1])
        stages = []
        for i, (a, b) in enumerate(itertools.pairwise((sizes[0], *widths))):
            own, of_blocks = jax.random.split(jax.random.fold_in(key, i))
            if i == 0:
                layer = Linear.create(a, math.prod(_sides(image_shape, len(widths) - 1)) * b, own)
            else:
                layer = Convolution.doubling(a, b, own)
            stages.append(_Stage.of(layer, b, of_blocks, conv_blocks, **options))
        return cls(tuple(stages), image_shape)

    def __call__(self, x: Float[Array, "*rows n_in"]) -> Float[Array, "*rows n_features"]:
        rows, depth = x.shape[:-1], len(self.stages) - 1
        for i, stage in enumerate(self.stages):
            height, width = _sides(self.image_shape, depth - i)
            x = stage.layer(x)
            # Twice a side that was rounded up is one too many.
            x = x.reshape(*rows, height, width, -1) if i == 0 else depth_to_space(x)[..., :height, :width, :]
            x = stage(x)
        return x.reshape(*rows, -1)

    def make_outputs(self, count: int, key: Key[Array, ""]) -> "ConvOutputs":
        """What makes `count` numbers of the features, for the visible layer. Raises IWAEError where that is no multiple
        of the numbers in an image.
        """
        kinds, rest = divmod(count, math.prod(self.image_shape))
        if rest:
            raise IWAEError(f"{count} outputs are no images of shape {self.image_shape}: use another `network`")
        convolution = Convolution.create(self.widths[-1], self.image_shape[2] * kinds, key)
        return ConvOutputs(convolution.weight, jnp.zeros(count), self.image_shape)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the images, the smallest first, but for those of full size."""
        return tuple(stage.layer.weight.shape[-2] for stage in self.stages[1:])


class ConvOutputs(eqx.Module):
    """A convolution of images of features to one or several numbers for each number of an image, and a bias for each of
    these. Numbers of one kind lie side by side, as one image.
    """

    weight: Float[Array, "height width n_in n_out"]
    bias: Float[Array, " count"]
    image_shape: ImageShape = eqx.field(static=True)
    precision: Precision = eqx.field(static=True, default="float32")

    def __call__(self, x: Float[Array, "*rows n_features"]) -> Float[Array, "*rows count"]:
        rows = x.shape[:-1]
        height, width, channels = self.image_shape
        kernel = Convolution(self.weight, jnp.zeros(self.weight.shape[-1], x.dtype), 1, self.precision)
        found = kernel(x.reshape(*rows, height, width, -1)).reshape(*rows, height, width, -1, channels)
        return jnp.moveaxis(found, -2, -4).reshape(*rows, -1) + self.bias


def _sides(image_shape: ImageShape, halvings: int) -> tuple[int, int]:
    """Height and width after so many halvings, rounded up."""
    height, width = (math.ceil(side / 2**halvings) for side in image_shape[:2])
    return height, width


def _check(sizes: Sequence[int], problem: str | None) -> None:
    if len(sizes) == 1:
        problem = "a convolutional network needs the channels of at least one layer, but `hidden` has none"
    if problem is not None:
        raise IWAEError(problem)
