"""jacrev and jacfwd (J1 to J33)."""

from collections import namedtuple

import numpy as np
import pytest

import gpujac as gj
from tests.parity import parity
from tests.transforms import helpers as h

X, Y = np.array([0.3, -1.2, 2.0]), np.array([1.0, 0.5])
A = np.linspace(-1.0, 1.0, 6).reshape(2, 3)
BOTH = [gj.jacrev, gj.jacfwd]
both = pytest.mark.parametrize("jac", BOTH, ids=lambda t: t.__name__)
Pair = namedtuple("Pair", "l r")


def check_differences(jac, f, *args, tolerance=3e-8):
    """The Jacobian in all arguments has the nesting of torch.func and the values of differences."""
    J = jac(f, tuple(range(len(args))))(*args)
    found = h.matrix_of(J, f(*args), args)
    np.testing.assert_allclose(found, h.difference_matrix(f, *args), atol=tolerance)
    return J


@parity("J1", "J2")
@both
def test_elementwise_functions(jac):
    np.testing.assert_allclose(jac(np.sin)(X), np.diag(np.cos(X)))
    x = np.linspace(0, 1, 6).reshape(2, 3)
    np.testing.assert_allclose(jac(np.sin)(x).reshape(6, 6), np.diag(np.cos(x).ravel()))
    assert jac(lambda x: np.sin(x).sum(0))(x).shape == (3, 2, 3)
    check_differences(jac, lambda x: np.sin(x) @ x.T, x)


@parity("J3")
@both
def test_a_gather(jac):
    index = np.array([[2, 0], [1, 2]])
    np.testing.assert_array_equal(jac(lambda x: np.take(x, index))(X), np.eye(3)[index])
    np.testing.assert_array_equal(jac(lambda x, i: x[i])(X, index), np.eye(3)[index])


@parity("J4")
@both
def test_other_sizes_out_than_in(jac):
    J = jac(lambda x: np.concatenate([x[1:], x[:1], x])[:, None] * x[0])(X)
    assert J.shape == (6, 1, 3)
    check_differences(jac, lambda x: np.expand_dims(x[:2] * x[1:], 0), X)


@parity("J5")
@both
def test_vmap_of_a_jacobian(jac):
    batch = np.stack([X, X + 1, -X])
    f = lambda x: np.tanh(A @ x) * x[:2]
    np.testing.assert_allclose(gj.vmap(jac(f))(batch), np.stack([jac(f)(x) for x in batch]), atol=1e-14)


@parity("J6")
@pytest.mark.parametrize("outer", BOTH)
@both
def test_a_jacobian_of_a_jacobian(jac, outer):
    found = outer(jac(np.sin))(X)
    expected = np.zeros((3, 3, 3))
    expected[range(3), range(3), range(3)] = -np.sin(X)
    np.testing.assert_allclose(found, expected, atol=1e-15)


@parity("J7", "J22")
@both
def test_argnums_one_and_the_default(jac):
    f = lambda x, y: np.outer(x, y)
    np.testing.assert_allclose(jac(f, 1)(X, Y), X[:, None, None] * np.eye(2))
    np.testing.assert_array_equal(jac(f)(X, Y), jac(f, 0)(X, Y))
    np.testing.assert_array_equal(jac(f, argnums=1)(X, Y), jac(f, -1)(X, Y))


@parity("J8", "J9", "J21")
@both
def test_how_outputs_and_argnums_nest(jac):
    f = lambda x, y: (x[:2] * y, x.sum())
    J = jac(f, (0, 1))(X, Y)
    assert [type(J), *map(type, J)] == [tuple] * 3
    assert [[b.shape for b in row] for row in J] == [[(2, 3), (2, 2)], [(3,), (2,)]]
    bare, one = jac(f, 0)(X, Y), jac(f, (0,))(X, Y)
    assert [b.shape for b in bare] == [(2, 3), (3,)]
    assert [[b.shape for b in row] for row in one] == [[(2, 3)], [(3,)]]
    g = lambda x, y: x * y.sum()
    assert type(jac(g, 0)(X, Y)) is np.ndarray
    assert [type(b) for b in jac(g, (0,))(X, Y)] == [np.ndarray]
    assert type(jac(g, (1, 0))(X, Y)) is tuple


@parity("J10", "J17")
@both
def test_dicts(jac):
    J = jac(lambda x, y: {"left": x * y[0], "right": y.sum()}, (0, 1))(X, Y)
    assert list(J) == ["left", "right"]
    assert [b.shape for b in J["left"] + J["right"]] == [(3, 3), (3, 2), (3,), (2,)]
    p = {"w": A, "b": Y}
    f = lambda p: {"z": p["w"] * p["b"][:, None], "s": (p["w"] ** 2).sum(1)}
    J = jac(f)(p)
    assert J["z"]["w"].shape == (2, 3, 2, 3)
    assert J["s"]["b"].shape == (2, 2)
    np.testing.assert_allclose(h.matrix_of(J, f(p), (p,)), h.difference_matrix(f, p), atol=1e-8)


