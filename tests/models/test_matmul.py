"""Products in bfloat16: what is rounded, what is not, and that nothing else changes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.interpreters import partial_eval

from helpers.toy import toy_dataset
from iwae.errors import IWAEError
from iwae.estimators.base import Estimator
from iwae.estimators.mixed_precision import InBFloat16
from iwae.estimators.objective import Objective, make_estimator
from iwae.models.architecture import Architecture
from iwae.models.matmul import product
from iwae.models.vae import HierarchicalVAE
from iwae.training.optim import paper_adam
from iwae.training.step import LearningRates, TrainState, run_chunk

BATCH = 4


def make_model(layers: int = 1) -> HierarchicalVAE:
    latent, hidden = (3, 2)[:layers], ((8, 8), (7, 7))[:layers]
    architecture = Architecture(6, latent, hidden, ("gaussian",) * layers)
    return HierarchicalVAE.create(architecture, jax.random.key(0), bias=np.full(6, -0.4))


def rounded(values: np.ndarray) -> np.ndarray:
    return np.asarray(jnp.asarray(values, jnp.bfloat16), np.float64)


@jax.jit
def product_and_gradient(left: jax.Array, right: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
    value, pull = jax.vjp(lambda a, b: product(a, b, "bfloat16"), left, right)
    return value, *pull(cotangent)


# Few shapes, as each is compiled.
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(), (3,), (2, 3)]),
    st.sampled_from([1, 7, 40]),
    st.sampled_from([1, 9]),
)
def test_a_product_and_its_gradient_are_of_rounded_operands_and_summed_in_float32(seed, rows, inner, columns):
    rng = np.random.default_rng(seed)
    left, right = (rng.normal(size=shape).astype(np.float32) for shape in ((*rows, inner), (inner, columns)))
    cotangent = rng.normal(size=(*rows, columns)).astype(np.float32)
    value, to_left, to_right = product_and_gradient(left, right, cotangent)
    a, b, c = rounded(left), rounded(right), rounded(cotangent)
    expected = (a @ b, c @ b.T, a.reshape(-1, inner).T @ c.reshape(-1, columns))
    for found, exact in zip((value, to_left, to_right), expected, strict=True):
        assert found.dtype == jnp.float32
        # Products of two bfloat16 numbers are exact in float32: only the sums round.
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-4)


def test_rounding_is_what_makes_the_difference():
    left, right = np.full((1, 4), 1.001, np.float32), np.eye(4, dtype=np.float32)
    assert np.all(np.asarray(product(jnp.asarray(left), jnp.asarray(right), "bfloat16")) == 1.0)
    np.testing.assert_array_equal(product(jnp.asarray(left), jnp.asarray(right), "float32"), left)


def dots_of(jaxpr: Jaxpr) -> list[JaxprEqn]:
    """Every product in a program, of matrices or vectors, in what it calls too."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.append(equation)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if isinstance(inner, ClosedJaxpr):
                    found += dots_of(inner.jaxpr)
                elif isinstance(inner, Jaxpr):
                    found += dots_of(inner)
    return found


def products_of(jaxpr: Jaxpr) -> list[tuple[Any, ...]]:
    """Types of every product of two matrices in a program: of its operands, and of its result."""
    found = []
    for equation in dots_of(jaxpr):
        operands = [variable.aval for variable in equation.invars]
        if all(operand.ndim >= 2 for operand in operands):
            found.append((*(operand.dtype for operand in operands), equation.outvars[0].aval.dtype))
    return found


WORDS = ["elbo", "iwae", "iwae:dreg", "iwae:dreg:backward=2", "vimco"]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("word", WORDS)
def test_every_product_of_a_step_forward_and_backward_is_in_bfloat16(word: str, layers: int):
    model, x = make_model(layers), jnp.zeros((BATCH, 6))
    estimator = make_estimator(Objective.parse(word, 4))

    def program(estimator: Estimator) -> list[tuple[Any, ...]]:
        jaxpr = jax.make_jaxpr(estimator)(model, x, jax.random.key(0)).jaxpr
        # Without what nobody uses, such as gradients of the data, and the compiler leaves out.
        return products_of(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])

    plain, mixed = program(estimator), program(InBFloat16(estimator))
    assert len(mixed) == len(plain) >= 3 * 4 * layers
    assert {str(kind) for kinds in plain for kind in kinds} == {"float32"}
    assert {tuple(map(str, kinds)) for kinds in mixed} == {("bfloat16", "bfloat16", "float32")}


def test_products_in_float32_keep_all_digits_on_a_gpu_too():
    """Where nothing else is asked for, GPUs round operands to ten bits (TF32)."""
    model, x, key = make_model(2), jnp.zeros((BATCH, 6)), jax.random.key(0)
    programs = [
        *(jax.make_jaxpr(make_estimator(Objective.parse(word, 4)))(model, x, key) for word in [*WORDS, "jvi:dreg"]),
        jax.make_jaxpr(lambda model, x, key: model.log_weights(x, key, 5))(model, x, key),
        jax.make_jaxpr(lambda model, key: model.sample(key, 5))(model, key),
    ]
    for program in programs:
        dots = dots_of(program.jaxpr)
        assert dots
        assert all(dot.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2 for dot in dots)


def test_products_in_bfloat16_of_other_operands_than_float32_are_refused():
    with jax.enable_x64(True), pytest.raises(IWAEError, match="of float32 operands, got float64"):
        product(jnp.ones((2, 3)), jnp.ones((3, 4)), "bfloat16")


@pytest.mark.parametrize("word", WORDS)
def test_estimates_are_close_to_those_of_float32_and_have_the_models_shape(word: str):
    model, x = make_model(2), (jax.random.uniform(jax.random.key(3), (BATCH, 6)) < 0.5).astype(jnp.float32)
    estimator, key = make_estimator(Objective.parse(word, 4)), jax.random.key(1)
    value, gradient = eqx.filter_jit(estimator)(model, x, key)
    mixed_value, mixed = eqx.filter_jit(InBFloat16(estimator))(model, x, key)
    assert abs(float(mixed_value - value)) < 0.02 * abs(float(value))
    assert float(mixed_value) != float(value)
    assert jax.tree.structure(mixed) == jax.tree.structure(model)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(mixed))
    one, other = (jax.flatten_util.ravel_pytree(tree)[0] for tree in (gradient, mixed))  # pyright: ignore
    assert float(one @ other / jnp.linalg.norm(one) / jnp.linalg.norm(other)) > 0.99


def test_the_state_of_training_stays_in_float32():
    dataset, optimizer = toy_dataset(), paper_adam()
    estimator = InBFloat16(make_estimator(Objective("iwae", k=3)))
    start = TrainState.create(make_model(), optimizer, seed=0)
    data, rates = jnp.asarray(dataset.train), LearningRates.constant(1e-2)
    (state,), bad_steps, _ = run_chunk(
        (start,), data, rates, jnp.int32(20), estimators=(estimator,), optimizer=optimizer, batch_size=BATCH
    )
    assert int(bad_steps[0]) == -1
    assert eqx.tree_equal(jax.tree.structure(state), jax.tree.structure(start))
    for tree in (state.model, state.optimizer.mu, state.optimizer.nu):  # pyright: ignore
        for leaf in jax.tree.leaves(tree):
            assert leaf.dtype == jnp.float32
            # Or an update smaller than bfloat16's last digit would be lost.
            assert np.any(np.asarray(leaf) != rounded(np.asarray(leaf)))
