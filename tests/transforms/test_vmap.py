"""vmap: a function of one example becomes a function of a batch."""

from collections import OrderedDict
from functools import partial

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


# ---------------------------------------------------------------- dims of any kind, against a loop


@st.composite
def mapped_trees(draw):
    """A function of a tree, its arguments, in_dims and out_dims, whatever the number of lanes."""
    size = draw(st.integers(0, 4))

    def leaf(mapped):
        shape = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
        if not mapped:
            return draw(st.sampled_from([np.ones(shape), 2.5])), None
        axis = draw(st.integers(0, len(shape)))
        x = np.arange(float(size * int(np.prod(shape, dtype=int))))
        x = np.moveaxis(x.reshape((size, *shape)) / 7, 0, axis)
        return x, draw(st.sampled_from([axis, axis - len(shape) - 1]))

    (x, i), (y, j), (z, k) = leaf(True), leaf(draw(st.booleans())), leaf(draw(st.booleans()))
    out = lambda rank: draw(st.integers(-rank - 1, rank))
    inner = np.ndim(z) - (k is not None)
    dims = (i, {"b": k, "a": [j]})
    args = (x, {"a": [y], "b": z})
    a, b, c = out(np.ndim(x) - 1), out(inner), out(0)
    out_dims = draw(st.sampled_from([0, {"s": c, "x": (a, b), "constant": None, "text": None}]))
    return args, dims, out_dims, size


def of_a_tree(x, d):
    total = np.sum(x) + np.sum(d["a"][0])
    return {"x": (np.sin(x) * total, d["b"] + x.sum() * 0), "s": total}


@given(case=mapped_trees(), chunk=st.sampled_from([None, 1, 2, 3, 9]))
def test_any_dims_equal_a_loop(case, chunk):
    args, dims, out_dims, size = case
    constant = np.arange(3.0)

    def f(x, d):
        y = of_a_tree(x, d)
        return y if out_dims == 0 else {**y, "constant": constant, "text": "as it is"}

    found = gj.vmap(f, dims, out_dims, chunk_size=chunk)(*args)
    if size:
        h.assert_close({**found, "text": 0}, {**gj.vmap(f, dims, out_dims, method="loop")(*args), "text": 0}, 1e-13)
        leaves = [(args[0], dims[0]), (args[1]["a"][0], dims[1]["a"][0]), (args[1]["b"], dims[1]["b"])]
        lanes = [x if d is None else list(np.moveaxis(x, d, 0)) for x, d in leaves]
        rows = [[lane if type(lane) is not list else lane[i] for lane in lanes] for i in range(size)]
        ys = [of_a_tree(x, {"a": [y], "b": z}) for x, y, z in rows]
        a, b, c = (0, 0, 0) if out_dims == 0 else (*out_dims["x"], out_dims["s"])
        h.assert_close(found["x"][0], np.stack([y["x"][0] for y in ys], a), 1e-13)
        h.assert_close(found["x"][1], np.stack([y["x"][1] for y in ys], b), 1e-13)
        h.assert_close(found["s"], np.stack([y["s"] for y in ys], c), 1e-13)
    else:
        axis = 0 if out_dims == 0 else out_dims["x"][0]
        assert found["x"][0].shape[axis] == 0
    h.assert_owned((found["x"], found["s"]), constant)


def test_containers_in_and_out_are_of_their_own_kind():
    f = lambda p, d: h.Pair(p.left + d["z"], OrderedDict(z=p.right, a=d["a"]))
    args = h.Pair(X, 2.0), OrderedDict(z=X[:, 0], a=np.ones((3, 2)))
    dims = (h.Pair(0, None), {"a": 1, "z": 0})
    for options in ({}, {"chunk_size": 1}, {"method": "loop"}):
        found = gj.vmap(f, dims, h.Pair(1, {"a": -1, "z": None}), **options)(*args)
        assert type(found) is h.Pair
        assert list(found.right) == ["z", "a"]
        np.testing.assert_array_equal(found.left, (X + X[:, :1]).T)
        assert found.right["z"] == 2.0
        assert found.right["a"].shape == (3, 2)


@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"method": "loop"}])
def test_leaves_that_are_no_arrays_pass_in_and_out(options):
    f = lambda x, how, table: (x * len(how), how.upper(), table["names"], None)
    found = gj.vmap(f, (0, None, None), (0, None, None, None), **options)(X, "abc", {"names": ["p", "q"]})
    np.testing.assert_array_equal(found[0], 3 * X)
    assert found[1:] == ("ABC", ["p", "q"], None)
    for bad in (lambda x: "text", lambda x: (x, "text")):
        with pytest.raises(gj.ArgumentTypeError, match="is a str, not an array; use out_dims=None for it"):
            gj.vmap(bad, **options)(X)
    assert gj.vmap(lambda x: None, **options)(X) is None


@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"method": "loop"}])
def test_none_for_all_arguments_with_a_number_of_lanes(options):
    found = gj.vmap(lambda x, text: x, None, 1, axis_size=3, **options)(X, "text")
    np.testing.assert_array_equal(found, np.stack([X] * 3, 1))
    with pytest.raises(gj.ArgumentError, match=r"nothing is mapped: .*axis_size"):
        gj.vmap(lambda x: x, None, **options)(X)
    with pytest.raises(gj.ShapeError, match="axis_size=5, but the mapped axes have size 2"):
        gj.vmap(lambda x: x, axis_size=5, **options)(X)