@parity("J11")
@both
@pytest.mark.parametrize("argnums", [(0, 1, 2), (0,), 0])
def test_nested_tuples_as_arguments(jac, argnums):
    f = lambda a, b, c: (a[0] * b[:1] + a[1][0], c * b.sum())
    args = ((np.array([1.0]), (np.array([2.0]), 3.0)), Y, np.array(0.5))
    J = jac(f, argnums)(*args)
    first = J[0] if argnums == 0 else J[0][0]
    assert [first[0].shape, first[1][0].shape, first[1][1].shape] == [(1, 1), (1, 1), (1,)]
    if argnums == (0, 1, 2):
        assert [J[0][1].shape, J[0][2].shape, J[1][2].shape] == [(1, 2), (1,), ()]
        np.testing.assert_allclose(h.matrix_of(J, f(*args), args), h.difference_matrix(f, *args), atol=1e-8)


@parity("J12")
@both
def test_zero_axes(jac):
    assert jac(np.sin)(np.array(0.5)).shape == ()
    assert jac(np.sin)(0.5).shape == ()
    assert jac(np.sin)(np.array([0.5])).shape == (1, 1)
    assert jac(lambda x: x[0])(np.array([0.5])).shape == (1,)


@parity("J13", "J14")
@both
def test_aux(jac):
    J, aux = jac(lambda x: (x * x, x.sum()), has_aux=True)(X)
    np.testing.assert_allclose(J, np.diag(2 * X))
    assert float(aux) == pytest.approx(float(X.sum()))
    J, aux = jac(lambda x: (x, {"a": [x * 2, "text"], "n": 7}), has_aux=True)(X)
    np.testing.assert_array_equal(aux["a"][0], 2 * X)
    assert (aux["a"][1], aux["n"]) == ("text", 7)
    for wrong in (lambda x: [x, x], lambda x: (x, x, x), lambda x: x):
        with pytest.raises(gj.StructureError, match=r"\(output, aux\)"):
            jac(wrong, has_aux=True)(X)


@parity("J15", "J20")
@both
def test_outputs_that_are_refused_and_that_are_not(jac):
    for nothing in (None, (), {}, [()]):
        with pytest.raises(gj.StructureError, match=f"^{jac.__name__}.*no array"):
            jac(lambda x, nothing=nothing: nothing)(X)
    with pytest.raises(gj.ArgumentTypeError, match=r"output\[1\] is a str"):
        jac(lambda x: (x, "text"))(X)
    J = jac(lambda x: [x, {"k": (x.sum(),)}])(X)
    assert (type(J), type(J[1]), type(J[1]["k"])) == (list, dict, tuple)
    assert jac(lambda x: 2.0)(X).shape == (3,)  # a number is an array without axes


@parity("J16", "J18", "J19")
@both
def test_trees_with_parts_that_do_not_depend(jac):
    f = lambda p, q: Pair({"a": p["a"] * 2}, [q[0].sum(), np.ones(2)])
    p, q = {"a": X, "unused": np.ones((2, 2))}, (Y,)
    J = check_differences(jac, f, p, q)
    assert type(J) is Pair
    np.testing.assert_array_equal(J.l["a"][0]["unused"], np.zeros((3, 2, 2)))
    np.testing.assert_array_equal(J.l["a"][1][0], np.zeros((3, 2)))
    np.testing.assert_array_equal(J.r[1][0]["a"], np.zeros((2, 3)))
    np.testing.assert_array_equal(J.r[0][1][0], np.ones(2))


@parity("J23")
@both
def test_wrong_argnums(jac):
    f = lambda x, y: x * y.sum()
    for argnums, error in [((), gj.ArgumentError), ((0, 0), gj.ArgumentError), ((0, -2), gj.ArgumentError),
                           (2, gj.ArgnumsRangeError), (-3, gj.ArgnumsRangeError), ((0, 2), gj.ArgnumsRangeError),
                           (0.0, gj.ArgumentTypeError), ((0.0,), gj.ArgumentTypeError)]:  # fmt: skip
        with pytest.raises(error, match=f"^{jac.__name__}: argnums"):
            jac(f, argnums)(X, Y)


@parity("J24")
def test_hessian_runs():
    np.testing.assert_allclose(gj.hessian(lambda x: (x**3).sum())(X), np.diag(6 * X))


CASES = {
    "simple": (lambda x: x[:-1] * np.sin(x[1:]), (X,)),
    "several inputs": (lambda x, y: np.outer(np.cos(x), y), (X, Y)),
    "several outputs": (lambda x: (x * x[0], x.sum(), np.exp(x[1:])), (X,)),
    "unrelated outputs": (lambda x: (x, np.ones(3), np.array(2.0)), (X,)),
    "zero axes in": (lambda a, x: a * x, (np.array(1.5), X)),
    "zero axes out": (lambda a, x: (a * x.sum(), a**2), (np.array(1.5), X)),
    "zero axes all": (lambda a, b: a * np.sin(b), (np.array(1.5), np.array(-0.2))),
}


