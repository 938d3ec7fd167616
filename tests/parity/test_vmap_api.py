"""vmap: inputs, outputs, dims (V1 to V29)."""

from collections import OrderedDict, namedtuple
from functools import partial

import numpy as np
import pytest

import gpujac as gj
from tests.parity import parity
from tests.transforms import helpers as h

B = np.arange(24.0).reshape(2, 3, 4)
X = B[0, :2]
Pair = namedtuple("Pair", "l r")


@parity("V1")
def test_outputs_that_are_no_arrays():
    for f in (lambda x: "text", lambda x: (x, "text"), lambda x: {"y": x, "o": object()}):
        with pytest.raises(gj.ArgumentTypeError, match="not an array; use out_dims=None"):
            gj.vmap(f)(X)
    np.testing.assert_array_equal(gj.vmap(lambda x: 3.5)(X), [3.5, 3.5])  # a number is an array


@parity("V2")
def test_sizes_that_differ():
    for args, in_dims in [((X, B[0]), 0), (((X, B[0]),), 0), (({"a": X, "b": B[0]},), 0), ((B, B), (0, 1))]:
        with pytest.raises(gj.ShapeError, match=r"same size, found 2 in .*3 in"):
            gj.vmap(lambda *a: gj.trees.flatten(a)[0][0], in_dims)(*args)


@parity("V3")
def test_nothing_to_map():
    for call in (lambda: gj.vmap(lambda: 1.0)(), lambda: gj.vmap(np.sin, None)(X), lambda: gj.vmap(np.sin, (None,))(X),
                 lambda: gj.vmap(lambda p: 1.0)({}), lambda: gj.vmap(lambda x: x)(x=X)):  # fmt: skip
        with pytest.raises(gj.ArgumentError, match="nothing is mapped"):
            call()


@parity("V4", "V5")
def test_constants_and_several_inputs_and_outputs():
    np.testing.assert_array_equal(gj.vmap(lambda x: np.ones(3))(X), np.ones((2, 3)))
    (only,) = gj.vmap(lambda x: [x * 2])(X)
    np.testing.assert_array_equal(only, 2 * X)
    a, b = gj.vmap(lambda x, y: (x + y, x @ y))(X, X)
    np.testing.assert_array_equal(a, 2 * X)
    np.testing.assert_array_equal(b, (X * X).sum(1))


@parity("V6")
def test_nesting():
    for f in (gj.vmap(gj.vmap(np.sin)), gj.vmap(gj.vmap(gj.vmap(np.sin)))):
        np.testing.assert_array_equal(f(B), np.sin(B))
    u, v, w = np.arange(2.0), np.arange(3.0) + 1, np.arange(4.0) - 1
    two = gj.vmap(gj.vmap(lambda a, b: a * b, (None, 0)), (0, None))
    np.testing.assert_array_equal(two(u, v), np.multiply.outer(u, v))
    three = gj.vmap(gj.vmap(gj.vmap(lambda a, b, c: a * b * c, (None, None, 0)), (None, 0, None)), (0, None, None))
    np.testing.assert_array_equal(three(u, v, w), np.multiply.outer(np.multiply.outer(u, v), w))
    ignoring = gj.vmap(lambda a: gj.vmap(lambda b: a)(v))
    np.testing.assert_array_equal(ignoring(u), np.repeat(u[:, None], 3, 1))


@parity("V7")
def test_diagonal_matrices_nested():
    diag = lambda x: x[:, None] * np.eye(x.shape[0])
    found = gj.vmap(gj.vmap(diag))(B)
    np.testing.assert_array_equal(found, B[..., None] * np.eye(4))


@parity("V8")
def test_functions_that_cannot_be_reached_are_named():
    with pytest.raises(gj.errors.DispatchError, match="eigvals"):
        gj.vmap(np.linalg.eigvals)(np.ones((2, 3, 3)))
    with pytest.raises(gj.errors.DispatchError, match="unique"):
        gj.vmap(lambda x: (np.unique(x), x)[1])(X)


@parity("V9")
@pytest.mark.parametrize("d", [1, 2, -1, -3])
def test_out_dims_on_all_outputs(d):
    a, b = gj.vmap(lambda x: (x, 2 * x), out_dims=d)(B)
    np.testing.assert_array_equal(a, np.moveaxis(B, 0, d))
    np.testing.assert_array_equal(b, np.moveaxis(2 * B, 0, d))
    assert not np.may_share_memory(a, B)  # results are never views of arguments


@parity("V9")
def test_many_axes():
    x = np.arange(2.0).reshape((1,) * 30 + (2,) + (1,) * 31)
    found = gj.vmap(lambda a: a * 2, 30, 3)(x)
    assert found.shape == (1, 1, 1, 2) + (1,) * 58
    np.testing.assert_array_equal(found.ravel(), [0, 2])


