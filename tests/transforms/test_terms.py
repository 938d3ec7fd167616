"""Rows with few entries are swept as lists of entries, and give what rows that are written out give."""

import tracemalloc
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpujac as gj
from gpujac.backends.host import HOST
from gpujac.core.op import STRUCTURAL, Linear
from gpujac.transforms import basis, chunking, structure, terms
from gpujac.transforms.hot import Hot, TooWideError
from profiling.sweep_cases import FORMS, grid
from tests.transforms import helpers as h

BOTH = pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd])
X = np.linspace(0.2, 1.3, 12)


@contextmanager
def sweeps(how):
    """Rows of any size as terms ("terms": in one pass, "chunks": in each chunk), or never ("dense")."""
    with pytest.MonkeyPatch.context() as patch:
        if how == "dense":
            patch.setattr(chunking, "terms_pay", lambda *_: 0)
            patch.setattr(terms, "_STEP", 1 << 60)
        else:
            patch.setattr(terms, "_STEP", 0)
            patch.setattr(terms, "_ENTRY", 1e-6)
            patch.setattr(terms, "_SHARE", 1e-6)
            patch.setattr(chunking, "_SMALL", 0)
            patch.setattr(chunking, "terms_pay", (lambda *_: 1) if how == "terms" else (lambda *_: 0))
        yield


def jacobian(transform, f, x, how, **options):
    """The Jacobian by rows of one kind, and whether a single pass of terms made it."""
    plans = []
    with sweeps(how):
        J = transform(f, report=plans.append, **options)(x)
    return J, plans[-1].structured


def agrees(f, x, tolerance=1e-13, one_pass=True):
    """Both modes, in one pass and in chunks, give what dense rows give."""
    for transform in (gj.jacrev, gj.jacfwd):
        expected, structured = jacobian(transform, f, x, "dense")
        assert not structured
        found, structured = jacobian(transform, f, x, "terms")
        assert structured or not one_pass
        scale = np.max(np.abs(expected), initial=1.0, where=np.isfinite(expected))
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)
        chunked, _ = jacobian(transform, f, x, "chunks", chunk_size=5)
        np.testing.assert_allclose(chunked, expected, rtol=0, atol=tolerance * scale)


# ---------------------------------------------------------------- programs


def write(x):
    d = np.zeros_like(x)
    d[..., 1:] = x[..., 1:] * 3.0
    d[..., :1] += x[..., -1:]
    d[..., 2] = x[..., 0]
    return d


def take(x, places):
    return np.take(x, np.array(places) % x.shape[-1], axis=-1)


STEPS = {
    "roll": lambda x: np.roll(x, 2, axis=-1) - x,
    "flip": lambda x: np.flip(x, axis=0) * 1.5,
    "transpose": lambda x: np.swapaxes(x, 0, -1),
    "reshape": lambda x: np.reshape(x, (-1,) if x.ndim > 1 else (-1, 2 - x.shape[0] % 2)),
    "stride": lambda x: x[..., ::2],
    "reverse": lambda x: x[..., ::-1] + x,
    "part": lambda x: x[..., 1:] * x[..., :-1] if x.shape[-1] > 1 else x,
    "first": lambda x: x[0] if x.ndim > 1 else x,
    "join": lambda x: np.concatenate([x[..., 1:], x[..., :1] * x[..., -1:]], -1),
    "stack": lambda x: np.stack([x, np.sin(x)]) if x.ndim < 3 else x,
    "zeros": lambda x: np.pad(x, 1)[..., :6],
    "wrap": lambda x: np.pad(x, 1, mode="wrap")[..., :6],
    "reflect": lambda x: np.pad(x, 1, mode="symmetric")[..., 1:],
    "take": partial(take, places=(3, 0, 0, 5, 1)),
    "sum": lambda x: x.sum(axis=-1) if x.ndim > 1 else x,
    "mean": lambda x: x - x.mean(axis=-1, keepdims=True),
    "spread": lambda x: x + x[..., :1],
    "sine": np.sin,
    "square": lambda x: x * x * 0.3,
    "mask": lambda x: np.where(x > 0.5, x * x, np.sin(x)),
    "write": lambda x: write(x) if x.shape[-1] > 2 else x,
    "float32": lambda x: x.astype(np.float32).astype(np.float64),
    "conj": lambda x: np.conj(x * 2j).imag,
}


