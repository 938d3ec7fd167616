"""NVTX ranges of the transforms: names, nesting and balance, also when user code raises."""

import sys
from functools import partial

import numpy as np
import pytest

import gpujac as gj
from gpujac.ranges import CHUNK, REPLAY, TRACE, TRANSFORM, record

X = np.arange(1.0, 6.0)


def events_of(call):
    with record() as events:
        call()
    return events


def outline(events):
    return [(e.depth, e.name) for e in events]


def balanced(events):
    """Every range was closed, inside the one around it."""
    open_now = []
    for e in events:
        assert e.end_ns is not None
        assert e.end_ns >= e.start_ns
        del open_now[e.depth :]
        assert len(open_now) == e.depth
        if open_now:
            assert open_now[-1].start_ns <= e.start_ns
            assert e.end_ns <= open_now[-1].end_ns
        open_now.append(e)
    return True


CHUNKED = [(1, "chunk"), (2, "basis"), (2, "sweep"), (2, "assemble")]


@pytest.mark.parametrize("name", ["jacrev", "jacfwd", "jacobian"])
@pytest.mark.parametrize("chunk_size", [1, 2, None])
def test_a_jacobian_shows_its_trace_and_its_chunks(name, chunk_size):
    events = events_of(lambda: getattr(gj, name)(np.cumsum, chunk_size=chunk_size)(X))
    chunks = {1: 5, 2: 3, None: 1}[chunk_size]
    assert outline(events) == [(0, name), (1, "linearize"), *CHUNKED * chunks]
    assert balanced(events)
    assert [e.payload for e in events if e.name == "chunk"] == list(range(chunks))
    assert {e.name: e.category for e in events} == {
        name: TRANSFORM, "linearize": TRACE, "chunk": CHUNK, "basis": CHUNK, "sweep": REPLAY, "assemble": CHUNK,
    }  # fmt: skip


def test_sweeps_tell_their_rows():
    events = events_of(lambda: gj.jacrev(np.cumsum, chunk_size=2)(X))
    assert [e.payload for e in events if e.name == "sweep"] == [2, 2, 1]


def test_vmap_tells_its_lanes():
    events = events_of(lambda: gj.vmap(np.sin)(X))
    assert [(e.name, e.category, e.payload) for e in events] == [("vmap", TRANSFORM, 5)]
    events = events_of(lambda: gj.vmap(np.sin, chunk_size=2)(X))
    assert outline(events) == [(0, "vmap"), (1, "chunk"), (1, "chunk"), (1, "chunk")]
    assert [e.payload for e in events] == [5, 0, 1, 2]


@pytest.mark.parametrize("name", ["grad", "grad_and_value"])
def test_a_gradient_is_a_trace_and_a_sweep(name):
    events = events_of(lambda: getattr(gj, name)(lambda x: (x * x).sum())(X))
    assert outline(events) == [(0, name), (1, "linearize"), (1, "sweep")]


def test_vjp_linearize_jvp_and_their_later_calls():
    y, pullback = None, None

    def forward():
        nonlocal y, pullback
        y, pullback = gj.vjp(np.sin, X)

    assert outline(events_of(forward)) == [(0, "vjp"), (1, "linearize")]
    assert outline(events_of(lambda: pullback(X))) == [(0, "sweep")]
    events = events_of(lambda: gj.linearize(np.sin, X)[1](X))
    assert outline(events) == [(0, "linearize"), (1, "linearize"), (0, "sweep")]
    assert outline(events_of(lambda: gj.jvp(np.sin, (X,), (X,)))) == [(0, "jvp")]
    events = events_of(lambda: gj.linear_transpose(lambda x: 2.0 * x, X)(X))
    assert outline(events) == [(0, "linear_transpose"), (0, "sweep")]


