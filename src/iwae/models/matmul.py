"""Matrix products: in float32, or of operands rounded to bfloat16 and summed in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from iwae.devices import is_minibatch_divided
from iwae.errors import IWAEError
from iwae.models.architecture import Precision


def product(
    left: Float[Array, "*rows inner"], right: Float[Array, "inner columns"], precision: Precision = "float32"
) -> Float[Array, "*rows columns"]:
    """left @ right. In bfloat16 the products of the backward pass are of rounded operands too (reverse mode only).

    Otherwise no digits are dropped, as GPUs would by default: their TF32 keeps 10 bits. Raises IWAEError for bfloat16
    where the operands are not float32.
    """
    if precision == "bfloat16":
        kind = jnp.result_type(left, right)
        if kind != jnp.float32:
            raise IWAEError(f"products in bfloat16 are of float32 operands, got {kind}")
        return _bfloat16_product(left, right)
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def product_over_rows(
    left: Float[Array, "*rows_inner"], right: Float[Array, "*rows columns"], precision: Precision = "float32"
) -> Float[Array, "*inner columns"]:
    """left.T @ right, the sum over all rows, of `left` `[*rows, inner]` or a number for each row, `[*rows]`; for the
    backward pass: it is not to be differentiated.
    """
    is_rounded = precision == "bfloat16"
    if is_rounded:
        left, right = _rounded(left), _rounded(right)
    if is_minibatch_divided():
        axes, digits = tuple(range(right.ndim - 1)), None if is_rounded else jax.lax.Precision.HIGHEST
        both = ((axes, axes), ((), ()))
        return jax.lax.dot_general(left, right, both, precision=digits, preferred_element_type=jnp.float32)
    left, right = left.reshape(-1, *left.shape[right.ndim - 1 :]).T, right.reshape(-1, right.shape[-1])
    return _summed_in_float32(left, right) if is_rounded else product(left, right)


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
    return _summed_in_float32(rounded, right.T), product_over_rows(left, rounded, "bfloat16")


_bfloat16_product.defvjp(_forward, _backward)
