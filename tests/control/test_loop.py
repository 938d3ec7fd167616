"""while_loop and fori_loop: a number of iterations per lane, and what an iteration must keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpujac as gj

X = np.array([0.5, 1.5, 2.5])


def doubled(x, n):
    """x squared n times, and how often."""
    return gj.while_loop(lambda s: s[1] < n, lambda s: (s[0] * s[0], s[1] + 1), (x, 0))


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.2, 1.5)), max_size=6))
def test_each_lane_runs_as_often_as_it_wants(lanes):
    ns = np.array([n for n, _ in lanes], np.int64)
    xs = np.array([x for _, x in lanes], float)
    found, counts = gj.vmap(doubled)(xs, ns)
    np.testing.assert_array_equal(counts, ns)
    np.testing.assert_allclose(found, xs ** (2.0**ns), rtol=1e-13)
    slopes = 2.0**ns * xs ** (2.0**ns - 1)
    for g in (gj.vmap(gj.grad(lambda x, n: doubled(x, n)[0]))(xs, ns),
              gj.grad(lambda xs: gj.vmap(doubled)(xs, ns)[0].sum())(xs),
              gj.jvp(lambda xs: gj.vmap(doubled)(xs, ns)[0], (xs,), (np.ones_like(xs),))[1]):  # fmt: skip
        np.testing.assert_allclose(g, slopes, rtol=1e-12)


@given(st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=2), max_size=4))
def test_lanes_of_two_vmaps(rows):
    ns = np.array(rows, np.int64).reshape(len(rows), 2)
    count = lambda n, m: gj.while_loop(lambda i: i < n + m, lambda i: i + 1, 0)
    found = gj.vmap(lambda n: gj.vmap(count, in_dims=(None, 0))(n[0], n))(ns)
    np.testing.assert_array_equal(found, ns[:, :1] + ns)
    crossed = gj.vmap(gj.vmap(count, in_dims=(None, 0)), in_dims=(0, None))(ns[:, 0], ns[:, 1])
    np.testing.assert_array_equal(crossed, ns[:, :1] + ns[:, 1])


@given(st.lists(st.tuples(st.integers(-2, 3), st.integers(-2, 4)), max_size=6))
def test_fori_loop_with_bounds_per_lane(bounds):
    low, high = (np.array([b[k] for b in bounds], np.int64) for k in range(2))
    f = lambda a, b: gj.fori_loop(a, b, lambda i, s: s * 10 + i, 1)
    wanted = []
    for a, b in bounds:
        s = 1
        for i in range(a, b):
            s = s * 10 + i
        wanted.append(s)
    np.testing.assert_array_equal(gj.vmap(f)(low, high), np.array(wanted, np.int64))
    if bounds:
        np.testing.assert_array_equal(gj.vmap(lambda b: f(-1, b))(high), [f(-1, b) for _, b in bounds])
        np.testing.assert_array_equal(gj.vmap(lambda a: f(a, 2))(low), [f(a, 2) for a, _ in bounds])


def test_the_counter_is_a_python_int_unless_lower_is_mapped():
    seen = []
    gj.fori_loop(np.int32(1), np.array(3), lambda i, s: (seen.append(i), s)[1], 0.0)
    assert seen == [1, 2]
    assert all(type(i) is int for i in seen)
    table = np.arange(12.0).reshape(4, 3)
    row = gj.vmap(lambda n, t: gj.fori_loop(0, n, lambda i, s: s + t[i], 0.0))(np.array([3, 0, 2, 1]), table)
    np.testing.assert_array_equal(row, [3.0, 0.0, 13.0, 9.0])
    shifted = gj.vmap(lambda a, t: gj.fori_loop(a, 3, lambda i, s: s + t[i], 0.0))(np.array([3, 0, 2, 1]), table)
    np.testing.assert_array_equal(shifted, [0.0, 12.0, 8.0, 21.0])


NARROW = [([253, 254], "uint8", 255), ([125, 126], "int8", 127), ([253, 254], "uint8", 300), ([-128, 3], "int8", -125),
          ([2**63 - 3, 2**63 - 2], "int64", 2**63 - 1), ([5, 2**31 - 1], "int32", 8)]  # fmt: skip


@pytest.mark.parametrize(("lower", "dtype", "upper"), NARROW)
def test_a_counter_at_the_end_of_its_dtype_does_not_begin_again(lower, dtype, upper):
    found = gj.vmap(lambda a: gj.fori_loop(a, upper, lambda i, s: s + 1, 0))(np.array(lower, dtype))
    np.testing.assert_array_equal(found, [max(upper - a, 0) for a in lower])


def test_bounds_of_narrow_dtypes_meet_each_other_and_plain_ones():
    count = lambda a, b: gj.fori_loop(a, b, lambda i, s: s + 1, 0)
    low, high = np.array([-3, 127], np.int8), np.array([254, 255], np.uint8)
    np.testing.assert_array_equal(gj.vmap(count)(low, high), [257, 128])
    np.testing.assert_array_equal(gj.vmap(lambda b: count(250, b))(high), [4, 5])
    np.testing.assert_array_equal(gj.vmap(lambda b: count(-5, b))(np.array([4, 2], np.uint64)), [9, 7])
    np.testing.assert_array_equal(gj.vmap(lambda b: count(2**70, b))(high), [0, 0])
    np.testing.assert_array_equal(gj.vmap(lambda a: count(a, -(2**70)))(low), [0, 0])
    with pytest.raises(gj.DTypeError, match="lower is uint64 and beyond"):
        gj.vmap(lambda a: count(a, 2**64 - 1))(np.array([1, 2**64 - 3], np.uint64))


@pytest.mark.parametrize("carry", ["int8", "uint8", "int64", "float16", "float32", "float64", "complex64", "python"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
def test_the_counter_computes_and_promotes_as_a_python_int(carry, dtype):
    """What each lane alone gives, where the counter is a Python int."""
    init = 0 if carry == "python" else np.ones((), carry)
    square = lambda i, s: s + i * i if carry not in ("int8", "uint8") else s + i
    f = lambda a: gj.fori_loop(a, 20, square, init)
    lower = np.array([3, 12, 20], dtype)
    with np.errstate(over="ignore"):
        wanted = [np.asarray(f(a)) for a in lower.tolist()]
        found = gj.vmap(f)(lower)
    np.testing.assert_array_equal(found, np.stack(wanted))
    assert found.dtype == wanted[0].dtype


def test_a_state_that_changes_its_dtype_by_something_else_than_the_counter_is_refused():
    for init in (np.float32(0), np.int8(0), np.uint8(0)):
        with pytest.raises(gj.DTypeError, match="an iteration must keep the dtype"):
            gj.vmap(lambda a, init=init: gj.fori_loop(a, 20, lambda i, s: s * 1j + i, init))(np.array([3, 12]))


CHANGES = {
    "fori_loop": lambda s: gj.fori_loop(0, 3, lambda i, s: s * np.float32(2), s),
    "while_loop": lambda s: gj.while_loop(lambda s: s < 8, lambda s: s * np.float32(2), s),
    "scan": lambda s: gj.scan(lambda s, x: (s * x, s), s, np.full(3, 2, np.float32))[0],
    "taken": lambda s: gj.fori_loop(0, 2, lambda i, c: 8 * s, np.float32(3)),
}


@pytest.mark.parametrize("f", CHANGES.values(), ids=list(CHANGES))
def test_a_python_number_gives_way_to_the_dtype_of_an_array_while_it_is_traced(f):
    assert (float(f(1.0)), np.asarray(f(1.0)).dtype) == (8.0, np.float32)
    value, slope = gj.jvp(f, (1.0,), (1.0,))
    assert (float(value), np.asarray(value).dtype, float(slope)) == (8.0, np.float32, 8.0)
    assert float(gj.grad(f)(1.0)) == 8.0
    assert float(gj.hessian(f)(1.0)) == 0.0


def test_reverse_mode_goes_back_through_the_iterations_that_ran():
    calls = []

    def body(s):
        calls.append(1)
        return s * np.sin(s) + 1

    f = lambda x: gj.while_loop(lambda s: s < 1.9, body, x)
    plain = lambda x: (x * np.sin(x) + 1) * np.sin(x * np.sin(x) + 1) + 1
    assert float(f(0.5)) == plain(0.5)
    calls.clear()
    g = gj.grad(f)(0.5)
    assert len(calls) == 2
    np.testing.assert_allclose(g, gj.grad(plain)(0.5), rtol=1e-14)
    np.testing.assert_allclose(gj.hessian(f)(0.5), gj.hessian(plain)(0.5), rtol=1e-13)
    np.testing.assert_allclose(gj.vmap(gj.hessian(f))(np.array([0.5, 5.0])), [gj.hessian(plain)(0.5), 0], rtol=1e-12)


def test_no_iteration_gives_the_first_state_and_shares_nothing_with_it():
    init = {"x": np.array([1.0, 2.0]), "n": 3}
    out = gj.while_loop(lambda s: False, lambda s: s, init)
    assert out["n"] == 3
    out["x"][0] = 100.0
    assert init["x"][0] == 1.0
    out = gj.fori_loop(5, 2, lambda i, s: s + 1, init["x"])
    np.testing.assert_array_equal(out, init["x"])
    np.testing.assert_array_equal(gj.grad(lambda x: gj.while_loop(lambda s: False, np.sin, x).sum())(X), np.ones(3))


def test_an_iteration_may_write_into_its_state():
    def body(s):
        s[0] += s[1]
        return s

    f = lambda x: gj.while_loop(lambda s: s[0] < 5, body, x)
    x = np.array([[1.0, 1.5], [4.0, 2.0], [7.0, 1.0]])
    kept = x.copy()
    wanted = np.array([[5.5, 1.5], [6.0, 2.0], [7.0, 1.0]])
    np.testing.assert_array_equal(gj.vmap(f)(x), wanted)
    np.testing.assert_array_equal(np.stack([f(row) for row in x]), wanted)
    shared = np.array([1.0, 1.5])
    limit = np.array([2.0, 5.0])
    found = gj.vmap(lambda n: gj.while_loop(lambda s: s[0] < n, body, shared))(limit)
    np.testing.assert_array_equal(found, [[2.5, 1.5], [5.5, 1.5]])
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(shared, [1.0, 1.5])
    J = gj.vmap(gj.jacrev(f))(x)
    np.testing.assert_array_equal(J[:, 0], [[1.0, 3.0], [1.0, 1.0], [1.0, 0.0]])


def test_an_iteration_writes_into_a_captured_array_in_the_lanes_that_go_on():
    def visited(n, x):
        seen = np.zeros_like(x)

        def body(i):
            seen[i] = x[i] * (i + 1)
            return i + 1

        gj.while_loop(lambda i: i < n, body, 0)
        return seen

    ns, xs = np.array([0, 3, 1]), np.arange(9.0).reshape(3, 3) + 1
    wanted = xs * np.array([1.0, 2.0, 3.0]) * (np.arange(3) < ns[:, None])
    np.testing.assert_array_equal(gj.vmap(visited)(ns, xs), wanted)
    J = gj.vmap(gj.jacrev(visited, 1))(ns, xs)
    np.testing.assert_array_equal(J.sum(2), wanted / xs)


def test_a_lane_that_is_done_keeps_its_state_though_it_would_overflow():
    f = lambda x: gj.while_loop(lambda s: (s < 1e3) & (s > 1), lambda s: np.exp(s), x)
    xs = np.array([1.5, 2.2, 5.0, 0.5, 2e4])
    once = np.exp(xs[:4])
    wanted = [np.exp(np.exp(once[0])), np.exp(once[1]), np.exp(once[2]), 0.5, 2e4]
    slopes = [wanted[0] * np.exp(once[0]) * once[0], wanted[1] * once[1], wanted[2] * once[2], 1, 1]
    np.testing.assert_allclose(gj.vmap(f)(xs), wanted, rtol=1e-13)
    for found in (gj.vmap(gj.grad(f))(xs), gj.grad(lambda xs: gj.vmap(f)(xs).sum())(xs),
                  gj.vmap(lambda x: gj.jvp(f, (x,), (1.0,))[1])(xs), gj.jacrev(gj.vmap(f))(xs) @ np.ones(5)):
        np.testing.assert_allclose(found, slopes, rtol=1e-13)


def test_a_fixed_point_where_one_more_step_would_divide_zero_by_zero():
    # at the root both numerator and denominator of the step are zero
    step = lambda x: x - (x**3) / (3 * x**2)
    f = lambda x: gj.while_loop(lambda s: abs(s) > 1e-3, step, x)
    xs = np.array([0.0, 1.0, 1e-2, 0.0])
    g = gj.vmap(gj.grad(f))(xs)
    steps = np.array([0, 18, 6, 0])
    np.testing.assert_allclose(g, (2 / 3) ** steps, rtol=1e-12)
    total = lambda xs: gj.vmap(f)(xs).sum()
    np.testing.assert_allclose(gj.grad(total)(xs), (2 / 3) ** steps, rtol=1e-12)
    np.testing.assert_allclose(gj.vmap(lambda x: gj.jvp(f, (x,), (1.0,))[1])(xs), (2 / 3) ** steps, rtol=1e-12)


def test_a_loop_in_a_loop_with_lanes_of_their_own():
    def collatz(n):
        """Steps to 1, the halvings in a loop of their own."""

        def step(s):
            n, count = s
            n, halvings = gj.while_loop(lambda h: h[0] % 2 == 0, lambda h: (h[0] // 2, h[1] + 1), (n, 0))
            return gj.cond(n > 1, lambda: (3 * n + 1, count + halvings + 1), lambda: (n, count + halvings))

        return gj.while_loop(lambda s: s[0] > 1, step, (n, 0))[1]

    def plain(n):
        count = 0
        while n > 1:
            n, count = (n // 2 if n % 2 == 0 else 3 * n + 1), count + 1
        return count

    ns = np.arange(1, 30)
    np.testing.assert_array_equal(gj.vmap(collatz)(ns), [plain(n) for n in range(1, 30)])
    assert collatz(27) == plain(27)


def test_state_that_no_lane_changes_becomes_mapped_with_the_first_iteration():
    ns = np.array([0, 2, 1])
    out = gj.vmap(lambda n: gj.while_loop(lambda s: s["i"] < n, lambda s: {"i": s["i"] + 1, "x": s["x"] * 2},
                                          {"i": 0, "x": np.ones(2)}))(ns)  # fmt: skip
    np.testing.assert_array_equal(out["x"], [[1, 1], [4, 4], [2, 2]])
    np.testing.assert_array_equal(out["i"], ns)


def test_the_end_may_depend_on_what_is_captured():
    limits = np.array([3.0, 10.0, 0.5])
    f = lambda limit: gj.while_loop(lambda s: s < limit, lambda s: s * limit, 1.1)
    wanted = [1.1 * 3.0, 11.0, 1.1]
    np.testing.assert_allclose(gj.vmap(f)(limits), wanted)
    np.testing.assert_allclose(gj.vmap(gj.grad(f))(limits), [1.1, 1.1, 0.0])


def test_python_numbers_in_the_first_state_take_the_dtype_of_the_next():
    out = gj.while_loop(lambda s: s[1] < 2, lambda s: (s[0] + np.float32(1), s[1] + np.int16(1)), (0.5, 0))
    assert (np.asarray(out[0]).dtype, np.asarray(out[1]).dtype) == (np.float32, np.int16)
    kept = gj.while_loop(lambda s: s[1] < 2, lambda s: (0.25, s[1] + 1), (np.float32(1), 0))[0]
    assert kept.dtype == np.float32
    mapped = gj.vmap(lambda n: gj.while_loop(lambda s: s[1] < n, lambda s: (1, s[1] + 1), (np.float32(0), 0))[0])
    found = mapped(np.array([0, 1, 2]))
    np.testing.assert_array_equal(found, [0, 1, 1])
    assert found.dtype == np.float32


def test_complex_states():
    # z -> z^2 + c until it leaves the circle or 30 times
    def escape(c):
        step = lambda s: (s[0] ** 2 + c, s[1] + 1)
        return gj.while_loop(lambda s: (abs(s[0]) < 2) & (s[1] < 30), step, (0 * c, 0))

    cs = np.array([0.1 + 0.2j, 1 + 1j, -0.5 + 0.9j, 2 + 2j])
    z, n = gj.vmap(escape)(cs)
    for i, c in enumerate([0.1 + 0.2j, 1 + 1j, -0.5 + 0.9j, 2 + 2j]):
        w, k = 0j, 0
        while abs(w) < 2 and k < 30:
            w, k = w * w + c, k + 1
        np.testing.assert_allclose(z[i], w, rtol=1e-9)
        assert int(n[i]) == k


def test_empty_states_and_states_without_entries():
    assert gj.fori_loop(0, 3, lambda i, s: s, ()) == ()
    out = gj.vmap(lambda n: gj.fori_loop(0, n, lambda i, s: {"x": s["x"] * 2, "none": None},
                                         {"x": np.zeros((0, 2)), "none": None}))(np.array([1, 2]))  # fmt: skip
    assert out["x"].shape == (2, 0, 2)
    assert out["none"] is None


@pytest.mark.parametrize(
    ("init", "body", "error", "text"),
    [
        ((X, 0), lambda s: [s[0], s[1]], gj.StructureError, "while_loop: the new carry: expected tuple, found list"),
        ({"a": (X, 0)}, lambda s: {"a": (s["a"][0][:1], 1)}, gj.ShapeError,
         r"carry\['a'\]\[0\] had shape \(3,\) and now has \(1,\)"),
        ({"a": X}, lambda s: {"b": s["a"]}, gj.StructureError, "missing key is 'a'"),
        (X, lambda s: s.astype(np.float32), gj.DTypeError, "carry was float64 and now is float32"),
        ({"n": 0}, lambda s: {"n": s["n"] + 0.5}, gj.DTypeError, r"carry\['n'\] was int64 and now is float64"),
        (X, lambda s: s * 1j, gj.DTypeError, "was float64 and now is complex128"),
        (X, lambda s: "done", gj.ArgumentTypeError, "the new carry is a str, not an array"),
        ((X, "text"), lambda s: s, gj.ArgumentTypeError, r"init\[1\] is a str"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mapped", [False, True])
def test_an_iteration_must_keep_structure_shapes_and_dtypes(init, body, error, text, mapped):
    run = lambda flag: gj.while_loop(lambda s: flag, body, init)
    with pytest.raises(error, match=text):
        gj.vmap(run)(np.array([True, False])) if mapped else run(True)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: gj.while_loop(1, lambda s: s, X), gj.ArgumentTypeError, "cond_fun must be a function, not int"),
        (lambda: gj.while_loop(lambda s: s, None, X), gj.ArgumentTypeError, "body_fun must be a function"),
        (lambda: gj.while_loop(lambda s: s > 1, lambda s: s, X), gj.ShapeError, r"shape \(3,\).*\.any\(\)"),
        (lambda: gj.while_loop(lambda s: "x", lambda s: s, X), gj.ArgumentTypeError, "the predicate is a str"),
        (lambda: gj.fori_loop(0.0, 2, lambda i, s: s, X), gj.DTypeError, "lower has dtype float64; give an integer"),
        (lambda: gj.fori_loop(0, np.array([1, 2]), lambda i, s: s, X), gj.ShapeError, r"upper has shape \(2,\)"),
        (lambda: gj.fori_loop(0, 2, None, X), gj.ArgumentTypeError, "body_fun must be a function"),
        (lambda: gj.vmap(lambda b: gj.fori_loop(0, b, lambda i, s: s, 0.0))(X), gj.DTypeError, "upper has dtype"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_a_linear_function_is_recorded_without_values():
    with pytest.raises(gj.ConcretizationError, match="without values"):
        gj.linear_transpose(lambda x: gj.while_loop(lambda s: s.sum() < 3, lambda s: 2 * s, x), X)
    ft = gj.linear_transpose(lambda x: gj.fori_loop(0, 3, lambda i, s: 2 * s, x), X)
    np.testing.assert_array_equal(ft(X)[0], 8 * X)