@parity("J25")
@both
@pytest.mark.parametrize("case", list(CASES))
def test_against_a_reference(jac, case):
    f, args = CASES[case]
    check_differences(jac, f, *args)


@parity("J27", "J33")
@both
def test_defaults_and_other_arguments(jac):
    f = lambda x, scale=3.0, *, shift=1.0: x * scale + shift
    np.testing.assert_array_equal(jac(f)(X), 3 * np.eye(3))
    np.testing.assert_array_equal(jac(f)(X, 2.0, shift=5.0), 2 * np.eye(3))
    g = lambda x, mode, flag, n: (x**n if flag and mode == "power" else x)
    np.testing.assert_allclose(jac(g)(X, "power", True, 2), np.diag(2 * X))
    np.testing.assert_allclose(jac(lambda op, x: op(x), 1)(np.sin, X), np.diag(np.cos(X)))


@parity("J28")
@both
def test_a_write_into_another_argument(jac):
    def f(x, y):
        y[...] = x
        return y

    y = np.zeros(3)
    np.testing.assert_array_equal(jac(f)(X, y), np.eye(3))
    first, second = jac(f, (0, 1))(X, y)
    np.testing.assert_array_equal(first, np.eye(3))
    np.testing.assert_array_equal(second, np.zeros((3, 3)))
    np.testing.assert_array_equal(y, 0)  # the caller's array is never written to


SIZES = [1, 2, 3, 4, 7, 10, 1000]


def nested(x, y):
    """Outputs of several sizes, one of them a number: 1 + 3 + 2 + 6 rows."""
    return {"s": (x * x).sum() * y[0], "t": (np.sin(x) * y[1], [y**2 * x[0], np.outer(x, y)])}


@parity("J29")
@pytest.mark.parametrize("assembly", ["stack", "preallocate"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("jac", [gj.jacrev, gj.jacfwd, gj.hessian], ids=lambda t: t.__name__)
def test_chunk_sizes_and_assemblies_agree(jac, size, assembly):
    J = jac(nested, (0, 1), chunk_size=size, assembly=assembly)(X, Y)
    h.assert_close(J, jac(nested, (0, 1), chunk_size=None)(X, Y), 1e-14)


@parity("J29")
@pytest.mark.parametrize("size", [0, -2])
@pytest.mark.parametrize("jac", [gj.jacrev, gj.jacfwd, gj.hessian], ids=lambda t: t.__name__)
def test_chunk_sizes_below_one(jac, size):
    with pytest.raises(gj.ArgumentError, match=f"chunk_size={size} must be at least 1"):
        jac(nested, chunk_size=size)


@parity("J30")
@pytest.mark.parametrize("assembly", ["stack", "preallocate"])
@pytest.mark.parametrize("size", SIZES)
def test_chunks_compose(size, assembly):
    f = lambda x: np.sin(x) * x[::-1]
    options = {"chunk_size": size, "assembly": assembly}
    batch = np.stack([X, X + 1, -X, 2 * X])
    found = gj.vmap(gj.jacrev(gj.jacrev(f, **options), **options), chunk_size=size)(batch)
    np.testing.assert_allclose(found, gj.vmap(gj.jacrev(gj.jacrev(f)))(batch), atol=1e-14)
    np.testing.assert_allclose(found[2], gj.hessian(f)(-X), atol=1e-14)


@parity("J31")
@pytest.mark.parametrize("assembly", ["stack", "preallocate"])
@both
def test_one_row_at_a_time_makes_no_batch_axis(jac, assembly, ranks_of_products):
    f = lambda x: A @ np.tanh(A.T @ (A @ x))
    J = jac(f, chunk_size=1, assembly=assembly)(X)
    assert {min(ranks) for ranks in ranks_of_products} == {1}  # always a vector
    ranks_of_products.clear()
    np.testing.assert_allclose(jac(f, chunk_size=2, assembly=assembly)(X), J, atol=1e-15)
    assert (2, 2) in ranks_of_products


@parity("J32")
@both
def test_complex_functions_are_refused(jac):
    with pytest.raises(gj.DTypeError, match=rf"^{jac.__name__}: args\[0\] is complex128"):
        jac(lambda z: z * z)(X + 1j)
    with pytest.raises(gj.DTypeError, match=rf"^{jac.__name__}: output is complex128"):
        jac(lambda x: x * 1j)(X)
    assert jac(lambda x, z: (x * z).real)(X, X + 1j).shape == (3, 3)  # unselected: fine


@parity("J26")
def test_two_devices_in_one_operation():
    strict = pytest.importorskip("array_api_strict", reason="stands for another device's library")
    other = strict.asarray(Y.tolist())
    for jac in BOTH:
        with pytest.raises(gj.BackendError, match="two array libraries"):
            jac(lambda x: x[:2] * other)(X)