def program(names):
    """The steps one after the other."""

    def f(x):
        for name in names:
            x = STEPS[name](x)
        return x

    return f


@pytest.mark.parametrize("name", list(STEPS))
@pytest.mark.parametrize("shape", [(12,), (3, 4)])
def test_each_step_gives_what_dense_rows_give(name, shape):
    agrees(program([name, "sine", "roll"]), X.reshape(shape))


@given(st.lists(st.sampled_from(list(STEPS)), min_size=2, max_size=6), st.sampled_from([(12,), (3, 4), (2, 3, 2)]))
@settings(max_examples=40, deadline=None)
def test_random_programs_give_what_dense_rows_give(names, shape):
    agrees(program(names), X.reshape(shape), tolerance=1e-12)


@pytest.mark.parametrize("form", list(FORMS))
def test_the_brusselator_has_the_jacobian_of_differences(form):
    f, y = FORMS[form](np, 3), grid(3)
    agrees(f, y)
    found, _ = jacobian(gj.jacrev, f, y, "terms")
    expected = h.difference_matrix(f, y).reshape(found.shape)
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


@BOTH
def test_several_inputs_and_outputs_share_the_chunks(transform):
    def f(a, b):
        return {"sum": np.roll(a, 1) + b[0], "parts": (a[::2] * b[1, ::2], np.flip(b))}

    a, b = X[:5], X[:10].reshape(2, 5)
    with sweeps("dense"):
        expected = transform(f, argnums=(0, 1))(a, b)
    stacked = {"chunk_size": 4, "assembly": "stack"}
    for how, options in (("terms", {}), ("chunks", {"chunk_size": 3}), ("chunks", stacked)):
        with sweeps(how):
            found = transform(f, argnums=(0, 1), **options)(a, b)
        np.testing.assert_allclose(h.vector(found), h.vector(expected), atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.complex128, np.complex64])
def test_other_dtypes_keep_theirs(dtype):
    x = (X + (0.5j * X[::-1] if np.dtype(dtype).kind == "c" else 0)).astype(dtype)
    f = lambda x: np.roll(x, 1) * x - np.conj(np.conj(x[::-1])) * dtype(0.5)
    options = {"holomorphic": np.dtype(dtype).kind == "c"}
    for transform in (gj.jacrev, gj.jacfwd):
        expected, _ = jacobian(transform, f, x, "dense", **options)
        found, structured = jacobian(transform, f, x, "terms", **options)
        assert structured
        assert found.dtype == expected.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=1e-6)


# ---------------------------------------------------------------- zeros, infinities, repeated places


@pytest.mark.filterwarnings("error")
def test_an_infinite_slope_stays_at_its_place():
    x = np.array([0.0, 1.0, 4.0])
    f = lambda x: np.roll(np.sqrt(np.roll(x, 1)), 1) + np.flip(x)
    agrees(f, x)
    found, _ = jacobian(gj.jacrev, f, x, "terms")
    assert np.isinf(found).sum() == 1
    assert not np.isnan(found).any()


def test_entries_that_cancel_are_zero_before_an_infinite_slope():
    f = lambda x: np.sqrt(np.roll(np.roll(x, 1)[::-1], 2)[::-1] - np.roll(x, -1))
    expected, _ = jacobian(gj.jacfwd, f, X, "dense")
    found, structured = jacobian(gj.jacfwd, f, X, "terms")
    assert structured
    np.testing.assert_array_equal(found, expected)
    assert not np.isnan(found).any()


def test_places_that_are_named_twice_add_up():
    f = lambda x: np.sin(x)[np.array([0, 2, 2, 0, 11])] + x[:5] + np.roll(x, 3)[:5]
    agrees(f, X)


# ---------------------------------------------------------------- what it costs


def stencil(x):
    return np.roll(x, 1) * x - 2.0 * x + np.roll(x, -1)


