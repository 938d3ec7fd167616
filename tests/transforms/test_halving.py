"""Out of memory in a chunk halves it and goes on where it stopped."""

import itertools

import numpy as np
import pytest

import gpujac as gj
from gpujac.ops.contract import Contract
from gpujac.transforms import halving
from tests.transforms import helpers as h

X = np.linspace(0.1, 1.0, 12)
V = np.sin(np.arange(156.0)).reshape(13, 12)
W = np.cos(np.arange(260.0)).reshape(20, 13)


def f(x):
    return np.tanh(W @ np.sin(V @ x))


@pytest.fixture
def allocator(monkeypatch):
    """An allocator that refuses products of more than `rows` rows, and says what it was asked for."""

    class Allocator:
        rows = 10**9
        countdown = -1  # refuse once, at this product

    plain, forward = Contract.transpose, Contract.evaluate

    def refuse(rows):
        Allocator.asked.append(rows)
        Allocator.countdown -= 1
        if rows > Allocator.rows or Allocator.countdown == 0:
            raise MemoryError(f"{rows} rows refused")

    def transpose(self, position, ct, operands, shape):
        refuse(ct.shape[0] if len(ct.shape) > 1 else 1)
        return plain(self, position, ct, operands, shape)

    def evaluate(self, be, *operands):
        refuse(max([x.shape[0] for x in operands if len(x.shape) == 2 and x.shape not in (V.shape, W.shape)] or [1]))
        return forward(self, be, *operands)

    monkeypatch.setattr(Contract, "transpose", transpose)
    Allocator.forward = lambda: monkeypatch.setattr(Contract, "evaluate", evaluate)
    Allocator.asked = []
    return Allocator


