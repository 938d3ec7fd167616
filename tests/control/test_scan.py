"""scan and control.map: states, stacked results, batches, nothing to run over, linear cost."""

import tracemalloc

import numpy as np
import optree
import pytest

import gpujac as gj
from gpujac.transforms.vjp import Linearized

XS = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 4.0]])


def running(s, x):
    return s + x, {"before": s, "product": (s * x).sum()}


def test_states_and_results():
    state, ys = gj.scan(running, np.zeros(2), XS)
    np.testing.assert_array_equal(state, XS.sum(0))
    sums = np.cumsum(XS, 0)
    np.testing.assert_array_equal(ys["before"], np.concatenate([np.zeros((1, 2)), sums[:-1]]))
    np.testing.assert_array_equal(ys["product"], (ys["before"] * XS).sum(1))


def test_reverse_runs_from_the_end_and_keeps_the_order():
    state, ys = gj.scan(running, np.zeros(2), XS, reverse=True)
    flipped_state, flipped = gj.scan(running, np.zeros(2), XS[::-1])
    np.testing.assert_array_equal(state, flipped_state)
    np.testing.assert_array_equal(ys["before"], flipped["before"][::-1])
    np.testing.assert_array_equal(ys["product"], flipped["product"][::-1])


def test_without_arrays_the_length_tells():
    state, ys = gj.scan(lambda s, x: (2 * s, (s, x)), 1.0, None, length=4)
    assert float(state) == 16.0
    np.testing.assert_array_equal(ys[0], [1, 2, 4, 8])
    assert ys[1] is None
    np.testing.assert_array_equal(gj.scan(lambda s, x: (s, s), 1.0, length=2)[1], [1.0, 1.0])
    assert gj.scan(lambda s, x: (s + 1, None), 0, length=np.int64(3)) == (3, None)


def test_trees_of_sequences():
    xs = {"a": XS, "b": (np.arange(3),)}
    state, ys = gj.scan(lambda s, x: (s + x["b"][0], x["a"] * x["b"][0]), 0, xs)
    assert int(state) == 3
    np.testing.assert_array_equal(ys, XS * np.arange(3.0)[:, None])


def test_nothing_to_run_over_gives_the_first_state_and_results_of_no_entries():
    calls = []

    def step(s, x):
        calls.append(1)
        return s + x.sum(), {"y": x[None] / s, "n": 3, "none": None}

    init = np.array(2.0, np.float32)
    state, ys = gj.scan(step, init, np.zeros((0, 4), np.float32))
    assert float(state) == 2.0
    assert (ys["y"].shape, ys["y"].dtype, ys["n"].shape, ys["none"]) == ((0, 1, 4), np.float32, (0,), None)
    assert len(calls) == 1
    assert gj.scan(lambda s, x: (s, s), np.ones(2), length=0)[1].shape == (0, 2)
    assert gj.control.map(lambda x: x @ x, np.zeros((0, 3))).shape == (0,)
    assert gj.control.map(lambda x: x @ x, np.zeros((0, 3)), batch_size=2).shape == (0,)
    f = lambda x: gj.scan(lambda s, v: (s * x, s), x, np.zeros(0))
    assert float(gj.grad(lambda x: f(x)[0])(3.0)) == 1.0
    assert gj.jacrev(lambda x: f(x)[1])(3.0).shape == (0,)
    assert gj.vmap(lambda x: f(x)[1])(np.ones(5)).shape == (5, 0)
    assert gj.vmap(lambda x: f(x)[1].sum())(np.ones(5)).shape == (5,)


def test_a_failure_over_nothing_says_why_f_ran():
    def step(s, x):
        raise ValueError("no zeros please")

    with pytest.raises(ValueError, match="no zeros") as caught:
        gj.scan(step, 0.0, np.zeros(0))
    assert "scan over nothing runs f once, on zeros" in caught.value.__notes__[0]


def test_in_single_precision_and_complex():
    state, ys = gj.scan(lambda s, x: (s * x, s), np.float32(2), XS[:, 0].astype(np.float32))
    assert (state.dtype, ys.dtype) == (np.float32, np.float32)
    state, ys = gj.scan(lambda s, x: (s * x, s), 1j, np.array([2 + 0j, 3 + 0j]))
    assert complex(state) == 6j
    np.testing.assert_array_equal(ys, [1j, 2j])