@pytest.mark.parametrize("form", ["roll", "slices"])
@BOTH
def test_nothing_but_the_result_is_as_large_as_the_rows(transform, form):
    f, y = FORMS[form](np, 16), grid(16)
    jacobian_of, plans = transform(f, report=None), []
    jacobian_of(y)  # fills caches
    transform(f, report=plans.append)(y)
    assert plans[0].structured
    assert plans[0].chunks == 1
    tracemalloc.start()
    J = jacobian_of(y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * J.nbytes


@BOTH
def test_no_row_is_written_out_before_the_result(transform, monkeypatch):
    asked = []
    zeros = HOST.zeros

    def counted(self, shape, dtype, like):
        asked.append(shape)
        return zeros(shape, dtype, like)

    monkeypatch.setattr(type(HOST), "zeros", counted)
    transform(stencil)(np.linspace(0.1, 1.0, 300))
    assert [s for s in asked if np.prod(s) > 300] == [(300, 300)]


@BOTH
def test_a_stencil_that_is_applied_again_and_again_keeps_few_terms(transform, monkeypatch):
    most = []
    put = terms.Terms.put
    monkeypatch.setattr(terms.Terms, "put", lambda self, t: (put(self, t), most.append(len(self.terms)))[0])

    def f(x):
        for _ in range(5):
            x = stencil(x)
        return x

    agrees(f, X[:11] * 0.3, tolerance=1e-11)
    most.clear()
    jacobian(transform, f, np.linspace(0.1, 0.3, 40), "terms")
    assert max(most) == 11  # of 3 ** 5 paths


def test_many_terms_are_joined_into_one():
    rows = terms.Terms(200, (200,), np.dtype(float), 10**9)
    n = np.arange(200)
    for k in range(70):
        rows.put(terms.Term(n, (n * (k + 1)) % 200, np.full(200, 1.0 + k)))
    before = rows.written()
    one = rows.settled()
    assert len(one.terms) == 1
    np.testing.assert_array_equal(one.written(), before)
    assert one.count == np.count_nonzero(before)


# ---------------------------------------------------------------- where terms end


@BOTH
def test_a_function_that_mixes_is_swept_in_chunks(transform):
    W = np.cos(np.arange(144.0)).reshape(12, 12)
    for f in (lambda x: stencil(np.tanh(W @ x)), lambda x: np.tanh(W @ stencil(x)), lambda x: np.cumsum(stencil(x))):
        plans = []
        transform(f, report=plans.append)(X)
        assert not any([p.structured for p in plans])
        agrees(f, X, one_pass=False)


@BOTH
def test_a_product_with_a_matrix_scales_its_rows(transform, monkeypatch):
    n = 600  # wide enough for terms in chunks of any size
    W, x = np.cos(np.arange(n * n, dtype=float)).reshape(n, n), np.linspace(0.1, 1.0, n)
    f = (lambda x: stencil(W @ x)) if transform is gj.jacrev else (lambda x: W @ stencil(x))
    expected, _ = jacobian(transform, f, x, "dense")
    scaled = []
    rows_of_terms = terms.rows_of_terms

    def counted(*args):
        scaled.append(rows_of_terms(*args))
        return scaled[-1]

    monkeypatch.setattr("gpujac.transforms.sweep.rows_of_terms", counted)
    found = transform(f, chunk_size=n)(x)
    assert scaled
    assert all([s is not None for s in scaled])
    np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max())


@BOTH
def test_rows_with_too_many_entries_are_swept_again_in_chunks(transform, monkeypatch):
    monkeypatch.setattr(chunking, "terms_pay", lambda *_: 1)
    f = lambda x: stencil(x) - x.mean()
    x = np.linspace(0.1, 1.0, 400)
    plans = []
    found = transform(f, report=plans.append)(x)
    assert plans[0].structured
    assert not plans[-1].structured
    expected, _ = jacobian(transform, f, x, "dense")
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_what_must_stay_narrow_is_never_written_out():
    hot = Hot(3, 0, 0, 3, None, (3,), np.dtype(float), X, 5)
    narrow = terms.as_terms(hot)
    for rows in (hot, narrow):
        with pytest.raises(TooWideError):
            rows.dense()
        np.testing.assert_array_equal(rows.written(), np.eye(3))


