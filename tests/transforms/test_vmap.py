"""vmap: a function of one example becomes a function of a batch."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpujac as gj
from tests.transforms import helpers as h

X = np.arange(6.0).reshape(2, 3)


def loop(f, *columns):
    """The stacked results of f on each row."""
    return np.stack([f(*row) for row in zip(*columns, strict=True)])


@pytest.mark.parametrize(("name", "f", "args"), h.SAMPLES, ids=h.IDS)
def test_every_sample_equals_a_loop(name, f, args, rng):
    import optree

    lanes = [optree.tree_map(lambda x: x + 0.1 * rng.standard_normal(np.shape(x)), args) for _ in range(4)]
    batch = optree.tree_map(lambda *xs: np.stack(xs), *lanes)
    found = gj.vmap(f)(*batch)
    expected = optree.tree_map(lambda *ys: np.stack(ys), *[f(*lane) for lane in lanes])
    h.assert_close(found, expected)
    h.assert_owned(found, batch)
    for chunk_size in (1, 3, 4, 9):
        h.assert_close(gj.vmap(f, chunk_size=chunk_size)(*batch), expected)
    h.assert_close(gj.vmap(f, method="loop")(*batch), expected)


@pytest.mark.parametrize("in_dim", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("out_dim", [0, 1, 2, -1, -3])
def test_any_axis_in_and_out(in_dim, out_dim, rng):
    x = rng.standard_normal((2, 3, 4))
    f = lambda a: np.sin(a) * a.sum(axis=0)
    lanes = [f(a) for a in np.moveaxis(x, in_dim, 0)]
    expected = np.stack(lanes, axis=out_dim)
    for chunk_size in (None, 1, 2):
        found = gj.vmap(f, in_dim, out_dim, chunk_size=chunk_size)(x)
        np.testing.assert_allclose(found, expected, atol=1e-15)
        assert found.flags.c_contiguous
    np.testing.assert_allclose(gj.vmap(f, in_dim, out_dim, method="loop")(x), expected, atol=1e-15)


def test_unmapped_arguments_and_prefixes():
    f = lambda p, y, z: p["a"] * y[0] + p["b"] * y[1] + z
    p = {"a": np.arange(3.0), "b": np.ones((2, 3))}
    y = [np.arange(2.0), 10.0]
    found = gj.vmap(f, in_dims=({"b": None, "a": 0}, [None, None], 0))(
        {"a": p["a"], "b": 2.0}, [3.0, 10.0], np.arange(3.0)
    )
    np.testing.assert_array_equal(found, 3 * p["a"] + 20.0 + np.arange(3.0))
    found = gj.vmap(lambda p, y: p["a"] + p["b"] * y[1], in_dims=({"b": 1, "a": 0}, None))(p, y)
    np.testing.assert_array_equal(found, p["a"][:, None] + 10 * p["b"].T)


def test_dicts_match_by_key_whatever_the_order():
    batch = {"a": np.zeros((2, 3)), "b": np.ones((3, 2))}
    found = gj.vmap(lambda d: d["a"] + d["b"], in_dims=({"b": 1, "a": 0},))(batch)
    assert found.shape == (2, 3)
    a, b = np.zeros((2, 3)), np.ones((3, 2))
    out = gj.vmap(lambda x: {"p": x, "q": x + 1}, in_dims=0, out_dims={"q": 1, "p": 0})(X)
    np.testing.assert_array_equal(out["p"], X)
    np.testing.assert_array_equal(out["q"], (X + 1).T)
    assert (a.shape, b.shape) == ((2, 3), (3, 2))


def test_keyword_arguments_are_not_mapped():
    found = gj.vmap(lambda x, *, w, name: x @ w)(X, w=np.ones(3), name="anything")
    np.testing.assert_array_equal(found, X.sum(1))


def test_containers_of_the_output_are_kept():
    found = gj.vmap(lambda x: h.Pair(OrderedDict(z=x, a=x.sum()), [x]))(X)
    assert type(found) is h.Pair
    assert list(found.left) == ["z", "a"]
    assert gj.vmap(lambda x: ())(X) == ()


def test_an_output_that_is_not_mapped_is_repeated_at_any_axis():
    for out_dim in (0, 1, -1):
        found = gj.vmap(lambda x: np.ones(4), out_dims=out_dim)(X)
        assert found.shape == ((2, 4) if out_dim == 0 else (4, 2))
        found[0, 0] = 7.0  # an array of its own, not a stride-0 view
        assert (found == 7.0).sum() == 1
    np.testing.assert_array_equal(gj.vmap(lambda x: 1.0)(X), [1.0, 1.0])


@pytest.mark.parametrize("options", [{}, {"chunk_size": 1}, {"method": "loop"}])
def test_out_dims_none_passes_anything_unmapped(options):
    constant = np.ones(2)
    y, c, text, none = gj.vmap(lambda x: (x, constant, "label", None), out_dims=(0, None, None, None), **options)(X)
    np.testing.assert_array_equal(y, X)
    np.testing.assert_array_equal(c, constant)
    assert (text, none) == ("label", None)
    h.assert_owned((y, c), X, constant)


@pytest.mark.parametrize("options", [{}, {"chunk_size": 1}, {"chunk_size": 5}, {"method": "loop"}])
def test_zero_lanes(options):
    found = gj.vmap(lambda x: (x.sum(), np.sin(x)), **options)(np.zeros((0, 3)))
    assert [y.shape for y in found] == [(0,), (0, 3)]


def test_axis_size_without_mapped_arguments():
    np.testing.assert_array_equal(gj.vmap(lambda: 2.0, axis_size=3)(), [2, 2, 2])
    found = gj.vmap(lambda x: x, in_dims=None, axis_size=2)(X)
    np.testing.assert_array_equal(found, np.stack([X, X]))


def test_f_runs_once_per_chunk():
    calls = []
    f = lambda x: (calls.append(x.shape), x * 2)[1]
    gj.vmap(f)(np.ones((7, 2)))
    assert calls == [(2,)]
    calls.clear()
    gj.vmap(f, chunk_size=3)(np.ones((7, 2)))
    assert len(calls) == 3
    calls.clear()
    gj.vmap(f, chunk_size=7)(np.ones((7, 2)))
    assert len(calls) == 1
    calls.clear()
    gj.vmap(f, method="loop")(np.ones((7, 2)))
    assert len(calls) == 7


def test_the_loop_method_runs_branches_and_floats_per_lane():
    f = lambda x: x if float(x) > 1.0 else -x
    np.testing.assert_array_equal(gj.vmap(f, method="loop")(np.arange(4.0)), [0, -1, 2, 3])


def test_unmapped_values_inside_may_be_read():
    found = gj.vmap(lambda x, n: x * 2 if n > 1 else x, in_dims=(0, None))(X, np.array(3.0))
    np.testing.assert_array_equal(found, 2 * X)
    found = gj.vmap(lambda x: x[x.shape[0] - 1] * (2 if np.zeros_like(x).sum() == 0 else 1))(X)
    np.testing.assert_array_equal(found, 2 * X[:, 2])


def test_integer_arrays_and_gathers_by_mapped_indices():
    table, index = np.arange(12.0).reshape(4, 3), np.array([[0, 2], [3, 3]])
    f = lambda t, i: t[i]
    np.testing.assert_array_equal(gj.vmap(f, in_dims=(None, 0))(table, index), table[index])
    tables = np.stack([table, table + 100])
    np.testing.assert_array_equal(gj.vmap(f)(tables, index), loop(f, tables, index))
    one = np.array([1, 3])
    np.testing.assert_array_equal(gj.vmap(f)(tables, one), loop(f, tables, one))
    found = gj.vmap(lambda t, i: np.take(t, i, axis=1))(tables, np.array([1, 0]))
    np.testing.assert_array_equal(found, loop(lambda t, i: t[:, i], tables, np.array([1, 0])))


def test_masks_assign_and_where():
    f = lambda x: np.where(x > 1.5, x, -x)
    np.testing.assert_array_equal(gj.vmap(f)(X), f(X))

    def g(x):
        x = x.copy()
        x[x > 1.5] = 0.0
        return x

    np.testing.assert_array_equal(gj.vmap(g)(X), np.where(X > 1.5, 0.0, X))


def test_writes_into_arrays_made_like_the_argument():
    def f(x):
        y = np.zeros_like(x)
        y[1:] = x[:-1] * 2
        y += x
        return y

    np.testing.assert_array_equal(gj.vmap(f)(X), loop(f, X))


def test_deep_nesting_and_mixed_axes(rng):
    x = rng.standard_normal((2, 3, 4, 5))
    f = lambda v: np.cumsum(v) / (1 + v @ v)
    found = gj.vmap(gj.vmap(gj.vmap(f, 0, 1), 1, 0), 2, -1)(x)
    inner = lambda a: np.stack([f(v) for v in a], 1)
    middle = lambda b: np.stack([inner(b[:, j]) for j in range(b.shape[1])], 0)
    expected = np.stack([middle(x[:, :, k]) for k in range(x.shape[2])], -1)
    np.testing.assert_allclose(found, expected)
    many = lambda v: v * 2
    for _ in range(20):
        many = gj.vmap(many)
    np.testing.assert_array_equal(many(np.ones((1,) * 20)), np.full((1,) * 20, 2.0))


@given(
    shape=st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple),
    rank=st.integers(0, 2),
    data=st.data(),
)
def test_broadcasting_of_mapped_and_unmapped_operands(shape, rank, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = np.linspace(0.5, 2.0, int(np.prod(shape))).reshape(shape)
    rest = np.delete(np.array(shape), axis)
    y = np.linspace(1.0, 2.0, 2 * int(np.prod(rest))).reshape((2, *rest)) if rank else 3.0
    f = lambda a: a * y + np.sqrt(a).sum() - (y[0] if rank else y)
    found = gj.vmap(f, axis)(x)
    lanes = [f(a) for a in np.moveaxis(x, axis, 0)]
    if lanes:
        np.testing.assert_allclose(found, np.stack(lanes), rtol=1e-13)
    else:
        assert found.shape[0] == 0