def test_lanes_of_state_and_sequence():
    f = lambda s, xs: gj.scan(lambda s, x: (s * 0.5 + x, s * x), s, xs)
    starts, many = np.array([1.0, -1.0]), np.stack([XS[:, 0], XS[:, 1]])
    for in_dims in ((0, 0), (0, None), (None, 0)):
        args = tuple(a if d == 0 else a[0] for a, d in zip((starts, many), in_dims))
        state, ys = gj.vmap(f, in_dims=in_dims)(*args)
        for lane in range(2):
            one = [a[lane] if d == 0 else a for a, d in zip(args, in_dims)]
            wanted = f(*one)
            np.testing.assert_array_equal(state[lane], wanted[0])
            np.testing.assert_array_equal(ys[lane], wanted[1])


def test_the_derivative_is_that_of_the_loop(rng):
    W = rng.standard_normal((3, 3)) / 2
    xs = rng.standard_normal((6, 3))

    def network(W, xs):
        return gj.scan(lambda s, x: ((s := np.tanh(W @ s + x)), s.sum()), np.ones(3), xs)

    def plain(W, xs):
        s, ys = np.ones(3), []
        for x in xs:
            s = np.tanh(W @ s + x)
            ys.append(s.sum())
        return s, np.stack(ys)

    for transform in (gj.jacrev, gj.jacfwd):
        found, wanted = (transform(f, argnums=(0, 1))(W, xs) for f in (network, plain))
        for i in range(2):
            for j in range(2):
                np.testing.assert_allclose(found[i][j], wanted[i][j], rtol=1e-12, atol=1e-13)
    H, wanted = (gj.hessian(lambda xs, f=f: (f(W, xs)[1] ** 2).sum())(xs[:2]) for f in (network, plain))
    np.testing.assert_allclose(H, wanted, rtol=1e-11, atol=1e-12)


def test_the_program_grows_linearly_with_the_steps():
    def entries(n):
        f = lambda xs: gj.scan(lambda s, x: (s * x, s + x), 1.0, xs)[1]
        return len(Linearized("vjp", f, (np.linspace(0.9, 1.1, n),), {}, None, False, check=True).program.entries)

    assert entries(400) - entries(300) == entries(200) - entries(100) <= 500


def test_the_gradient_holds_memory_linear_in_the_steps():
    def peak(n):
        xs = np.linspace(0.9, 1.1, n)
        f = lambda xs: gj.scan(lambda s, x: (s * x, s + x), 1.0, xs)[1].sum()
        gj.grad(f)(xs)
        tracemalloc.start()
        gj.grad(f)(xs)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(1600) < 2.5 * peak(800)


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 7])
def test_map_in_batches_of_any_size_is_the_loop(batch_size):
    f = lambda x: {"norm": x @ x, "twice": 2 * x}
    out = gj.control.map(f, XS, batch_size=batch_size)
    np.testing.assert_array_equal(out["norm"], (XS * XS).sum(1))
    np.testing.assert_array_equal(out["twice"], 2 * XS)
    J = gj.jacrev(lambda xs: gj.control.map(f, xs, batch_size=batch_size)["norm"])(XS)
    np.testing.assert_array_equal(J, np.eye(3)[:, :, None] * 2 * XS[:, None])


def test_map_one_by_one_lets_the_function_branch():
    f = lambda x: x * 2 if x > 1 else -x
    xs = np.array([0.5, 2.0, 3.0])
    np.testing.assert_array_equal(gj.control.map(f, xs), [-0.5, 4.0, 6.0])
    np.testing.assert_array_equal(gj.grad(lambda xs: gj.control.map(f, xs).sum())(xs), [-1.0, 2.0, 2.0])
    with pytest.raises(gj.ConcretizationError):
        gj.control.map(f, xs, batch_size=2)


def test_map_runs_the_function_once_per_batch():
    calls = []
    f = lambda x: (calls.append(1), x * 2)[1]
    gj.control.map(f, np.arange(10.0), batch_size=4)
    assert len(calls) == 3
    calls.clear()
    gj.control.map(f, np.arange(10.0))
    assert len(calls) == 10


def test_a_step_that_writes_into_its_slice_leaves_the_sequence_alone_while_traced():
    def step(s, x):
        x[0] = 0.0
        return s + x.sum(), x

    xs = XS.copy()
    state, ys = gj.vmap(lambda xs: gj.scan(step, 0.0, xs))(np.stack([xs, xs]))
    np.testing.assert_array_equal(state, [5.0, 5.0])
    np.testing.assert_array_equal(ys[0][:, 0], 0.0)
    np.testing.assert_array_equal(xs, XS)


WRITING = {
    "adds into the state": lambda s, x: (add_into(s, x), s),
    "gives a part of the state": lambda s, x: (add_into(s, x), s[:1]),
    "the state is a part of the result": lambda s, x: (lambda y: (y[0], y))(np.stack([s + x, x])),
    "keeps the slice": lambda s, x: (x, add_into(s, 1.0) * 1.0),
    "gives the slice": lambda s, x: (s * x, add_into(x, 1.0)),
    "gives both": lambda s, x: (x, {"x": x, "s": (s, s[::-1])}),
}


