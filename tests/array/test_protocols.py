"""NumPy's protocols on traced arrays: ufuncs and their methods, functions, and what must refuse."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import scipy.special

import gpujac as gj

X = np.array([[0.3, -0.7], [1.2, 0.4]])
T = np.array([[1.0, 2.0], [-1.0, 0.5]])
NONE = None


def agrees(f, x=X, t=T, h=1e-6):
    """The value is NumPy's, the tangent that of central differences, the pullback its adjoint."""
    y, dy = gj.jvp(f, (x,), (t,))
    np.testing.assert_allclose(y, f(x), rtol=1e-13)
    np.testing.assert_allclose(dy, (f(x + h * t) - f(x - h * t)) / (2 * h), rtol=1e-6, atol=1e-7)
    ct = np.cos(np.arange(np.size(y))).reshape(np.shape(y))
    np.testing.assert_allclose(np.sum(ct * dy), np.sum(gj.vjp(f, x)[1](ct)[0] * t), rtol=1e-12)


@pytest.fixture
def traced():
    """Runs a function on a traced array and hands its result out."""

    def run(f, x=X):
        return gj.jvp(lambda x: (x * 1.0, f(x)), (x,), (np.ones_like(x),), has_aux=True)[2]

    return run


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.add.reduce(x),
        lambda x: np.add.reduce(x, axis=1, keepdims=True),
        lambda x: np.add.reduce(x, None),
        lambda x: np.add.reduce(x, axis=(0, 1), initial=3.0),
        lambda x: np.add.reduce(x, 0, where=np.array([True, False])),
        lambda x: np.multiply.reduce(x, axis=-1),
        lambda x: np.maximum.reduce(x),
        lambda x: np.minimum.reduce(x, axis=1),
        lambda x: np.add.accumulate(x),
        lambda x: np.add.accumulate(x, axis=1),
        lambda x: np.multiply.accumulate(x, 1),
        lambda x: np.multiply.outer(x, x[0]),
        lambda x: np.subtract.outer(x[0], [1.0, 2.0, 3.0]),
        lambda x: np.add.outer([1.0, 2.0], x),
        lambda x: np.add(x, [1.0, 2.0]),
        lambda x: [1.0, 2.0] * x,
        lambda x: np.arctan2([1.0, 2.0], x),
        lambda x: np.add(x, x, dtype=np.float64),
        lambda x: np.multiply(x, 2, casting="same_kind", order="C", subok=True),
        lambda x: np.vecdot(x, x, axis=0),
        lambda x: np.matmul(x, x),
        lambda x: np.float64(2.0) * x,
        lambda x: np.ones(2) @ x,
        lambda x: X / x,
        lambda x: np.array(2.0) - x,
        lambda x: scipy.special.expit(x),
        lambda x: scipy.special.logsumexp([1.0, 2.0]) * x,
    ],
)
def test_ufuncs_their_methods_and_options_follow_numpy(f):
    agrees(f)


def test_a_ufunc_writes_its_result_into_a_traced_buffer():
    def f(x):
        y = np.zeros_like(x)
        z = np.multiply(x, x, out=y)
        assert z is y
        np.add(y, x, out=y, where=np.array([True, False]))
        np.matmul(y, x, out=y)
        return y

    agrees(f)


def test_a_division_with_where_and_out_keeps_the_buffer_where_it_does_not_divide():
    x = np.array([0.0, 2.0])

    def f(x):
        return np.divide(1.0, x, out=np.zeros_like(x), where=x != 0)

    np.testing.assert_array_equal(gj.jacrev(f)(x), [[0, 0], [0, -0.25]])
    np.testing.assert_array_equal(gj.jacfwd(f)(x), [[0, 0], [0, -0.25]])


def test_where_without_out_is_refused_since_numpy_leaves_those_entries_unset():
    with pytest.raises(gj.DispatchError, match=r"np\.add: where= .* without out=; use np\.where"):
        gj.grad(lambda x: np.add(x, 1.0, where=np.array([True, False])))(X)


def test_an_unknown_option_of_a_ufunc_is_refused_by_name():
    with pytest.raises((gj.DispatchError, TypeError), match="axis"):
        gj.grad(lambda x: np.add(x, 1.0, axis=0))(X)


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (lambda x: np.maximum.accumulate(x), r"np\.maximum\.accumulate"),
        (lambda x: np.add.reduceat(x, [0, 1]), r"np\.add\.reduceat"),
        (lambda x: np.divide.reduce(x), r"np\.divide\.reduce"),
        (lambda x: np.multiply.at(x, 0, 2.0), r"np\.multiply\.at"),
        (lambda x: np.spacing(x), "spacing"),
        (lambda x: scipy.special.i0(x), "i0"),
        (lambda x: np.linalg.eig(x), r"numpy\.linalg\.eig"),
        (lambda x: np.unique(x), r"numpy\.unique"),
        (lambda x: np.linalg.matrix_rank(x), r"numpy\.linalg\.matrix_rank"),
    ],
)
def test_what_has_no_rule_raises_with_its_name_and_what_to_do(f, name):
    with pytest.raises(gj.DispatchError, match=name):
        gj.jvp(f, (X,), (T,))


