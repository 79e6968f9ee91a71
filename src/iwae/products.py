"""Matrix products: in float32, or of operands rounded to bfloat16 and summed in float32."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Precision = Literal["float32", "bfloat16"]


def product(
    left: Float[Array, "*rows inner"], right: Float[Array, "inner columns"], precision: Precision
) -> Float[Array, "*rows columns"]:
    """left @ right. In bfloat16 the products of the backward pass are of rounded operands too (reverse mode only)."""
    return left @ right if precision == "float32" else _bfloat16_product(left, right)


@jax.custom_vjp
def _bfloat16_product(left: Array, right: Array) -> Array:
    return _summed_in_float32(_rounded(left), _rounded(right))


def _rounded(operand: Array) -> Array:
    return operand.astype(jnp.bfloat16)


def _summed_in_float32(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, preferred_element_type=jnp.float32)


def _forward(left: Array, right: Array) -> tuple[Array, tuple[Array, Array]]:
    saved = _rounded(left), _rounded(right)
    return _summed_in_float32(*saved), saved


def _backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    left, right = saved
    rounded = _rounded(cotangent)
    rows = rounded.reshape(-1, rounded.shape[-1])
    return _summed_in_float32(rounded, right.T), _summed_in_float32(left.reshape(-1, left.shape[-1]).T, rows)


_bfloat16_product.defvjp(_forward, _backward)
