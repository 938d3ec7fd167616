"""cond and switch: which branches run, what is chosen, what is refused."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpujac as gj

X = np.array([1.0, -2.0, 3.0, -0.5])


def counting(f, calls):
    def g(*args):
        calls.append(f)
        return f(*args)

    return g


def test_one_branch_runs_where_there_is_one_value():
    for flag in (True, False, np.True_, np.array(False), 1, 0.0, np.array(2.0)):
        calls = []
        yes, no = (counting(f, calls) for f in (np.sin, np.cos))
        found = gj.cond(flag, yes, no, X)
        np.testing.assert_array_equal(found, np.sin(X) if flag else np.cos(X))
        assert len(calls) == 1


def test_a_traced_predicate_decides_by_its_value():
    f = lambda x: gj.cond(x[0] > 0, lambda: x * x, lambda: -x)
    np.testing.assert_array_equal(gj.grad(lambda x: f(x).sum())(X), 2 * X)
    np.testing.assert_array_equal(gj.grad(lambda x: f(x).sum())(-X), -np.ones(4))


@pytest.mark.parametrize(
    ("preds", "wanted"), [([True, False], 2), ([True, True], 1), ([False, False], 1), ([], 1)]
)
def test_both_branches_run_once_where_lanes_differ_and_one_where_they_agree(preds, wanted):
    calls = []
    yes, no = (counting(f, calls) for f in (np.sin, np.cos))
    preds, xs = np.array(preds, bool), np.ones(len(preds))
    found = gj.vmap(lambda p, x: gj.cond(p, yes, no, x))(preds, xs)
    assert len(calls) == wanted
    np.testing.assert_array_equal(found, np.where(preds, np.sin(xs), np.cos(xs)))


@given(st.lists(st.tuples(st.booleans(), st.floats(-3, 3)), max_size=7))
def test_cond_is_the_loop_over_lanes(lanes):
    preds = np.array([p for p, _ in lanes], bool)
    xs = np.array([x for _, x in lanes], float)
    f = lambda p, x: gj.cond(p, lambda x: x * x, lambda x: np.sin(x), x)
    np.testing.assert_array_equal(gj.vmap(f)(preds, xs), np.where(preds, xs * xs, np.sin(xs)))
    g = gj.vmap(gj.grad(f, argnums=1))(preds, xs)
    np.testing.assert_allclose(g, np.where(preds, 2 * xs, np.cos(xs)), rtol=1e-15)


@given(st.lists(st.integers(-3, 6), max_size=7), st.sampled_from(["int64", "int32", "uint8"]))
def test_switch_is_the_loop_over_lanes(indices, dtype):
    index = np.array(indices, np.int64).clip(0 if dtype == "uint8" else -3).astype(dtype)
    xs = np.linspace(0.1, 1.0, len(indices))
    branches = [np.sin, lambda x: 3.0 * x, lambda x: 1.0]
    found = gj.vmap(lambda i, x: gj.switch(i, branches, x))(index, xs)
    wanted = [branches[min(max(int(i), 0), 2)](x) for i, x in zip(index, xs)]
    np.testing.assert_array_equal(found, np.array(wanted, float))


def test_a_predicate_of_an_outer_vmap_with_values_of_an_inner_one():
    preds, xs = np.array([True, False]), np.arange(6.0).reshape(2, 3)
    f = lambda p, row: gj.vmap(lambda x: gj.cond(p, lambda x: 2 * x, lambda x: x - 1, x))(row)
    np.testing.assert_array_equal(gj.vmap(f)(preds, xs), np.where(preds[:, None], 2 * xs, xs - 1))
    one_for_all = gj.vmap(lambda x: gj.vmap(lambda p: gj.cond(p, lambda: x, lambda: -x))(preds))(xs[:, 0])
    np.testing.assert_array_equal(one_for_all, np.where(preds, xs[:, :1], -xs[:, :1]))


@pytest.mark.parametrize(
    ("pred", "yes", "no", "wanted"),
    [
        (lambda x: x > 0, np.sqrt, lambda x: 0 * x, [0.25, 0, 0, 0.5 / 1000**0.5]),
        (lambda x: x > 0, np.log, lambda x: x, [0.25, 1, 1, 1e-3]),
        (lambda x: x != 0, lambda x: 1 / x, lambda x: x, [-1 / 16, 1, -1, -1e-6]),
        (lambda x: x < 10, lambda x: np.exp(x) * x, lambda x: x, [5 * np.e**4, 1, 0, 1]),
        (lambda x: x < 10, lambda x: (x**200) ** 2, lambda x: x, [400 * 4.0**399, 0, -400, 1]),
        (lambda x: x < 10, lambda x: (x * 1e306) * x, lambda x: x * x, [8e306, 0, -2e306, 2000]),
    ],
)  # fmt: skip
def test_no_nan_and_no_warning_from_the_branch_of_other_lanes(pred, yes, no, wanted):
    xs = np.array([4.0, 0.0, -1.0, 1000.0])
    f = lambda x: gj.cond(pred(x), yes, no, x)
    total = lambda xs: gj.vmap(f)(xs).sum()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        derivatives = [
            gj.vmap(gj.grad(f))(xs), gj.grad(total)(xs), gj.vmap(lambda x: gj.jvp(f, (x,), (1.0,))[1])(xs),
            np.diagonal(gj.jacrev(gj.vmap(f))(xs)), np.diagonal(gj.jacfwd(gj.vmap(f))(xs)),
        ]  # fmt: skip
        second = gj.vmap(gj.hessian(f))(xs)
    for found in derivatives:
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=0)
    assert np.isfinite(second).all()


def test_results_are_trees_of_any_dtypes():
    def yes(x, n):
        return {"c": x * 1j, "n": n + 1, "flag": n > 0, "none": None, "empty": (), "weak": 1.0}

    def no(x, n):
        return {"flag": n > 5, "c": x + 0j, "n": n, "none": None, "empty": (), "weak": 2.0}

    preds, xs, ns = np.array([True, False]), np.array([1.0, 2.0]), np.array([3, 4], np.int32)
    out = gj.vmap(lambda p, x, n: gj.cond(p, yes, no, x, n))(preds, xs, ns)
    np.testing.assert_array_equal(out["c"], [1j, 2])
    np.testing.assert_array_equal(out["n"], [4, 4])
    np.testing.assert_array_equal(out["flag"], [True, False])
    np.testing.assert_array_equal(out["weak"], [1.0, 2.0])
    assert out["n"].dtype == np.int32
    assert out["flag"].dtype == bool
    assert out["none"] is None
    assert out["empty"] == ()
    assert gj.vmap(lambda p: (p, gj.cond(p, lambda: (), lambda: ()))[0])(preds).shape == (2,)


def test_the_result_is_a_mapped_one_even_where_no_branch_reads_a_lane():
    found = gj.vmap(lambda p: gj.cond(p, lambda: np.arange(3.0), lambda: np.zeros(3)))(np.array([True, False]))
    np.testing.assert_array_equal(found, [[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]])


def test_complex_derivatives_go_through_the_lanes_branch():
    zs = np.array([1 + 2j, -0.5 + 1j])
    f = lambda z: gj.cond(z.real > 0, lambda z: z**3, np.exp, z)
    found = gj.vmap(gj.jacrev(f, holomorphic=True))(zs)
    np.testing.assert_allclose(found, [3 * zs[0] ** 2, np.exp(zs[1])], rtol=1e-14)
    np.testing.assert_allclose(gj.vmap(gj.jacfwd(f, holomorphic=True))(zs), found, rtol=1e-14)


def test_a_branch_writes_into_its_operand_for_itself():
    def add(x):
        x += 1
        return x

    def both(p, x):
        return gj.cond(p, add, lambda x: x * 10, x), x

    preds, xs = np.array([True, False]), np.array([[1.0, 2.0], [3.0, 4.0]])
    out, after = gj.vmap(both)(preds, xs)
    np.testing.assert_array_equal(out, [[2.0, 3.0], [30.0, 40.0]])
    np.testing.assert_array_equal(after, xs)
    shared = np.array([1.0, 2.0])
    out = gj.vmap(lambda p: gj.cond(p, add, lambda x: x * 10, shared))(preds)
    np.testing.assert_array_equal(out, [[2.0, 3.0], [10.0, 20.0]])
    np.testing.assert_array_equal(shared, [1.0, 2.0])


def test_a_branch_writes_into_a_captured_array_in_its_own_lanes():
    def f(p, x):
        y = np.zeros_like(x)
        part = y[1:]

        def first():
            y[0] = 5.0
            part[...] += x[1:]
            return x[0]

        def second():
            y[-1] = x[0] * x[1]
            return x[1]

        z = gj.cond(p, first, second)
        return y * z

    def plain(p, x):
        y = np.zeros_like(x)
        if p:
            y[0] = 5.0
            y[1:] += x[1:]
            return y * x[0]
        y[-1] = x[0] * x[1]
        return y * x[1]

    preds, xs = np.array([True, False, True]), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [-1.0, 0.5, 2.0]])
    flags = (True, False, True)
    np.testing.assert_array_equal(gj.vmap(f)(preds, xs), np.stack([plain(p, x) for p, x in zip(flags, xs)]))
    J = gj.vmap(gj.jacrev(f, 1))(preds, xs)
    np.testing.assert_allclose(J, np.stack([gj.jacrev(plain, 1)(p, x) for p, x in zip(flags, xs)]), rtol=1e-14)


def test_an_array_of_outside_of_the_lanes_cannot_be_written_into():
    def f(y):
        def first():
            y[0] = 5.0
            return 0.0

        gj.vmap(lambda p: gj.cond(p, first, lambda: 0.0))(np.array([True, False]))
        return y

    with pytest.raises(gj.MutationError, match="made outside vmap"):
        gj.jacrev(f)(X * 1.0)


def test_recursion_by_cond_ends_when_the_last_lane_does():
    def factorial(n):
        return gj.cond(n <= 1, lambda n: 1, lambda n: n * factorial(n - 1), n)

    np.testing.assert_array_equal(gj.vmap(factorial)(np.array([1, 5, 3, 0])), [1, 120, 6, 1])


def test_a_loop_inside_a_branch_ends_when_the_lanes_of_the_branch_are_done():
    # in lanes with n <= 0 the loop would never end
    count = lambda n: gj.while_loop(lambda s: s[0] != 0, lambda s: (s[0] - 1, s[1] + 2), (n, 0))[1]
    f = lambda n: gj.cond(n > 0, count, lambda n: -1, n)
    np.testing.assert_array_equal(gj.vmap(f)(np.array([3, -2, 0, 1])), [6, -1, -1, 2])


def test_an_index_out_of_bounds_is_an_error_only_in_lanes_that_take_the_branch():
    xs, index = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([1, 7, 0])
    table = np.array([10.0, 20.0])
    for read in (lambda x, i: gj.cond(i < 2, lambda: x[i], lambda: -x[0]),
                 lambda x, i: gj.cond(i < 2, lambda x, i: x[i], lambda x, i: -x[0], x, i)):  # fmt: skip
        np.testing.assert_array_equal(gj.vmap(read)(xs, index), [2.0, -3.0, 5.0])
        np.testing.assert_array_equal(gj.vmap(gj.grad(read))(xs, index), [[0, 1], [-1, 0], [1, 0]])
    taken = gj.vmap(lambda t, i: gj.cond(i < 2, lambda: t[i], lambda: 0.0), in_dims=(None, 0))(table, index)
    np.testing.assert_array_equal(taken, [20.0, 0.0, 10.0])

    def write(x, i):
        x = x.copy()
        x[i] = 9.0
        return x

    found = gj.vmap(lambda x, i: gj.cond(i < 2, write, lambda x, i: x, x, i))(xs, index)
    np.testing.assert_array_equal(found, [[1, 9], [3, 4], [9, 6]])


def test_an_index_out_of_bounds_is_an_error_in_a_lane_that_takes_the_branch():
    xs, index = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([1, 7, 0])
    with pytest.raises(IndexError, match="index 7 is out of bounds"):
        gj.vmap(lambda x, i: gj.cond(i > 2, lambda: x[i], lambda: -x[0]))(xs, index)


def test_branches_that_no_lane_takes_do_not_run():
    calls = []
    branches = [counting(f, calls) for f in (np.sin, np.cos, np.tan, np.exp)]
    found = gj.vmap(lambda i, x: gj.switch(i, branches, x))(np.array([3, 1, 3]), np.ones(3))
    np.testing.assert_allclose(found, [np.exp(1.0), np.cos(1.0), np.exp(1.0)])
    assert len(calls) == 2
    calls.clear()
    gj.vmap(lambda i, x: gj.switch(i, branches, x))(np.array([2, 2]), np.ones(2))
    assert len(calls) == 1


def test_an_index_of_a_narrow_dtype_reaches_more_branches_than_it_counts():
    branches = [lambda k=k: k for k in range(300)]
    found = gj.vmap(lambda i: gj.switch(i, branches))(np.array([0, 255, 7], np.uint8))
    np.testing.assert_array_equal(found, [0, 255, 7])
    found = gj.vmap(lambda i: gj.switch(i, branches))(np.array([-5, 127], np.int8))
    np.testing.assert_array_equal(found, [0, 127])


def test_an_index_with_one_value_is_limited_too():
    f = lambda i: gj.switch(i, [lambda: "a", lambda: "b"])
    assert [f(i) for i in (-5, 0, 1, np.int32(1), np.array(9))] == ["a", "a", "b", "b", "b"]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("lanes", [False, True])
def test_a_predicate_that_is_no_scalar_is_refused(lanes):
    f = lambda x: gj.cond(x > 0, np.sin, np.cos, x)
    with pytest.raises(gj.ShapeError, match=r"the predicate has shape \(2,\).*np\.where"):
        (gj.vmap(f) if lanes else f)(np.ones((3, 2)) if lanes else np.ones(2))


@pytest.mark.parametrize("pred", ["yes", None, [True]])
def test_a_predicate_that_is_no_number_is_refused(pred):
    with pytest.raises(gj.ArgumentTypeError, match="the predicate is a"):
        gj.cond(pred, np.sin, np.cos, 1.0)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: gj.cond(True, 1, np.sin, X), gj.ArgumentTypeError, "true_fun must be a function, not int"),
        (lambda: gj.cond(True, np.sin, None, X), gj.ArgumentTypeError, "false_fun must be a function"),
        (lambda: gj.switch(0, [], X), gj.ArgumentError, "branches is empty"),
        (lambda: gj.switch(0, np.sin, X), gj.ArgumentTypeError, "give a list of functions"),
        (lambda: gj.switch(0, [np.sin, 2], X), gj.ArgumentTypeError, r"branches\[1\] must be a function"),
        (lambda: gj.switch(1.0, [np.sin], X), gj.DTypeError, "the index has dtype float64"),
        (lambda: gj.switch(True, [np.sin], X), gj.DTypeError, "the index has dtype bool"),
        (lambda: gj.switch(np.arange(2), [np.sin], X), gj.ShapeError, r"the index has shape \(2,\)"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize(
    ("yes", "no", "error", "text"),
    [
        (lambda x: (x, x), lambda x: x, gj.StructureError, "expected tuple"),
        (lambda x: {"a": [x]}, lambda x: {"a": [x, x]}, gj.StructureError, r"\['a'\]"),
        (lambda x: {"a": x}, lambda x: {"a": x[:2]}, gj.ShapeError, r"result\['a'\] has shape \(4,\) from true_fun"),
        (lambda x: x, lambda x: x.astype(np.float32), gj.DTypeError, "float64 from true_fun and float32"),
        (lambda x: 1, lambda x: x[0], None, ""),
        (lambda x: x[0] > 0, lambda x: 0.5, gj.DTypeError, "bool from true_fun and float64"),
        (lambda x: "a", lambda x: "b", gj.StructureError, "'a' from true_fun and 'b' from false_fun"),
    ],
)
def test_results_that_differ_between_the_branches(yes, no, error, text):
    run = lambda: gj.vmap(lambda p: gj.cond(p, yes, no, X))(np.array([True, False]))
    if error is None:
        np.testing.assert_array_equal(run(), [1.0, X[0]])
        return
    with pytest.raises(error, match=text):
        run()


def test_switch_names_the_branches_that_differ():
    f = lambda i: gj.switch(i, [lambda: X, lambda: X, lambda: X[:1]])
    with pytest.raises(gj.ShapeError, match=r"from branches\[2\] and \(4,\) from branches\[0\]"):
        gj.vmap(f)(np.array([0, 1, 2]))


def test_a_linear_function_is_recorded_without_the_value_of_a_predicate():
    with pytest.raises(gj.ConcretizationError, match="without values"):
        gj.linear_transpose(lambda x: gj.cond(x.sum() > 0, lambda x: x, lambda x: 2 * x, x), X)
    ft = gj.linear_transpose(lambda x: gj.cond(True, lambda x: 3 * x, lambda x: x, x), X)
    np.testing.assert_array_equal(ft(X)[0], 3 * X)


def test_an_exception_in_a_branch_leaves_nothing_behind():
    def bad(x):
        raise ZeroDivisionError("mine")

    preds = np.array([True, False])
    with pytest.raises(ZeroDivisionError, match="mine"):
        gj.vmap(lambda p, x: gj.cond(p, bad, np.sin, x))(preds, np.ones(2))
    found = gj.vmap(lambda n: gj.while_loop(lambda i: i < n, lambda i: i + 1, 0))(np.array([2, 3]))
    np.testing.assert_array_equal(found, [2, 3])


def test_warnings_are_as_before_after_a_branch_that_raised():
    with np.errstate(divide="raise"), pytest.raises(ZeroDivisionError):
        gj.vmap(lambda p: gj.cond(p, lambda: 1 // 0, lambda: 0))(np.array([True, False]))
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        np.divide(1.0, np.zeros(1))
