"""vjp: the adjoint of the derivative at a point, as a reusable function."""

import math
from collections import OrderedDict

import numpy as np
import optree
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpujac as gj
from tests.transforms import helpers as h

X = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(("name", "f", "args"), h.SAMPLES, ids=h.IDS)
def test_pullback_is_the_transposed_difference_matrix(name, f, args, rng):
    y, pullback = gj.vjp(f, *args)
    h.assert_close(y, f(*args))
    ct = h.random_like(y, rng)
    expected = h.vector(ct) @ h.difference_matrix(f, *args)
    np.testing.assert_allclose(h.vector(pullback(ct)), expected, atol=h.DIFFERENCE * 10)


@pytest.mark.parametrize(("name", "f", "args"), h.SAMPLES, ids=h.IDS)
def test_pullback_is_adjoint_to_jvp(name, f, args, rng):
    y, pullback = gj.vjp(f, *args)
    for _ in range(3):  # the pullback may be called again and again
        t, ct = h.random_like(args, rng), h.random_like(y, rng)
        _, dy = gj.jvp(f, args, t)
        assert h.inner(ct, dy) == pytest.approx(h.inner(pullback(ct), t), rel=1e-11)


def test_the_result_is_a_tuple_with_the_structure_of_the_primals():
    _, pullback = gj.vjp(lambda p, q: p["a"] * q[0], {"a": X, "b": None}, [X, X])
    found = pullback(np.ones(3))
    h.assert_close(found, ({"a": X, "b": None}, [X, np.zeros(3)]))


def test_one_primal_gives_a_tuple_of_one():
    assert isinstance(gj.vjp(np.sin, X)[1](X), tuple)


def test_output_keeps_its_containers_and_cotangents_match_by_key():
    y, pullback = gj.vjp(lambda x: OrderedDict(z=x, a=2 * x), X)
    assert type(y) is OrderedDict
    assert list(y) == ["z", "a"]
    (found,) = pullback({"a": np.ones(3), "z": np.zeros(3)})
    np.testing.assert_array_equal(found, [2, 2, 2])


def test_a_variable_returned_twice_adds_its_cotangents():
    def f(x):
        y = np.sin(x)
        return y, y, x, x

    (found,) = gj.vjp(f, X)[1]((X, 2 * X, X, X))
    np.testing.assert_allclose(found, 3 * X * np.cos(X) + 2 * X)


def test_constant_and_unused_are_zeros_never_none():
    _, pullback = gj.vjp(lambda x, y: (np.ones(2), x[0]), X, X)
    np.testing.assert_array_equal(pullback((np.ones(2), 1.0))[1], np.zeros(3))
    _, pullback = gj.vjp(lambda x: np.ones(2), X)
    np.testing.assert_array_equal(pullback(np.ones(2))[0], np.zeros(3))


def test_aux_may_hold_anything_and_is_unwrapped():
    def f(x):
        return x * x, {"inner": x + 1, "text": "ok", "none": None, "n": 3, "flags": x > 1}

    _, pullback, aux = gj.vjp(f, X, has_aux=True)
    assert (aux["text"], aux["none"], aux["n"]) == ("ok", None, 3)
    assert type(aux["inner"]) is np.ndarray
    assert type(aux["flags"]) is np.ndarray
    np.testing.assert_array_equal(pullback(np.ones(3))[0], 2 * X)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("other", ["f4", "f8"])
def test_the_result_has_the_dtype_of_the_primal(dtype, other):
    _, pullback = gj.vjp(lambda x: x * np.arange(3.0), X.astype(dtype))
    assert pullback(np.ones(3, other))[0].dtype == dtype


@pytest.mark.parametrize("x", [2.0, np.float32(2.0), np.float64(2.0), np.array(2.0)])
def test_scalars_of_every_kind(x):
    y, pullback = gj.vjp(lambda x: x * np.sin(x), x)
    (found,) = pullback(1.0)
    assert float(y) == pytest.approx(2 * math.sin(2.0), rel=1e-6)
    assert float(found) == pytest.approx(math.sin(2.0) + 2 * math.cos(2.0), rel=1e-6)
    if isinstance(x, np.generic):
        assert found.dtype == x.dtype


def test_no_primals_give_an_empty_tuple():
    y, pullback = gj.vjp(lambda: 3.0)
    assert (y, pullback(1.0)) == (3.0, ())