@parity("V10", "V13")
def test_out_dims_as_trees():
    a, b, c = gj.vmap(lambda x: (x, x, x), out_dims=(0, -1, 1))(B)
    assert (a.shape, b.shape, c.shape) == ((2, 3, 4), (3, 4, 2), (3, 2, 4))
    out = gj.vmap(lambda x: {"p": [x, x], "q": x}, out_dims={"q": 2, "p": [0, 1]})(B)
    assert (out["p"][0].shape, out["p"][1].shape, out["q"].shape) == ((2, 3, 4), (3, 2, 4), (3, 4, 2))
    a, (b, c) = gj.vmap(lambda x: (x, (x, x)), out_dims=(0, 1))(B)  # one number for a part of the tree
    assert (a.shape, b.shape, c.shape) == ((2, 3, 4), (3, 2, 4), (3, 2, 4))
    out = gj.vmap(lambda x: OrderedDict(z=x, a=Pair(x, [x])))(X)
    assert (type(out), list(out), type(out["a"]), type(out["a"].r)) == (OrderedDict, ["z", "a"], Pair, list)


@parity("V11")
def test_a_tuple_of_one_for_one_output():
    np.testing.assert_array_equal(gj.vmap(np.sin, out_dims=(1,))(B), np.moveaxis(np.sin(B), 0, 1))


@parity("V12")
def test_out_dims_none():
    shared = np.ones(3)
    _y, text, none, c = gj.vmap(lambda x: (x, "text", None, shared), out_dims=(0, None, None, None))(X)
    assert (text, none, c.shape) == ("text", None, (3,))
    with pytest.raises(gj.StructureError, match="differs between lanes"):
        gj.vmap(np.sin, out_dims=None)(X)
    assert gj.vmap(lambda x: shared)(X).shape == (2, 3)


@parity("V14")
def test_out_dims_that_do_not_fit():
    pair = lambda x: (x, x)
    for out_dims in ("0", 0.0, {1}, ("a", 0), True):
        with pytest.raises(gj.ArgumentTypeError, match="out_dims"):
            gj.vmap(pair, out_dims=out_dims)(X)
    for out_dims in ((0, 0, 0), (0,), [0, 0], (0, (0, 0)), {"a": 0}):
        with pytest.raises(gj.StructureError, match="out_dims"):
            gj.vmap(pair, out_dims=out_dims)(X)
    for d in (3, -4):
        with pytest.raises(gj.AxisError, match=f"out_dims={d}"):
            gj.vmap(lambda x: x, out_dims=d)(B)


@parity("V15")
def test_in_dims():
    np.testing.assert_array_equal(gj.vmap(lambda x: x, 1)(B), np.moveaxis(B, 1, 0))
    np.testing.assert_array_equal(gj.vmap(lambda x: x, -1, -1)(B), B)
    f = lambda x, y: x * y
    np.testing.assert_array_equal(gj.vmap(f, (0, None))(X, X[0]), X * X[0])
    np.testing.assert_array_equal(gj.vmap(f, (None, 0))(2.0, X), 2 * X)
    found = gj.vmap(lambda x, op: op(x), (0, None))(X, np.sin)
    np.testing.assert_array_equal(found, np.sin(X))
    inner = gj.vmap(f, (1, 0), 1)
    found = gj.vmap(inner, (2, None), -1)(B, np.arange(3.0))
    np.testing.assert_array_equal(found, B * np.arange(3.0)[:, None])
    for d in (0, 1, 2, -1, -2, -3):
        for out in (0, 1, 2, -1, -2, -3):
            found = gj.vmap(np.cos, d, out)(B)
            np.testing.assert_array_equal(found, np.moveaxis(np.cos(np.moveaxis(B, d, 0)), 0, out))


@parity("V16")
def test_values_of_mapped_arrays():
    for f in (lambda x: x.item(), lambda x: x if x > 0 else -x, lambda x: float(x), lambda x: int(x),
              lambda x: np.zeros(4)[: x.astype(int)]):  # fmt: skip
        with pytest.raises(gj.ConcretizationError):
            gj.vmap(f)(np.arange(3.0))


@parity("V17")
def test_nested_inputs():
    f = lambda p: p["a"][0] * p["a"][1]["k"] + p["b"]
    p = {"a": (X, {"k": X}), "b": X}
    np.testing.assert_array_equal(gj.vmap(f)(p), X * X + X)
    moved = {"a": (X.T, {"k": X}), "b": X[0]}
    found = gj.vmap(f, in_dims=({"a": (1, {"k": 0}), "b": None},))(moved)
    np.testing.assert_array_equal(found, X * X + X[0])
    np.testing.assert_array_equal(gj.vmap(lambda x: x[0] + x[1], ((0, 0),))((X, X)), 2 * X)
    np.testing.assert_array_equal(gj.vmap(lambda x: x[0] + x[1], ([0, None],))([X, X[0]]), X + X[0])


