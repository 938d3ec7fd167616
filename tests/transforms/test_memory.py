"""Memory and work by counting: what is freed when, how often f runs, how many calls a sweep makes."""

import contextlib
import gc
import tracemalloc
import weakref

import numpy as np
import pytest

import gpujac as gj
from gpujac.transforms.linearize import LinearizeTrace

X = np.linspace(0.1, 1.0, 50)


@pytest.fixture
def no_collector():
    """Only reference counts free memory."""
    gc.disable()
    yield
    gc.enable()


def watched(kept, f=np.sin):
    """A function that leaves weak references to its intermediate values in `kept`."""

    def g(x):
        y = f(x) * x
        z = np.exp(y)
        kept.extend(weakref.ref(gj.value(v)) for v in (y, z))
        return (z * y)[1:] * z[:-1]

    return g


def alive(kept):
    return [r() is not None for r in kept]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("transform", [gj.vjp, gj.linearize])
def test_residuals_live_until_the_pullback_is_dropped(transform):
    kept = []
    y, linear = transform(watched(kept), X)
    assert any(alive(kept))
    linear(y if transform is gj.vjp else X)
    assert any(alive(kept))
    del linear
    assert not any(alive(kept))


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "call",
    [lambda f: gj.jacrev(f, chunk_size=7)(X), lambda f: gj.jacfwd(f, chunk_size=1)(X), lambda f: gj.jvp(f, (X,), (X,)),
     lambda f: gj.grad(lambda x: f(x).sum())(X), lambda f: gj.hessian(lambda x: f(x).sum())(X[:5]),
     lambda f: gj.jacrev(lambda x: f(x)[x[1:] > 0.5])(X)],
)  # fmt: skip
def test_results_pin_no_intermediate_values(call):
    kept = []
    result = call(watched(kept))
    assert not any(alive(kept))
    assert result is not None


@pytest.mark.usefixtures("no_collector")
def test_residuals_are_freed_when_f_raises():
    kept = []

    def f(x):
        watched(kept)(x)
        raise KeyError("user")

    for transform in (gj.grad, gj.jacrev, gj.jacfwd):
        with contextlib.suppress(KeyError):
            transform(f)(X)
        assert not any(alive(kept))


CALLS = {
    "vjp": lambda f: gj.vjp(f, X)[1](np.ones(49)),
    "jvp": lambda f: gj.jvp(f, (X,), (X,)),
    "linearize": lambda f: gj.linearize(f, X)[1](X),
    "jacrev": lambda f: gj.jacrev(f, chunk_size=9)(X),
    "jacfwd": lambda f: gj.jacfwd(f)(X),
    "grad": lambda f: gj.grad(lambda x: f(x).sum())(X),
    "hessian": lambda f: gj.hessian(lambda x: f(x).sum())(X[:6]),
    "vmap": lambda f: gj.vmap(written)(np.stack([X, X])),
    "vmap of grad": lambda f: gj.vmap(gj.grad(lambda x: written(x).sum()))(np.stack([X, X])),
    "linear_transpose": lambda f: gj.linear_transpose(lambda x: (x[1:] * 2.0)[::-1], X)(np.ones(49)),
    "writes": lambda f: gj.grad(lambda x: written(x).sum())(X),
}


def written(x):
    y = np.zeros_like(x)
    view = y[1:]
    view[...] = x[:-1] * x[1:]
    y += x
    return y.reshape(5, 10).T


@pytest.mark.parametrize("name", list(CALLS))
def test_no_transform_makes_a_reference_cycle(name):
    f = watched([])
    CALLS[name](f)  # caches are filled
    gc.disable()
    gc.freeze()  # what other tests left behind is not looked at, which would take seconds
    try:
        CALLS[name](f)
        assert gc.collect() == 0
    finally:
        gc.unfreeze()
        gc.enable()


# ---------------------------------------------------------------- how often f runs


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 13, "auto"])
def test_f_runs_exactly_once_whatever_the_chunk_size(chunk_size):
    calls = []
    f = lambda x: (calls.append(1), np.cumsum(np.sin(x)) * x[0])[1]
    for transform in (gj.jacrev, gj.jacfwd, gj.jacobian, gj.hessian):
        calls.clear()
        transform(f, chunk_size=chunk_size)(X[:14])
        assert calls == [1]
    calls.clear()
    gj.hessian(f, chunk_size=chunk_size, inner_chunk_size=chunk_size)(X[:6])
    assert calls == [1]
    calls.clear()
    gj.vmap(gj.jacfwd(f, chunk_size=chunk_size))(np.stack([X[:6]] * 3))
    assert calls == [1]


def test_a_pullback_does_not_run_f_again():
    calls = []
    _, pullback = gj.vjp(lambda x: (calls.append(1), np.sin(x))[1], X)
    for _ in range(3):
        pullback(X)
    gj.vmap(pullback)(np.eye(50))
    assert calls == [1]


# ---------------------------------------------------------------- counts of operations


class Counted(np.ndarray):
    """An array that counts NumPy's calls on it and on what is computed from it."""

    calls = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        Counted.calls += 1
        plain = [x.view(np.ndarray) if isinstance(x, Counted) else x for x in inputs]
        if out is not None:
            kwargs["out"] = tuple(x.view(np.ndarray) if isinstance(x, Counted) else x for x in out)
        result = getattr(ufunc, method)(*plain, **kwargs)
        return result.view(Counted) if isinstance(result, np.ndarray) else result

    def __array_function__(self, function, types, args, kwargs):
        Counted.calls += 1
        return super().__array_function__(function, types, args, kwargs)


