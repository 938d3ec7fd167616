"""What is kept until the sweep, and what is freed by it: counted in bytes and in evaluations."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

import gpujac as gj
from gpujac.control import checkpoint_name, names
from gpujac.ops import elementwise as ew
from gpujac.ops.contract import Contract

N, LAYERS = 1000, 20
X = np.linspace(0.1, 1.0, N)
W = np.sin(np.arange(64.0)).reshape(8, 8) / 4


@pytest.fixture
def no_collector():
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def counts(monkeypatch):
    """How often tanh and contractions have been evaluated."""
    found = {"tanh": 0, "matmul": 0}
    plain, evaluate = ew.tanh.host, Contract.evaluate

    def tanh(x):
        found["tanh"] += 1
        return plain(x)

    def product(self, be, *operands):
        found["matmul"] += 1
        return evaluate(self, be, *operands)

    object.__setattr__(ew.tanh, "host", tanh)
    monkeypatch.setattr(Contract, "evaluate", product)
    yield found
    object.__setattr__(ew.tanh, "host", plain)


def chain(wrap, per_block):
    """LAYERS steps of x -> tanh(x) * 1.1 in blocks of `per_block`, each through `wrap`."""

    def block(x):
        for _ in range(per_block):
            x = np.tanh(x) * 1.1
        return x

    def f(x):
        again = wrap(block)
        for _ in range(LAYERS // per_block):
            x = again(x)
        return x.sum()

    return f


def test_a_checkpointed_chain_keeps_one_array_for_each_block():
    plain = gj.residuals(chain(lambda f: f, 5))(X)
    ours = gj.residuals(chain(gj.checkpoint, 5))(X)
    assert plain.made_bytes == LAYERS * X.nbytes
    assert ours.made_bytes == (LAYERS // 5 - 1) * X.nbytes  # the first block reads the argument
    assert ours.total_bytes == LAYERS // 5 * X.nbytes
    np.testing.assert_array_equal(
        gj.grad(chain(gj.checkpoint, 5))(X), gj.grad(chain(lambda f: f, 5))(X)
    )


@pytest.mark.usefixtures("no_collector")
def test_the_peak_of_a_checkpointed_gradient_is_that_of_a_block():
    x = np.linspace(0.1, 1.0, 100_000)

    def peak(f):
        gj.grad(f)(x)
        tracemalloc.start()
        gj.grad(f)(x)
        found = tracemalloc.get_traced_memory()[1] / x.nbytes
        tracemalloc.stop()
        return found

    assert peak(chain(lambda f: f, 5)) > LAYERS
    assert peak(chain(gj.checkpoint, 5)) < LAYERS // 5 + 5 + 5


def test_each_sweep_does_the_operations_once_more(counts):
    f = lambda x: np.tanh(W @ np.tanh(W @ x))
    ours = gj.checkpoint(f)
    gj.grad(lambda x: ours(x).sum())(X[:8])
    assert counts == {"tanh": 4, "matmul": 4 + 2}  # forward, again, and the two transposed products
    counts.update(tanh=0, matmul=0)
    gj.jacrev(ours, chunk_size=4)(X[:8])
    assert counts["tanh"] == 2 + 2 * 2  # forward, and again for each of two chunks
    counts.update(tanh=0, matmul=0)
    gj.jvp(ours, (X[:8],), (X[:8],))
    assert counts == {"tanh": 2, "matmul": 4}


@pytest.mark.parametrize("wrap", [lambda f: f, gj.vmap], ids=["plain", "vmap"])
def test_matmuls_that_are_kept_are_not_done_again(counts, wrap):
    f = lambda x: np.tanh(W @ np.tanh(W @ x))
    x = X[:8] if wrap is not gj.vmap else X[:24].reshape(3, 8)
    for policy, products in (("matmuls", 2), ("nothing", 4), ("everything", 2)):
        counts.update(tanh=0, matmul=0)
        gj.grad(lambda x, policy=policy: wrap(gj.checkpoint(f, policy=policy))(x).sum())(x)
        assert counts["matmul"] == products + 2, policy
    counts.update(tanh=0, matmul=0)
    gj.grad(lambda x: gj.checkpoint(f, policy=lambda operation, name: operation == "tanh")(x).sum())(x[..., :8].T)
    assert counts["tanh"] == 2


def test_names_keep_what_they_name():
    def f(x):
        y = checkpoint_name(np.tanh(x) * 2, "y")
        return np.sin(y) * checkpoint_name(np.cos(y), "z")

    kept = {}
    for wanted in ((), ("y",), ("y", "z")):
        policy = names(*wanted)
        kept[wanted] = gj.residuals(lambda x, p=policy: gj.checkpoint(f, policy=p)(x).sum())(X)
    assert [r.made_bytes // X.nbytes for r in kept.values()] == [0, 1, 2]


def test_a_derivative_of_the_sweep_keeps_no_more():
    inner = gj.grad(chain(gj.checkpoint, 10))
    plain = gj.grad(chain(lambda f: f, 10))
    ours, theirs = (gj.residuals(lambda x, g=g: g(x).sum())(X) for g in (inner, plain))
    assert ours.made_bytes <= 4 * X.nbytes < LAYERS * X.nbytes <= theirs.made_bytes


def test_the_report_names_arrays_lines_and_arguments():
    def f(x, w):
        y = np.sin(x)  # line of sin
        return (y * x @ w).sum()

    x, w = np.zeros(500), np.zeros((500, 4))
    found = gj.residuals(f, (0, 1))(x, w)
    by_shape = {(r.shape, r.argument): r for r in found}
    assert by_shape[(500,), "args[0]"].op == "sin"
    assert "line of sin" in by_shape[(500,), "args[0]"].line.text
    assert by_shape[(500, 4), "args[1]"].bytes == w.nbytes
    assert found.total_bytes == sum(r.bytes for r in found)
    assert found.made_bytes == 2 * x.nbytes  # y, and y * x
    text = str(found).splitlines()
    assert text[0].split() == ["bytes", "shape", "dtype", "kept", "by", "line"]
    assert len(text) == len(found) + 2
    assert "16,000  (500, 4)  float64  contract (args[1])" in str(found)
    assert text[-1] == f"{found.total_bytes:,} bytes in 4 arrays, 8,000 without the arguments"


def test_a_view_counts_with_the_memory_that_it_keeps():
    def f(x):
        y = np.exp(x)
        return np.sin(y[:10]).sum()

    kept = {r.shape: r for r in gj.residuals(f)(X)}
    assert kept[(N,)].bytes == X.nbytes  # exp
    assert (10,) not in kept  # a view of it


def test_what_no_slope_reads_is_not_kept():
    one = {"tanh": np.tanh, "exp": np.exp, "sqrt": np.sqrt, "sin": np.sin, "square": np.square, "log": np.log}
    for name, g in one.items():
        found = gj.residuals(lambda x, g=g: g(x * 2.0).sum())(X)
        assert found.total_bytes == X.nbytes, name


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "transform", [gj.grad, gj.value_and_grad, lambda f: gj.jacrev(f), lambda f: gj.jacrev(lambda x: f(x)[None])]
)
def test_a_sweep_that_is_the_last_frees_entries_as_it_passes(transform):
    """The last factor is freed before the first is read."""
    kept, seen = [], []

    @gj.custom_vjp
    def watch(x):
        return x

    watch.defvjp(lambda x: (x, None), lambda _, ct: (seen.append([r() is None for r in kept]), (ct,))[1])

    def f(x):
        a = x * 2.0
        b = np.cos(watch(np.sin(a)) * 3.0)
        c = np.exp(b * 4.0)
        kept.extend(weakref.ref(gj.value(v)) for v in (a, c))
        return (c * c).sum()

    transform(f)(X)
    assert seen == [[False, True]]


@pytest.mark.usefixtures("no_collector")
def test_the_peak_of_a_gradient_is_not_the_sum_of_residuals_and_gradients():
    scales = [np.full(50_000, 1.0 + 0.01 * k) for k in range(20)]

    def f(scales):
        x = scales[0]
        for s in scales:
            x = np.sin(x * s)
        return x.sum()

    gj.grad(f)(scales)
    tracemalloc.start()
    gj.grad(f)(scales)
    peak = tracemalloc.get_traced_memory()[1] / scales[0].nbytes
    tracemalloc.stop()
    assert peak < 20 * 2 + 10  # x and x * s of each step; not 20 gradients more


def test_a_pullback_stays_usable():
    y, pullback = gj.vjp(lambda x: np.tanh(np.sin(x)), X)
    first = pullback(y)[0]
    np.testing.assert_array_equal(pullback(y)[0], first)


def test_a_bound_method_of_an_array_keeps_it():
    W = np.ones((10, 10))
    f = gj.custom_vjp(lambda x: x * 1.0)
    f.defvjp(lambda x: (x * 1.0, None), lambda dot, ct: (ct * 1.0,))
    g = gj.custom_vjp(lambda x: x * 1.0)
    g.defvjp(lambda x: (x * 1.0, W.dot), lambda dot, ct: (dot(ct),))
    extra = gj.residuals(g)(np.ones(10)).total_bytes - gj.residuals(f)(np.ones(10)).total_bytes
    assert extra == W.nbytes