@parity("V18")
def test_in_dims_that_do_not_fit():
    f = lambda x, y: x
    for in_dims in ("0", 0.5, {0}, True):
        with pytest.raises(gj.ArgumentTypeError, match="in_dims"):
            gj.vmap(f, in_dims)(X, X)
    for in_dims in ((0,), (0, 0, 0), (0, [0]), ((0,), 0)):
        with pytest.raises(gj.StructureError, match="in_dims"):
            gj.vmap(f, in_dims)(X, X)
    with pytest.raises(gj.ArgumentTypeError, match=r"args\[1\] is a str.*use None"):
        gj.vmap(f)(X, "text")
    for x, d in ((X, 2), (X, -3), (np.array(1.0), 0)):
        with pytest.raises(gj.AxisError, match=f"in_dims={d}"):
            gj.vmap(np.sin, d)(x)


@parity("V19")
def test_writes_in_place_of_mapped_values():
    def unary(x):
        np.exp(x, out=x)
        return x

    def binary(x, y):
        x *= y
        x += 1.0
        return x

    np.testing.assert_allclose(gj.vmap(unary, out_dims=1)(X), np.exp(X).T)
    np.testing.assert_array_equal(gj.vmap(binary)(X, X), X * X + 1)
    levels = lambda f: gj.vmap(gj.vmap(f, (None, 0)), (0, None))
    with pytest.raises(gj.MutationError, match="made outside"):
        levels(binary)(X, X)
    found = levels(lambda x, y: binary(x.copy(), y))(X, X)
    np.testing.assert_array_equal(found, X[:, None] * X[None] + 1)
    many = np.linspace(0, 1, 30_000).reshape(10_000, 3)
    np.testing.assert_array_equal(gj.vmap(binary)(many, many), many * many + 1)


@parity("V21", "V24")
def test_many_cotangents_at_once():
    f = lambda x: (np.sin(x), np.cos(x) * 2, x.sum())
    _y, pullback = gj.vjp(f, X[0])
    eye, zero = np.eye(4), np.zeros((4, 4))
    (J,) = gj.vmap(pullback)((eye, zero, np.zeros(4)))
    np.testing.assert_allclose(J, np.diag(np.cos(X[0])))
    (only_first,) = gj.vmap(lambda ct: pullback((ct, np.zeros(4), 0.0)))(eye)
    np.testing.assert_allclose(only_first, J)
    (loop,) = zip(*[pullback((row, row * 0, 0.0)) for row in eye], strict=True)
    np.testing.assert_allclose(J, np.stack(loop))


@parity("V22")
def test_partial_functions_and_callable_objects():
    f = lambda x, y, *, k: x * y + k
    np.testing.assert_array_equal(gj.vmap(partial(f, y=X[0], k=2.0))(X), X * X[0] + 2)

    class Scale:
        def __call__(self, x):
            return 3 * x

    np.testing.assert_array_equal(gj.vmap(Scale())(X), 3 * X)


@parity("V25")
@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 3, 4), (2, 0, 1)])
def test_axes_merged_and_split_again(shape):
    x = np.arange(float(np.prod(shape))).reshape(shape)
    for d in (0, 1, -1):
        merged = gj.vmap(lambda a: a.reshape(-1), d)(x)
        rest = [n for axis, n in enumerate(shape) if axis != d % 3]
        back = gj.vmap(lambda a, rest=rest: a.reshape(rest), out_dims=d)(merged)
        np.testing.assert_array_equal(back, x)
    found = gj.vmap(lambda a: a.reshape(2, -1))(np.arange(12.0).reshape(2, 6))
    np.testing.assert_array_equal(found, np.arange(12.0).reshape(2, 2, 3))


@parity("V26")
def test_two_levels_that_map_one_operand_each():
    for op in (np.add, np.matmul, lambda x, y: np.concatenate([x, y]), lambda x, y: np.where(x > 1, x, y)):
        f = lambda x, y, op=op: op(x, y) * 1.0
        found = gj.vmap(gj.vmap(f, (None, 0)), (0, None))(X, -X)
        expected = np.stack([np.stack([f(x, y) for y in -X]) for x in X])
        np.testing.assert_array_equal(found, expected)


@parity("V29")
def test_a_given_number_of_lanes():
    found = gj.vmap(lambda: {"a": 1.0, "b": np.ones(2)}, axis_size=3)()
    h.assert_close(found, {"a": np.ones(3), "b": np.ones((3, 2))})
    y, extra = gj.vmap(lambda x: (x, {"name": "text", "shared": 2 * x}), in_dims=None, out_dims=(0, None),
                       axis_size=2)(X[0])  # fmt: skip
    assert extra["name"] == "text"
    np.testing.assert_array_equal(extra["shared"], 2 * X[0])  # not repeated
    np.testing.assert_array_equal(y, np.stack([X[0], X[0]]))