def test_a_traced_array_is_no_ndarray_and_offers_no_memory(traced):
    def look(x):
        assert not isinstance(x, np.ndarray)
        names = ("__cuda_array_interface__", "__cupy_get_ndarray__", "__dlpack__", "__array_interface__",
                 "__array_struct__", "__dlpack_device__", "__buffer__")  # fmt: skip
        return [name for name in names if hasattr(x, name)]

    assert traced(look) == []


@pytest.mark.parametrize(
    "f",
    [
        lambda x: float(x[0, 0]),
        lambda x: complex(x[0, 0]),
        lambda x: math.sin(x[0, 0]),
        lambda x: np.asarray(x),
        lambda x: np.array([x[0, 0], x[0, 1]]),
        lambda x: np.array(x),
        lambda x: np.zeros(2).__setitem__(0, x[0, 0]),
        lambda x: np.zeros(2).__setitem__(slice(None), x[0]),
        lambda x: pickle.dumps(x),
        lambda x: np.save(io.BytesIO(), x),
        lambda x: memoryview(x),
    ],
)
def test_what_would_lose_the_derivative_raises(f):
    with pytest.raises(TypeError):
        gj.jvp(f, (X,), (T,))


@pytest.mark.parametrize(
    "f", [lambda x: np.array([x[0, 0], x[0, 1]]), lambda x: float(x[0, 0]), lambda x: math.exp(x[0, 0])]
)
def test_the_error_names_the_cure(f):
    with pytest.raises(gj.ConcretizationError, match=r"np\.stack\(\[\.\.\.\]\).*gpujac\.value\(x\)"):
        gj.jvp(f, (X,), (T,))


def test_an_array_of_constants_made_while_tracing_gives_its_values_freely(traced):
    def f(x):
        y = np.zeros_like(x) + 2.0
        return float(y[0, 0]), np.asarray(y), math.sqrt(y[1, 1]), y.item(0)

    number, array, root, item = traced(f)
    assert (number, root, item) == (2.0, math.sqrt(2.0), 2.0)
    np.testing.assert_array_equal(array, np.full((2, 2), 2.0))


def test_python_may_branch_and_count_with_traced_values(traced):
    def f(x):
        n = 0
        while x[0, 0] * (n + 1) < 1:
            n += 1
        assert x[0, 0]
        assert x[0, 1] < 0 <= x[1, 1]
        assert 0.3 in x
        assert list(range(3))[x.argmax()] == 2
        return n, int(x[1, 0]), bool(x[0, 0] > 0), len(x), f"{x[0, 0]:.2f}", repr(x[0, 0])

    assert traced(f)[:5] == (3, 1, True, 2, "0.30")


def test_comparisons_give_plain_flags(traced):
    flags = traced(lambda x: (x == X, x != X, np.equal(X, x), x < [0.0, 1.0], x >= 0.3, x == NONE, x != NONE))
    np.testing.assert_array_equal(flags[0], np.ones((2, 2), bool))
    np.testing.assert_array_equal(flags[1], np.zeros((2, 2), bool))
    np.testing.assert_array_equal(flags[2], np.ones((2, 2), bool))
    np.testing.assert_array_equal(flags[3], X < [0.0, 1.0])
    np.testing.assert_array_equal(flags[4], X >= 0.3)
    assert flags[5:] == (False, True)


def test_a_traced_array_is_not_hashable(traced):
    with pytest.raises(TypeError, match="unhashable"):
        traced(hash)


def test_copies_take_no_part_in_later_writes():
    def f(x):
        a, b, c = copy.copy(x), copy.deepcopy([x])[0], x.copy()
        a[0] = 0.0
        b[1] *= 2.0
        return x + a + b + np.copy(c)

    agrees(f)


def test_item_drops_the_derivative_with_one_warning_per_line(recwarn, traced):
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        value = gj.grad(lambda x: sum(x[0, 0].item() * x[0, 0] for _ in range(3)))(X)[0, 0]
    assert value == pytest.approx(0.9)
    assert [w.category for w in caught] == [gj.errors.DerivativeWarning]
    assert "gpujac.value(x)" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_item_of_one_value_per_lane_raises():
    with pytest.raises(gj.ConcretizationError, match="lane"):
        gj.vmap(lambda x: x.item())(X[0])


def test_a_plain_buffer_with_traced_values_names_zeros_like():
    def by_operator(x):
        total = np.zeros(2)
        total += x[0]
        return total

    def by_out(x):
        return np.sin(x, out=np.zeros((2, 2)))

    def by_at(x):
        total = np.zeros(2)
        np.add.at(total, [0, 0], x[0])
        return total

    def by_entry(x):
        total = np.zeros(2)
        total[0] = x[0, 0]
        return total

    for f in (by_operator, by_out, by_at, by_entry):
        with pytest.raises(gj.MutationError, match=r"np\.zeros_like"):
            gj.jvp(f, (X,), (T,))


def test_a_function_gets_its_out_argument_refused_with_a_cure():
    with pytest.raises(gj.MutationError, match=r"sum: out= .* assign the result"):
        gj.grad(lambda x: np.sum(x, out=np.zeros(())))(X)


def test_lists_of_traced_arrays_join_and_stack():
    agrees(lambda x: np.stack([x[0], x[1] * 2, [1.0, 2.0]]))
    agrees(lambda x: np.concatenate([x[0], [3.0], np.ones(1)]))
    agrees(lambda x: np.vstack([x, x[0]]))
    agrees(lambda x: np.where([True, False], x, [[x[0, 0], 1.0], [2.0, x[1, 1]]]))