@BOTH
def test_outer_transforms_see_dense_rows(transform):
    points = np.stack([X, X[::-1], X * 0.5])
    with sweeps("dense"):
        mapped = gj.vmap(transform(stencil))(points)
        pushed = gj.jvp(transform(stencil), (X,), (np.cos(X),))[1]
        second = gj.jacfwd(transform(stencil))(X)
    with sweeps("terms"):
        np.testing.assert_allclose(gj.vmap(transform(stencil))(points), mapped, atol=1e-14)
        np.testing.assert_allclose(gj.jvp(transform(stencil), (X,), (np.cos(X),))[1], pushed, atol=1e-14)
        np.testing.assert_allclose(gj.jacfwd(transform(stencil))(X), second, atol=1e-14)


@BOTH
def test_a_constant_of_an_outer_transform_is_met_in_the_middle(transform):
    def of(a):
        return transform(lambda x: np.roll(np.roll(x, 1) * gj.stop_gradient(x) * a, 2))(X).sum(axis=0)

    with sweeps("dense"):
        expected = gj.jacfwd(of)(X)
    with sweeps("terms"):
        np.testing.assert_allclose(gj.jacfwd(of)(X), expected, atol=1e-13)


@BOTH
def test_memory_that_runs_out_while_the_result_is_written_adds_nothing_twice(transform, monkeypatch):
    expected, _ = jacobian(transform, stencil, X, "dense")
    write, calls = terms.Terms.write, []

    def failing(self, *args):
        write(self, *args)
        calls.append(self.rows)
        if len(calls) == 1:
            raise MemoryError

    monkeypatch.setattr(terms.Terms, "write", failing)
    found, _ = jacobian(transform, stencil, X, "terms")
    assert calls == [12, 6, 6]
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_a_memory_cap_counts_entries():
    x, plans = np.linspace(0.1, 1.0, 1000), []
    gj.jacrev(stencil, report=plans.append, memory=1_000_000)(x)
    assert plans[0].structured
    assert 0 < plans[0].row_bytes * 1000 <= 1_000_000
    gj.jacrev(stencil, report=plans.append, memory=50_000)(x)
    assert not plans[-1].structured
    assert plans[-1].chunks > 1


def test_a_diagonal_of_second_derivatives_reads_terms():
    f = lambda x: (np.roll(x, 1) * np.roll(x, -1) * x + np.sin(x) * x[::-1]).sum()
    with sweeps("dense"):
        expected = gj.hessian_diagonal(f)(X)
    with sweeps("chunks"):
        np.testing.assert_allclose(gj.hessian_diagonal(f)(X), expected, atol=1e-13)


# ---------------------------------------------------------------- what ops say of themselves


def _linear_samples():
    for cls in STRUCTURAL:
        if issubclass(cls, Linear) and (cls.copies or cls.folds):
            for k, sample in enumerate(cls.samples()):
                yield pytest.param(sample, id=f"{cls.name}-{k}")


@pytest.mark.parametrize("sample", list(_linear_samples()))
def test_ops_that_move_entries_say_so_truly(sample):
    (shape,) = sample.shapes
    op, size = sample.call, int(np.prod(shape))
    matrix = np.stack([np.ravel(op(row.reshape(shape))) for row in np.eye(size)], axis=-1)
    assert set(np.unique(matrix)) <= {0.0, 1.0}
    assert not op.copies or (matrix.sum(axis=1) <= 1).all()
    assert not op.folds or (matrix.sum(axis=0) <= 1).all()


def test_the_rule_that_settles_it_counts_steps_and_numbers():
    sizes = {}
    for n in (8, 2000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(basis.chunking, "terms_pay", lambda *a, n=n: sizes.setdefault(n, structure.terms_pay(*a)))
            gj.jacrev(stencil)(np.linspace(0.1, 1.0, max(n, 9)))
    assert sizes[8] == 0 < sizes[2000]