def test_lanes_that_return_other_structures_are_an_error():
    f = lambda x: (x, x) if float(x) > 1 else x
    with pytest.raises(gj.StructureError, match="the output of a later lane"):
        gj.vmap(f, method="loop")(np.arange(3.0))


def test_a_gather_by_a_mapped_number_has_the_shape_of_a_loop():
    """Q10: an index that has no axes but the mapped one."""
    table, index = np.arange(12.0).reshape(3, 4), np.array([2, 0, 2, 1, 1])
    for f in (
        lambda t, i: np.take(t, i, axis=0),
        lambda t, i: np.take(t, i[None], axis=1),
        lambda t, i: np.take(t, i),
        lambda t, i: np.take_along_axis(t, i[None, None], 0),
    ):
        expected = np.stack([f(table, i) for i in index])
        np.testing.assert_array_equal(gj.vmap(f, (None, 0))(table, index), expected)
        tables = np.stack([table + 100 * k for k in range(5)], 1)
        expected = np.stack([f(tables[:, k], i) for k, i in enumerate(index)])
        np.testing.assert_array_equal(gj.vmap(f, (1, 0))(tables, index), expected)
    by_index = lambda t, i: t[i]
    np.testing.assert_array_equal(gj.vmap(by_index, (None, 0))(table, index), table[index])
    columns = lambda t, i: t[:, i]
    np.testing.assert_array_equal(gj.vmap(columns, (None, 0))(table, index), table[:, index].T)


def test_nested_vmaps_that_are_both_in_chunks(rng):
    x, y = rng.standard_normal((5, 4)), rng.standard_normal((3, 4))
    f = lambda a, b: (np.outer(a, b), a @ b)
    expected = (np.einsum("ik,jl->ijkl", x, y), x @ y.T)
    for outer in (None, 1, 2, 5):
        for inner in (None, 1, 2):
            g = gj.vmap(gj.vmap(f, (None, 0), chunk_size=inner), (0, None), chunk_size=outer)
            h.assert_close(g(x, y), expected)


def test_callables_of_every_kind(rng):
    class Scale:
        """Called like a function."""

        def __call__(self, x, *, by=2.0):
            return by * x

        def method(self, x):
            return 3.0 * x

    np.testing.assert_array_equal(gj.vmap(Scale())(X), 2 * X)
    np.testing.assert_array_equal(gj.vmap(Scale())(X, by=5.0), 5 * X)
    np.testing.assert_array_equal(gj.vmap(Scale().method)(X), 3 * X)
    np.testing.assert_array_equal(gj.vmap(partial(np.multiply, 4.0))(X), 4 * X)
    assert gj.vmap(loop).__name__ == "loop"


# ---------------------------------------------------------------- out_dims=None in a loop, no lanes, texts


def test_lanes_of_a_loop_that_agree_in_values_may_differ_in_derivatives():
    f = lambda x: gj.vmap(lambda a: a * a, out_dims=None, method="loop")(x)
    assert f(np.array([2.0, 2.0])) == 4.0
    for call in (lambda x: gj.grad(f)(x), lambda x: gj.jvp(f, (x,), (x,)), lambda x: gj.vmap(gj.grad(f))(x[None])):
        with pytest.raises(gj.StructureError, match=r"out_dims=None for output, .*agree in their derivatives"):
            call(np.array([2.0, 2.0]))
    with pytest.raises(gj.StructureError, match="differs between lanes"):
        f(np.array([2.0, 3.0]))


@pytest.mark.parametrize("options", [{}, {"chunk_size": 1}, {"method": "loop"}])
def test_what_all_lanes_hand_out_keeps_its_derivative(options):
    def f(c):
        d = c * c
        y, same = gj.vmap(lambda a: (a * c, d), out_dims=(0, None), **options)(X)
        return y.sum() + same

    assert gj.grad(f)(2.0) == X.sum() + 4.0
    found = gj.vmap(f)(np.array([1.0, 2.0]))
    np.testing.assert_array_equal(found, [f(1.0), f(2.0)])


def test_a_loop_without_lanes_says_that_there_is_no_value():
    f = lambda x: x if x > 0 else -x
    with pytest.raises(gj.ConcretizationError, match=r"with method=.loop. and 0 lanes there is no value"):
        gj.vmap(f, method="loop")(np.zeros(0))
    assert gj.vmap(lambda x: 2 * x, method="loop")(np.zeros((0, 3))).shape == (0, 3)


def test_texts_and_objects_are_mapped_as_they_are():
    words, things = np.array(["a", "b"]), np.array([None, 3], object)
    x, word, thing = gj.vmap(lambda *lane: lane)(X, words, things)
    np.testing.assert_array_equal(x, X)
    assert list(word) == ["a", "b"]
    assert list(thing) == [None, 3]
    found = gj.vmap(lambda x, w, t: x if w == "a" else x * t, method="loop")(X, words, things)
    np.testing.assert_array_equal(found, np.stack([X[0], 3 * X[1]]))


def test_what_was_tried_before_a_lane_did_not_fit():
    def full(x):
        raise MemoryError("full")

    for size, tried in ((4, "chunks of 4 down to 1 were tried"), (3, "chunks of 3 down to 1 were tried")):
        with pytest.raises(MemoryError) as caught:
            gj.vmap(full, chunk_size=size)(np.ones(4))
        assert tried in caught.value.__notes__[-1]