@pytest.mark.parametrize("assembly", ["auto", "stack", "preallocate"])
@pytest.mark.parametrize("chunk_size", [None, "auto", 20, 16, 7])
def test_the_rest_is_done_in_smaller_chunks(allocator, assembly, chunk_size):
    plans = []
    jacobian = lambda k, report=None: gj.jacrev(f, chunk_size=k, assembly=assembly, report=report)(X)
    allocator.rows = 5
    J = jacobian(chunk_size, plans.append)
    asked = list(allocator.asked)
    allocator.rows = 10**9
    assert plans.pop() == plans[-1]._replace(peak_bytes=plans[-1].row_bytes * (plans[-1].chunk_size or 20))
    last = plans[-1].chunk_size
    np.testing.assert_array_equal(J, jacobian(last))  # bit for bit
    h.assert_owned(J, X)
    assert len(plans) > 1
    sizes = [p.chunk_size or 20 for p in plans]
    assert all(b == a // 2 for a, b in itertools.pairwise(sizes))
    assert asked[: len(sizes)] == sizes  # each size was tried once, at the start
    assert sum(asked[len(sizes) - 1 :]) == 20  # and no row was done twice afterwards
    assert plans[-1].chunks == len(asked) - len(sizes) + 1


@pytest.mark.parametrize("assembly", ["auto", "stack", "preallocate"])
@pytest.mark.parametrize("at", range(1, 6))
def test_rows_that_are_done_are_kept(allocator, assembly, at):
    """The chunk that fails is not the first; those before it are not done again."""
    expected = gj.jacrev(f, chunk_size=4, assembly=assembly)(X)
    allocator.asked.clear()
    allocator.countdown = at
    J = gj.jacrev(f, chunk_size=4, assembly=assembly)(X)
    assert allocator.asked[:at] == [4] * at
    assert sum(allocator.asked) == 20 + 4
    assert set(allocator.asked[at:]) == {2}
    np.testing.assert_array_equal(J[: 4 * (at - 1)], expected[: 4 * (at - 1)])
    np.testing.assert_array_equal(J[4 * (at - 1) :], gj.jacrev(f, chunk_size=2)(X)[4 * (at - 1) :])


def test_forward_mode(allocator):
    expected = gj.jacfwd(f)(X)
    allocator.forward()
    allocator.asked.clear()
    plans = []
    allocator.rows = 3
    J = gj.jacfwd(f, report=plans.append)(X)
    assert plans[-1].chunk_size == 3
    np.testing.assert_allclose(J, expected, rtol=1e-13)


def test_several_outputs_and_inputs(allocator):
    def g(p, x):
        y = f(x)
        return {"a": y * p["s"], "b": (y[:5] @ V[:5], p["s"] ** 2, x[0])}

    p = {"s": np.linspace(1.0, 2.0, 20), "unused": np.ones(3)}
    expected = gj.jacrev(g, (0, 1))(p, X)
    for assembly in ("stack", "preallocate"):
        allocator.rows = 3
        found = gj.jacrev(g, (0, 1), assembly=assembly)(p, X)
        for a, b in zip(h.leaves(found), h.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-13)


@pytest.mark.parametrize("rows", [1, 3])
def test_both_levels_of_a_hessian(allocator, rows):
    expected = gj.hessian(f)(X)
    allocator.rows = rows
    np.testing.assert_allclose(gj.hessian(f)(X), expected, atol=1e-12)
    np.testing.assert_allclose(gj.hessian(f, chunk_size=4, inner_chunk_size=4)(X), expected, atol=1e-12)


def test_a_jacobian_under_vmap(allocator):
    points = np.stack([X, X + 0.1, X * 2])
    expected = gj.vmap(gj.jacrev(f))(points)
    allocator.rows = 3 * 4  # lanes times rows
    np.testing.assert_allclose(gj.vmap(gj.jacrev(f))(points), expected, atol=1e-13)


def test_the_lanes_of_vmap_are_halved_too(allocator):
    points = np.stack([X + 0.01 * k for k in range(10)])
    calls = []

    def g(x):
        calls.append(1)
        return V @ np.sin(x)

    expected = gj.vmap(g)(points)
    allocator.forward()
    allocator.rows = 2
    calls.clear()
    np.testing.assert_allclose(gj.vmap(g, chunk_size=8)(points), expected, atol=1e-13)
    assert len(calls) == 2 + 5  # of 8 and of 4 lanes, then five times of 2


def test_one_row_that_does_not_fit_says_what_was_tried(allocator):
    allocator.rows = 0
    with pytest.raises(MemoryError, match="1 rows refused") as caught:
        gj.jacrev(f)(X)
    (note,) = caught.value.__notes__
    assert note.startswith("gpujac: out of memory in the chunk that begins at 0 of 20; chunks of 20 down to 1")
    assert "the whole result 1.92 kB; gpujac.checkpoint" in note
    with pytest.raises(MemoryError) as caught:
        gj.jacrev(f, chunk_size=1)(X)
    assert "were tried" not in caught.value.__notes__[0]
    allocator.rows = 10**9
    assert gj.jacrev(f)(X).shape == (20, 12)


def test_out_of_memory_in_the_function_itself_names_the_ways_out():
    def hungry(x):
        raise MemoryError("no")

    for transform in (gj.grad, gj.jacrev, gj.vmap, gj.hessian):
        with pytest.raises(MemoryError) as caught:
            transform(hungry)(X)
        assert "gpujac.checkpoint" in caught.value.__notes__[0]
        assert "chunk_size" in caught.value.__notes__[0]
        assert len(caught.value.__notes__) == 1


def test_out_of_memory_in_the_sweep_of_a_gradient(allocator):
    allocator.rows = 0
    with pytest.raises(MemoryError) as caught:
        gj.grad(lambda x: f(x).sum())(X)
    assert caught.value.__notes__ == [
        "gpujac: out of memory in the sweep of grad; gpujac.checkpoint makes the function keep less"
    ]


def test_the_progress_bar_counts_the_new_chunks(allocator, capsys):
    allocator.rows = 5
    gj.jacrev(f, progress=True)(X)
    assert "4/4" in capsys.readouterr().err


def test_numbers_of_bytes_are_readable():
    assert [halving.readable(n) for n in (0, 999, 1920, 2_500_000, 7 * 10**12)] == [
        "0 B", "999 B", "1.92 kB", "2.5 MB", "7 TB",
    ]  # fmt: skip


def test_a_chunk_of_all_lanes_is_halved_too():
    seen = []

    def f(x):
        seen.append(x)
        if len(seen) < 3:
            raise MemoryError
        return x * 2

    np.testing.assert_array_equal(gj.vmap(f, chunk_size=100)(np.arange(13.0)), 2 * np.arange(13.0))
    seen.clear()
    with pytest.raises(MemoryError):  # nobody asked for chunks
        gj.vmap(f)(np.arange(13.0))


def test_lanes_that_drew_numbers_without_a_tape_are_not_run_again():
    seen = []
    rng = gj.random.wrap(np.random.default_rng(0))

    def f(x):
        seen.append(rng.normal())
        raise MemoryError

    with pytest.raises(MemoryError):
        gj.vmap(f, randomness="different", chunk_size=100)(np.arange(4.0))
    assert len(seen) == 1


def test_a_single_row_says_no_size_that_it_does_not_know():
    """Its sweep lets go of the program as it passes, so that its buffers can no longer be counted."""
    f = gj.custom_vjp(lambda x: x.sum()[None] * 1.0)

    def bwd(residuals, ct):
        raise MemoryError("no")

    f.defvjp(lambda x: (x.sum()[None] * 1.0, None), bwd)
    with pytest.raises(MemoryError) as caught:
        gj.jacrev(f)(X)
    assert "begins at 0 of 1; the whole result 96 B; gpujac.checkpoint" in caught.value.__notes__[-1]
    with pytest.raises(MemoryError) as caught:
        gj.jacrev(f, memory="1GB")(X)
    assert "a row needs about" in caught.value.__notes__[-1]