def test_nested_transforms_nest():
    events = events_of(lambda: gj.vmap(gj.jacrev(lambda x: np.cumsum(np.sin(x))))(np.stack([X, X])))
    assert outline(events) == [(0, "vmap"), (1, "jacrev"), (2, "linearize")] + [(d + 1, n) for d, n in CHUNKED]
    events = events_of(lambda: gj.hessian(lambda x: (np.cumsum(x) ** 2).sum(), chunk_size=3)(X))
    assert [n for d, n in outline(events) if d == 0] == ["hessian"]
    assert (2, "hessian") in outline(events)
    assert balanced(events)


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.jacobian, gj.hessian, gj.grad, gj.vmap])
@pytest.mark.parametrize("place", ["at once", "in an inner transform", "wrong output"])
def test_ranges_are_closed_when_user_code_raises(transform, place):
    def f(x):
        if place == "at once":
            raise KeyError("user")
        if place == "wrong output":
            return "text"

        def inner(z):
            raise KeyError("user")

        return gj.vmap(inner)(np.ones((2, 2)))

    with record() as events:
        with pytest.raises((KeyError, gj.GpujacError)):
            transform(f)(X)
        gj.vmap(np.sin)(X)
    assert balanced(events)
    assert events[-1].depth == 0  # nothing was left open


def test_ranges_are_closed_when_a_report_or_a_bad_option_raises():
    def report(plan):
        raise KeyError("user")

    with record() as events:
        with pytest.raises(KeyError):
            gj.jacrev(np.cumsum, report=report)(X)
        with pytest.raises(gj.ArgnumsRangeError):
            gj.jacrev(np.cumsum, 3)(X)
        with pytest.raises(gj.ShapeError):
            gj.vjp(np.sin, X)[1](np.ones(2))
    assert balanced(events)


def test_nothing_is_recorded_when_ranges_are_off():
    with gj.settings.override(nvtx="off"):
        assert events_of(lambda: gj.jacrev(np.cumsum)(X)) == []


# ---------------------------------------------------------------- operations


def calls_into_ranges(call):
    """How often code of the two files about ranges runs."""
    count = 0

    def watch(frame, event, _):
        nonlocal count
        if event == "call" and frame.f_code.co_filename.endswith(("ranges.py",)):
            count += 1

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


def chain_of(length):
    def f(x):
        for _ in range(length):
            x = np.sin(x) * 2.0
        return x

    return f


TRANSFORMED = {
    "jacrev": lambda f: gj.jacrev(f)(X),
    "jacfwd": lambda f: gj.jacfwd(f, chunk_size=2)(X),
    "jvp": lambda f: gj.jvp(f, (X,), (X,)),
    "vmap": lambda f: gj.vmap(f)(X),
    "vjp": lambda f: gj.vjp(f, X)[1](X),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_an_operation_costs_no_range_call_at_all(name):
    """As many calls for 100 operations as for 2: with no tool, and while ranges are recorded."""
    short, long = (partial(TRANSFORMED[name], chain_of(n)) for n in (1, 50))
    assert 0 < calls_into_ranges(short) == calls_into_ranges(long)
    with record():
        assert 0 < calls_into_ranges(short) == calls_into_ranges(long)


@pytest.mark.parametrize("name", ["jacrev", "jacfwd", "jvp", "vmap", "vjp"])
def test_operations_have_ranges_on_request(name):
    with gj.settings.override(nvtx="ops"):
        events = events_of(lambda: TRANSFORMED[name](chain_of(2)))
    ops = [e.name for e in events if e.name in ("sin", "multiply")]
    assert ops[:4] == ["sin", "multiply"] * 2
    assert {e.category for e in events if e.name == "sin"} == {TRACE}
    assert balanced(events)


def test_operations_of_nested_transforms_nest():
    with gj.settings.override(nvtx="ops"):
        events = events_of(lambda: gj.vmap(gj.grad(lambda x: np.sum(np.sin(x))))(np.ones((2, 3))))
    sines = [e.depth for e in events if e.name == "sin"]
    assert sines == [3, 4]  # of the gradient's trace, and of the vmap that serves it
    assert balanced(events)


def test_ranges_of_operations_are_closed_when_one_raises():
    with gj.settings.override(nvtx="ops"), record() as events:
        with pytest.raises(np.linalg.LinAlgError):
            gj.jacrev(lambda x: np.linalg.inv(x * np.zeros((5, 5))))(X)
        gj.jacrev(np.sin)(X)
    assert balanced(events)
    assert [e.depth for e in events if e.name == "jacrev"] == [0, 0]
    assert [e.depth for e in events if e.name == "inv"] == [2]


def test_results_do_not_depend_on_the_ranges():
    def f(x):
        return np.stack([np.sum(x) * x[0], np.max(x), np.where(x > 2.0, x, x**2)[1]])

    plain = gj.hessian(f)(X)
    with gj.settings.override(nvtx="ops"):
        np.testing.assert_array_equal(gj.hessian(f)(X), plain)