def test_writes_into_the_inputs_after_the_call_change_nothing():
    x = X.copy()
    _, pullback = gj.vjp(lambda x: x * x * x, x)
    before = pullback(np.ones(3))[0].copy()
    x[...] = 100.0
    np.testing.assert_array_equal(pullback(np.ones(3))[0], before)


def test_results_own_their_memory():
    constant, ct = np.ones(3), np.arange(3.0)
    for f in (
        lambda x: x,
        lambda x: x.T,
        lambda x: x[::-1],
        lambda x: x + constant,
        lambda x: constant,
        lambda x: x.reshape(3, 1)[:, 0],
        lambda x: np.broadcast_to(x, (2, 3))[0],
    ):
        x = X.copy()
        y, pullback = gj.vjp(f, x)
        h.assert_owned(y, x, constant, ct)
        h.assert_owned(pullback(ct), x, constant, ct, y)


def test_two_results_of_one_pullback_are_separate_arrays():
    a, b = gj.vjp(lambda x, y: x + y, X, X)[1](np.ones(3))
    assert not np.may_share_memory(a, b)


# ---------------------------------------------------------------- complex numbers

COMPLEX = [
    lambda z: z * 2j,
    lambda z: z * z,
    lambda z: np.conj(z) * z[0],
    np.abs,
    lambda z: np.real(z) * np.exp(1j * np.imag(z)),
    lambda z: np.exp(z),
    lambda z: (z.real, z.imag, z.sum()),
    lambda z: np.stack([z, z * 1j]) @ z,
    lambda z: z / (1 + z * np.conj(z)),
    lambda z: np.array([[1, 1j, 0], [2j, 0, 1]]) @ z,
    lambda z: np.where(z.real > 0, z, 1j * z),
]


@pytest.mark.parametrize("number", range(len(COMPLEX)))
def test_complex_pullback_is_the_adjoint_under_the_real_inner_product(number, rng):
    f = COMPLEX[number]
    z = h.random_like(np.zeros(3, complex), rng)
    y, pullback = gj.vjp(f, z)
    t, ct = h.random_like(z, rng), h.random_like(y, rng)
    _, dy = gj.jvp(f, (z,), (t,))
    assert h.inner(ct, dy) == pytest.approx(h.inner(pullback(ct)[0], t), rel=1e-11)
    step = 1e-6
    ends = [h.vector(f(z + s * step * t)) for s in (1, -1)]
    np.testing.assert_allclose(h.vector(dy), (ends[0] - ends[1]) / (2 * step), atol=1e-7)


def test_the_convention_is_that_of_torch():
    (found,) = gj.vjp(lambda a: a * 2j, np.array(1.0 + 0j))[1](np.array(1.0 + 0j))
    assert found == -2j


def test_a_real_input_of_a_complex_function_gets_a_real_cotangent():
    _, pullback = gj.vjp(lambda x: x * (1 + 2j), X)
    (found,) = pullback(np.full(3, 1 + 1j))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [3, 3, 3])  # Re(conj(1 + 2j) (1 + 1j))


def test_a_real_cotangent_of_a_complex_output_is_cast():
    (found,) = gj.vjp(lambda z: z * 1j, np.ones(2, complex))[1](np.ones(2))
    np.testing.assert_array_equal(found, [-1j, -1j])


# ---------------------------------------------------------------- random trees

shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
trees = st.recursive(
    shapes.map(lambda s: np.linspace(0.5, 1.5, int(np.prod(s))).reshape(s)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.tuples(inner, st.none())
        | st.builds(h.Pair, inner, inner)
    ),
    max_leaves=5,
)


@given(tree=trees, seed=st.integers(0, 1000))
def test_any_tree_in_and_out(tree, seed):
    def f(tree):
        total = sum((np.sum(np.sin(x)) for x in h.leaves(tree)), 0.5)
        return total, optree.tree_map(lambda x: x * total, tree)

    rng = np.random.default_rng(seed)
    y, pullback = gj.vjp(f, tree)
    t, ct = h.random_like(tree, rng), h.random_like(y, rng)
    _, dy = gj.jvp(f, (tree,), (t,))
    found = pullback(ct)
    assert h.inner(ct, dy) == pytest.approx(h.inner(found, t), rel=1e-10, abs=1e-12)
    h.assert_close(gj.linearize(f, tree)[1](t), dy)
    h.assert_owned(found, tree, ct, y)