def add_into(a, b):
    a += b
    return a


@pytest.mark.parametrize("f", WRITING.values(), ids=WRITING)
def test_a_step_may_write_into_its_state_and_its_slice(f):
    def plain(s, xs):
        """Every step gets arrays of its own, and what it gives is copied at once."""
        rows = []
        for x in xs:
            s, y = f(np.array(s), np.array(x))
            rows.append(own(y))
        return np.array(s), optree.tree_map(lambda *row: np.stack(row), *rows)

    own = lambda y: optree.tree_map(np.array, y)
    xs, init = XS.copy(), np.array([0.5, -0.25])
    wanted = plain(init, XS)
    same = lambda found, index=...: optree.tree_map(
        lambda a, b: np.testing.assert_array_equal(a[index], b), found, wanted
    )
    found = gj.scan(f, init, xs)
    same(found)
    for y in optree.tree_leaves(found):
        assert not np.shares_memory(y, xs)
        assert not np.shares_memory(y, init)
    both = lambda s, xs: gj.scan(f, s, xs)
    for transform in (lambda s, xs: gj.vjp(both, s, xs)[0], lambda s, xs: gj.jvp(both, (s, xs), (s, xs))[0]):
        same(transform(init, xs))
    same(gj.vmap(both)(np.stack([init, init]), np.stack([xs, xs])), 1)
    np.testing.assert_array_equal(xs, XS)
    np.testing.assert_array_equal(init, [0.5, -0.25])


def test_a_function_that_writes_into_its_slice_leaves_what_is_mapped_alone():
    xs = XS.copy()
    for batch_size in (None, 2):
        np.testing.assert_array_equal(gj.control.map(lambda x: add_into(x, 1.0), xs, batch_size=batch_size), XS + 1.0)
        np.testing.assert_array_equal(xs, XS)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: gj.scan(running, np.zeros(2), {"a": XS, "b": XS[:2]}), gj.ShapeError,
         r"same size, found 3 in xs\['a'\], 2 in xs\['b'\]"),
        (lambda: gj.scan(running, np.zeros(2), XS, length=2), gj.ShapeError, "found 3 in xs, 2 in length"),
        (lambda: gj.scan(running, np.zeros(2)), gj.ArgumentError, "number of steps is unknown; give length="),
        (lambda: gj.scan(running, np.zeros(2), length=-1), gj.ArgumentError, "length=-1 must be at least 0"),
        (lambda: gj.scan(running, np.zeros(2), length=2.0), gj.ArgumentTypeError, "length=2.0 is a float"),
        (lambda: gj.scan(running, np.zeros(2), (XS, np.array(1.0))), gj.ShapeError, r"xs\[1\] has shape \(\)"),
        (lambda: gj.scan(running, np.zeros(2), [XS, "a"]), gj.ArgumentTypeError, r"xs\[1\] is a str"),
        (lambda: gj.scan(lambda s, x: s, 0.0, XS), gj.StructureError, r"must return a tuple \(carry, y\), not float"),
        (lambda: gj.scan(lambda s, x: (s, x, x), 0.0, XS), gj.StructureError, "not a tuple of 3"),
        (lambda: gj.scan(lambda s, x: (s + x, x), 0.0, XS), gj.ShapeError, r"carry had shape \(\) and now has \(2,\)"),
        (lambda: gj.scan(lambda s, x: (s + 1, XS[: s + 1]), 0, XS), gj.ShapeError,
         r"the result has shape \(1, 2\) in step 0 and \(2, 2\) in step 1"),
        (lambda: gj.scan(lambda s, x: (s + 1, (x,) * (s + 1)), 0, XS), gj.StructureError, "the result of step 1"),
        (lambda: gj.scan(lambda s, x: (s, "y"), 0, XS), gj.ArgumentTypeError, "the result of step 0 is a str"),
        (lambda: gj.scan(0, 0, XS), gj.ArgumentTypeError, "f must be a function"),
        (lambda: gj.control.map(np.sin, ()), gj.ArgumentError, "xs holds no array"),
        (lambda: gj.control.map(np.sin, 1.0), gj.ShapeError, r"xs has shape \(\)"),
        (lambda: gj.control.map(np.sin, XS, batch_size=0), gj.ArgumentError, "batch_size=0 must be at least 1"),
        (lambda: gj.control.map(np.sin, XS, batch_size=1.5), gj.ArgumentTypeError, "batch_size=1.5"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