def counted(x):
    Counted.calls = 0
    return x.view(Counted)


def calls_of(call):
    Counted.calls = 0
    call()
    return Counted.calls


def chain(x):
    for _ in range(10):
        x = np.sin(x) * 1.0001
    return x


def test_counting_counts():
    x = counted(X.copy())
    assert calls_of(lambda: np.sin(x) * x + x.sum()) == 4


def test_a_pull_through_an_elementwise_chain_is_one_multiplication_per_entry():
    _, pullback = gj.vjp(chain, X)
    pullback(X)  # computes the coefficients
    assert 1 <= calls_of(lambda: pullback(counted(X.copy()))) <= 21


def test_a_push_through_an_elementwise_chain_is_one_multiplication_per_entry():
    _, lin = gj.linearize(chain, X)
    lin(X)
    assert 1 <= calls_of(lambda: lin(counted(X.copy()))) <= 21


def test_a_sweep_makes_as_many_calls_for_many_rows_as_for_one():
    W = np.linspace(-1, 1, 2500).reshape(50, 50)
    _, pullback = gj.vjp(lambda x: np.cumsum(np.tanh(W @ np.sin(x)) * x), X)
    one = calls_of(lambda: pullback(counted(X.copy())))
    batched = gj.vmap(pullback)
    few = calls_of(lambda: batched(counted(np.ones((2, 50)))))
    many = calls_of(lambda: batched(counted(np.ones((500, 50)))))
    assert few == many
    assert few <= one + 6  # a few views around the edges


@pytest.fixture
def entries(monkeypatch):
    """Counts what is written into linear programs."""
    count = [0]
    for name in ("combine", "apply", "gather", "partial", "add"):
        original = getattr(LinearizeTrace, name)

        def counting(self, *args, original=original):
            count[0] += 1
            return original(self, *args)

        monkeypatch.setattr(LinearizeTrace, name, counting)
    return count


def test_tracing_writes_one_entry_per_operation_whatever_the_chunk_size(entries):
    seen = []
    for chunk_size in (None, 1, 3, "auto"):
        for transform in (gj.jacrev, gj.jacfwd):
            entries[0] = 0
            transform(chain, chunk_size=chunk_size)(X)
            seen.append(entries[0])
    assert seen == [20] * 8


def test_broadcasting_and_constants_cost_no_entries_on_the_primal(entries):
    gj.grad(lambda x: (x * 2.0 + np.ones(50) - np.arange(50.0)).sum())(X)
    assert entries[0] == 4  # multiply, add, subtract, sum


def test_what_does_not_depend_on_the_input_is_not_recorded(entries):
    gj.grad(lambda x: (np.sin(np.ones(50)) * np.cos(np.full(50, 2.0))).sum() * x.sum())(X)
    assert entries[0] == 2


# ---------------------------------------------------------------- bytes


def peak_bytes(call):
    """The most bytes alive during the call over those before it, result included."""
    call()  # fills caches; the first transform of a process also frees one block of 32 MB
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = call()
        return tracemalloc.get_traced_memory()[1] - before, result
    finally:
        tracemalloc.stop()


W800 = np.linspace(-1.0, 1.0, 800 * 800, dtype=np.float32).reshape(800, 800) / 30


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd], ids=["jacrev", "jacfwd"])
@pytest.mark.parametrize(("assembly", "most"), [("preallocate", 1.15), ("stack", 2.15)])
def test_the_peak_of_a_chunked_jacobian(transform, assembly, most):
    f = lambda x: np.tanh(W800 @ x) * x
    x = np.ones(800, np.float32)
    peak, J = peak_bytes(lambda: transform(f, chunk_size=10, assembly=assembly)(x))
    assert J.nbytes == 800 * 800 * 4
    assert peak <= most * J.nbytes


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd], ids=["jacrev", "jacfwd"])
def test_a_pointwise_jacobian_is_one_placement(transform):
    peak, J = peak_bytes(lambda: transform(lambda x: np.sin(x) * x + np.exp(x))(np.ones(1000)))
    assert peak <= 1.15 * J.nbytes


def test_the_memory_cap_bounds_the_buffers():
    f = lambda x: np.cumsum(np.sin(np.cumsum(x)))
    x = np.ones(600)
    J_bytes = 600 * 600 * 8
    cap = 200_000
    peak, _ = peak_bytes(lambda: gj.jacrev(f, memory=cap, chunk_size=None)(x))
    assert peak <= 1.02 * J_bytes + 2 * cap


@pytest.mark.parametrize("sweep", ["pull", "push"])
def test_a_sweep_frees_each_tangent_after_its_last_reader(sweep):
    def f(x):
        y = x
        for i in range(30):
            y = np.sin(y) + x if i % 3 else np.cumsum(y)
        return y

    x = np.linspace(0.0, 1.0, 20_000)
    linear = gj.vjp(f, x)[1] if sweep == "pull" else gj.linearize(f, x)[1]
    peak, _ = peak_bytes(lambda: linear(x))
    assert peak <= 6 * x.nbytes
