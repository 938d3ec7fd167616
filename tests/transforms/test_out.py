"""Jacobians into given memory: every kind of array, in order, once, without a second copy."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpujac as gj
from gpujac.errors import ArgumentError, ArgumentTypeError, BackendError, DTypeError, MutationError, ShapeError
from gpujac.errors import StructureError as BadStructure
from gpujac.ops.contract import Contract
from gpujac.transforms import sink
from gpujac.transforms.sink import boxes
from profiling import out_cases
from tests.transforms import helpers as h

W = np.cos(np.arange(60.0)).reshape(12, 5)
X = np.linspace(0.1, 1.0, 5)


def f(x):
    return np.tanh(W @ np.sin(x))


class Store:
    """What zarr arrays and HDF5 datasets share: a shape, a dtype, and slices that can be assigned."""

    def __init__(self, shape, dtype=np.float64):
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.values = np.full(shape, np.nan, dtype)
        self.times = np.zeros(shape, int)  # how often each entry was written
        self.calls = []
        self.fails_at = None

    def __setitem__(self, key, value):
        if len(self.calls) == self.fails_at:
            raise OSError("no space left")
        assert isinstance(key, tuple)
        assert all(type(k) is slice and k.step is None for k in key)
        assert value.shape == self.values[key].shape  # nothing is broadcast
        assert value.dtype == self.dtype
        self.calls.append(key)
        self.values[key] = value
        self.times[key] += 1

    def __getitem__(self, key):
        return self.values[key]

    def __array__(self, dtype=None, copy=None):
        return self.values


def store_like(block):
    return Store(block.shape, block.dtype)


def strided(block):
    return np.full((*block.shape, 2), np.nan, block.dtype)[..., 0]


TARGETS = {
    "C order": lambda block, path: np.full(block.shape, np.nan, block.dtype),
    "F order": lambda block, path: np.full(block.shape, np.nan, block.dtype, order="F"),
    "strided": lambda block, path: strided(block),
    "memmap": lambda block, path: np.memmap(path, block.dtype, "w+", shape=block.shape),
    "slices": lambda block, path: store_like(block),
}
every_target = pytest.mark.parametrize("target", list(TARGETS.values()), ids=list(TARGETS))
every_way = pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.jacobian])


@every_target
@every_way
@pytest.mark.parametrize("chunk_size", [1, 5, None, "auto"])
def test_the_result_is_the_given_array_with_the_bits_of_the_jacobian(transform, target, chunk_size, tmp_path):
    wanted = transform(f, chunk_size=chunk_size, assembly="preallocate")(X)
    out = target(wanted, tmp_path / "J")
    assert transform(f, chunk_size=chunk_size, out=out)(X) is out
    h.assert_same_bits(np.asarray(out), wanted)


@every_target
@every_way
@pytest.mark.parametrize(("f", "args"), [(f, a) for _, f, a in h.SAMPLES], ids=h.IDS)
def test_trees_of_arrays(f, args, transform, target, tmp_path):
    argnums = tuple(range(len(args)))
    wanted = transform(f, argnums, chunk_size=3, assembly="preallocate")(*args)
    paths = iter(range(100))
    out = gj.trees.map(lambda block: target(block, tmp_path / f"{next(paths)}"), wanted)
    assert transform(f, argnums, chunk_size=3, out=out)(*args) is out
    h.assert_same_bits(gj.trees.map(np.asarray, out), wanted)


@pytest.mark.parametrize("layout", ["C order", "slices"])
def test_rows_that_stay_diagonal_leave_zeros_beside_them(layout, tmp_path):
    for g in (np.sin, lambda x: x[1:] * x[:-1], lambda x: (x * 2.0).reshape(5, 1)):
        for transform in (gj.jacrev, gj.jacfwd):
            wanted = transform(g)(X)
            out = TARGETS[layout](wanted, tmp_path)
            h.assert_same_bits(np.asarray(transform(g, out=out)(X)), wanted)


@pytest.mark.parametrize("layout", ["C order", "slices"])
def test_arguments_that_do_not_count_are_zeros(layout, tmp_path):
    wanted = gj.jacrev(lambda x, y: x * 1.0, (0, 1))(X, X)
    out = tuple(TARGETS[layout](block, tmp_path) for block in wanted)
    gj.jacrev(lambda x, y: x * 1.0, (0, 1), out=out)(X, X.copy())
    h.assert_same_bits(tuple(map(np.asarray, out)), wanted)


@pytest.mark.parametrize("layout", ["C order", "F order", "slices"])
def test_scalar_functions_numbers_and_empty_arrays(layout, tmp_path):
    cases = [
        (lambda x: (x**3).sum(), X), (lambda x: x**3, 2.0), (lambda x: x * np.ones(3), 2.0),
        (lambda x: x[:0], X), (np.sin, X[:0]), (lambda x: np.ones(2) * x.sum(), X[:0]),
    ]  # fmt: skip
    for g, x in cases:
        for transform in (gj.jacrev, gj.jacfwd):
            wanted = np.asarray(transform(g)(x))
            out = TARGETS[layout](wanted, tmp_path)
            assert transform(g, out=out)(x) is out
            np.testing.assert_array_equal(np.asarray(out), wanted)


@pytest.mark.parametrize("layout", ["C order", "slices"])
def test_holomorphic_functions_and_real_blocks(layout, tmp_path):
    z = X + 0.3j
    for g, options in ((lambda z: np.sin(W @ z) * 1j, {"holomorphic": True}),
                       (lambda z: np.sin(z) * 1j, {"holomorphic": True}),
                       (lambda z: np.abs(W @ z) * z[0], {"complex_blocks": True})):  # fmt: skip
        for transform in (gj.jacrev, gj.jacfwd):
            wanted = transform(g, chunk_size=4, **options)(z)
            out = TARGETS[layout](wanted, tmp_path)
            np.testing.assert_array_equal(np.asarray(transform(g, chunk_size=4, out=out, **options)(z)), wanted)


def test_dtypes_are_those_of_the_blocks():
    x = X.astype(np.float32)
    for transform, dtype in ((gj.jacrev, np.float32), (gj.jacfwd, np.float64), (gj.jacobian, np.float64)):
        for make in (lambda dtype: np.empty((12, 5), dtype), lambda dtype: Store((12, 5), dtype)):
            out = transform(f, out=make(dtype))(x)
            np.testing.assert_array_equal(np.asarray(out), transform(f)(x))
            wrong = make(np.float64 if dtype is np.float32 else np.float32)
            with pytest.raises(DTypeError, match=r"out has dtype float\d+, but the block of the Jacobian is float"):
                transform(f, out=wrong)(x)


@pytest.mark.parametrize("chunk_size", [4, "auto"])
def test_the_columns_of_a_hessian(chunk_size):
    g = lambda x: np.exp(np.sin(x) * x[0])
    wanted = gj.hessian(g, chunk_size=chunk_size)(X)
    for out in (np.empty((5, 5, 5)), Store((5, 5, 5))):
        assert gj.hessian(g, chunk_size=chunk_size, out=out)(X) is out
        np.testing.assert_array_equal(np.asarray(out), wanted)
    H, y = gj.hessian(g, with_value=True, out=np.empty((5, 5, 5)))(X)
    np.testing.assert_array_equal(H, wanted)
    np.testing.assert_array_equal(y, g(X))


def test_aux_and_values_come_beside_it():
    out = np.empty((12, 5))
    J, (y, aux) = gj.jacrev(lambda x: (f(x), "aux"), has_aux=True, with_value=True, out=out)(X)
    assert J is out
    assert aux == "aux"
    np.testing.assert_array_equal(y, f(X))


def test_host_is_none_where_there_is_no_device():
    h.assert_same_bits(gj.jacrev(f, out="host")(X), gj.jacrev(f)(X))
    points = np.stack([X, X + 1])
    np.testing.assert_array_equal(gj.vmap(gj.jacrev(f, out="host"))(points), gj.vmap(gj.jacrev(f))(points))


# ---------------------------------------------------------------- in order, once, and no copy


@given(st.lists(st.integers(1, 4), max_size=4), st.data())
def test_boxes_cover_a_range_once_and_in_order(shape, data):
    shape = tuple(shape)
    size = int(np.prod(shape))
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    numbers = np.arange(size).reshape(shape)
    seen, at = [], start
    for key, low, high in boxes(shape, start, stop):
        assert (low, len(key)) == (at, len(shape))
        at = high
        seen += list(numbers[key].ravel())
    assert seen == list(range(start, stop))
    assert len(list(boxes(shape, start, stop))) <= max(2 * len(shape) - 1, 1)


@every_way
def test_every_entry_is_written_once_and_in_order(transform):
    g = lambda x: {"a": f(x).reshape(3, 4), "b": np.cumsum(x)}
    shapes = {"a": (3, 4, 5), "b": (5, 5)}
    out = {name: Store(shape) for name, shape in shapes.items()}
    transform(g, chunk_size=3, out=out)(X)
    for s in out.values():
        assert (s.times == 1).all()
        order = np.full(s.shape, -1)
        for i, key in enumerate(s.calls):
            order[key] = i
        lines = order.reshape(-1, 5) if s.calls[0][-1] == slice(0, 5) else order.reshape(-1, 5).T
        assert (np.diff(lines[:, 0]) >= 0).all()


@pytest.mark.parametrize("layout", ["C order", "memmap", "F order", "slices"])
@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd])
def test_no_second_copy_of_the_result_exists(transform, layout, tmp_path):
    n, k = 1000, 10
    x = np.linspace(0.0, 1.0, n)
    g = lambda x: np.cumsum(np.sin(x))  # every row is dense
    out = TARGETS[layout](np.empty((n, n)), tmp_path / "J")
    run = transform(g, chunk_size=k, out=out)
    run(x)
    tracemalloc.start()
    try:
        run(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * k * n * 8 + 100_000  # a chunk's buffers, of a result of 8 MB


def test_rows_that_stay_diagonal_never_exist_as_rows(tmp_path, monkeypatch):
    """One sweep of all rows, written in pieces: neither the rows nor the result are built in memory."""
    monkeypatch.setattr(sink, "FLUSH_BYTES", 100_000)
    n = 500
    x = np.linspace(0.0, 1.0, n)
    for out in (np.memmap(tmp_path / "J", float, "w+", shape=(n, n)), np.empty((n, n), order="F")):
        run = gj.jacrev(lambda x: np.sin(x) * x, out=out)
        run(x)
        tracemalloc.start()
        try:
            run(x)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 300_000
        np.testing.assert_array_equal(out, gj.jacrev(lambda x: np.sin(x) * x)(x))


def stencil(x):
    return np.roll(x, 1) * x + np.roll(x, -1) ** 2


@every_target
@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd])
def test_rows_of_few_entries_are_written_in_pieces_of_any_size(transform, target, tmp_path, monkeypatch):
    x, plans = np.linspace(0.0, 1.0, 200), []
    wanted = transform(stencil)(x)
    for size in (12_000, 1 << 26):
        monkeypatch.setattr(sink, "FLUSH_BYTES", size)
        out = target(wanted, tmp_path / "J")
        transform(stencil, out=out, report=plans.append)(x)
        np.testing.assert_array_equal(np.asarray(out), wanted)
        out = target(wanted, tmp_path / "J")
        np.asarray(out)[...] = np.nan
        transform(stencil, out=out, resume=77)(x)
        half = (np.asarray(out) if transform is gj.jacrev else np.asarray(out).T)[77:]
        np.testing.assert_array_equal(half, (wanted if transform is gj.jacrev else wanted.T)[77:])
    assert all(plan.structured for plan in plans)


def test_rows_of_too_many_entries_go_on_in_chunks(monkeypatch):
    x, plans, out = np.linspace(0.0, 1.0, 200), [], Store((200, 200))
    wanted = gj.jacrev(stencil)(x)
    monkeypatch.setattr("gpujac.transforms.terms.most_entries", lambda rows, columns: 1)
    gj.jacrev(stencil, out=out, report=plans.append, resume=50)(x)
    assert [plan.structured for plan in plans] == [True, False, False]
    np.testing.assert_allclose(out.values[50:], wanted[50:], atol=1e-14)
    assert (out.times[50:] == 1).all()
    assert not out.times[:50].any()


def test_a_file_is_flushed_every_so_many_bytes_and_its_pages_are_let_go(tmp_path, monkeypatch):
    flushed = []
    out = np.memmap(tmp_path / "J", float, "w+", shape=(12, 5))
    monkeypatch.setattr(sink, "write_back", lambda x: flushed.append(np.count_nonzero(np.asarray(x).any(axis=1))))
    for size, wanted in ((1, list(range(1, 13)) + [12]), (80, [2, 4, 6, 8, 10, 12, 12]), (10**9, [12])):
        flushed.clear()
        out[:] = 0
        monkeypatch.setattr(sink, "FLUSH_BYTES", size)
        gj.jacrev(f, chunk_size=4, out=out)(X)
        assert flushed == wanted


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[5:], lambda x: np.asarray(x)[5:]])
def test_what_was_written_through_a_map_is_in_the_file(view, tmp_path):
    whole = np.memmap(tmp_path / "J", float, "w+", shape=(17, 5))
    part = view(whole)[-12:]
    gj.jacrev(f, chunk_size=4, out=part)(X)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "J").reshape(17, 5)[-12:], gj.jacrev(f, chunk_size=4)(X))
    np.testing.assert_array_equal(part, gj.jacrev(f, chunk_size=4)(X))


def test_a_private_map_keeps_what_was_written(tmp_path):
    np.zeros(60).tofile(tmp_path / "J")
    out = np.memmap(tmp_path / "J", float, "c", shape=(12, 5))
    gj.jacrev(f, chunk_size=4, out=out)(X)
    np.testing.assert_array_equal(out, gj.jacrev(f, chunk_size=4)(X))
    assert not np.fromfile(tmp_path / "J").any()


def test_out_of_memory_halves_the_chunk_and_goes_on(monkeypatch):
    plain = Contract.transpose

    def refuse(self, position, ct, operands, shape):
        if ct.shape[0] > 3:
            raise MemoryError
        return plain(self, position, ct, operands, shape)

    g = lambda x: np.tanh(W @ np.sin(W.T @ f(x)))
    wanted = gj.jacrev(g, chunk_size=3)(X)
    monkeypatch.setattr(Contract, "transpose", refuse)
    out, plans = Store((12, 5)), []
    gj.jacrev(g, chunk_size=12, out=out, report=plans.append)(X)
    np.testing.assert_allclose(out, wanted, rtol=1e-13)
    assert (out.times == 1).all()
    assert [p.chunk_size for p in plans] == [None, 6, 3, 3]


def test_the_report_says_at_the_end_how_much_memory_was_planned_at_once():
    plans = []
    gj.jacrev(f, chunk_size=5, out=np.empty((12, 5)), report=plans.append)(X)
    assert [p.peak_bytes for p in plans] == [None, 5 * plans[0].row_bytes]
    assert plans[0].row_bytes >= 12 * 8
    plans.clear()
    gj.jacrev(lambda x: np.sin(x).sum(), report=plans.append)(X)
    assert plans[1].peak_bytes == plans[0].row_bytes > 0


# ---------------------------------------------------------------- what is refused


def refused(error, match, call):
    with pytest.raises(error, match=match):
        call()


def test_what_does_not_fit_is_refused_before_the_function_runs():
    def never(x):
        raise AssertionError("ran")

    read_only = np.empty((12, 5))
    read_only.flags.writeable = False
    for out, error, match in (
        (read_only, ArgumentError, "out is read-only; open a memmap with"),
        (np.empty((12, 4)), ShapeError, r"out has shape \(12, 4\), but the arguments have \(5,\)"),
        (np.empty(()), ShapeError, r"out has shape \(\)"),
        (3.0, ArgumentTypeError, "out is a float; give an array to write into"),
        ({"a": object()}, ArgumentTypeError, r"out\['a'\] is a object"),
        (X, ArgumentError, r"out, shape \(5,\), shares memory with an argument"),
    ):
        refused(error, match, lambda out=out: gj.jacrev(never, out=out)(X))


def test_a_block_of_another_shape_or_tree_is_refused_before_the_sweep(monkeypatch):
    monkeypatch.setattr(Contract, "transpose", lambda *args: pytest.fail("swept"))
    refused(ShapeError, r"out has shape \(11, 5\), but the block of the Jacobian has \(12, 5\)",
            lambda: gj.jacrev(f, out=np.empty((11, 5)))(X))  # fmt: skip
    refused(BadStructure, "jacrev: out.*expected a leaf, found tuple",
            lambda: gj.jacrev(f, out=(np.empty((12, 5)),))(X))  # fmt: skip
    refused(BadStructure, "jacrev: out", lambda: gj.jacrev(f, (0,), out=np.empty((12, 5)))(X))
    refused(BadStructure, "missing key is 'b'", lambda: gj.jacrev(lambda x: {"a": f(x), "b": x * 1}, out={
        "a": np.empty((12, 5))})(X))  # fmt: skip


def test_memory_that_the_sweep_reads_is_refused():
    big = np.ones((700, 400))  # small constants are copied
    x = np.ones(400)
    for g in (lambda x: big[:400] @ x, lambda x: np.tanh(big[:400] @ np.sin(x))):
        refused(ArgumentError, r"out, shape \(400, 400\), shares memory with an array that f reads",
                lambda g=g: gj.jacrev(g, out=big[300:])(x))  # fmt: skip
    assert (big == 1.0).all()
    assert big.flags.writeable
    block, rows = np.empty((4, 5)), np.empty((10, 5))
    other = "out.*shares memory with an argument"
    refused(ArgumentError, other, lambda: gj.jacrev(lambda x, y: f(x), out=block)(X, block))
    refused(ArgumentError, other, lambda: gj.jacrev(lambda x, *, y: f(x), out=block)(X, y=block[0]))
    refused(ArgumentError, r"out\['b'\].*shares memory with another array of out", lambda: gj.jacrev(
        lambda x: {"a": x * 1, "b": x * 2}, out={"a": rows[:5], "b": rows[4:9]})(X))  # fmt: skip
    gj.jacrev(lambda x: {"a": x * 1, "b": x * 2}, out={"a": rows[:5], "b": rows[5:]})(X)  # neighbours are apart


def test_under_another_transform_it_is_refused():
    out = np.zeros((12, 5))
    inner = gj.jacrev(f, out=out)
    cases = [
        lambda: gj.grad(lambda x: inner(x).sum())(X),
        lambda: gj.jvp(inner, (X,), (X,)),
        lambda: gj.vmap(inner)(np.stack([X, X])),
        lambda: gj.jacfwd(inner)(X),
        lambda: gj.grad(lambda s: gj.jacrev(lambda x: s * f(x), out=out)(X).sum())(1.0),  # captured
    ]
    for call in cases:
        refused(MutationError, "another transform .* traces this Jacobian", call)
    assert not out.any()

    @gj.custom_vjp
    def doubled(x):
        return x * 2

    def hidden(s):  # the value is plain, the rows are not
        doubled.defvjp(lambda x: (x * 2, ()), lambda kept, ct: (ct * s,))
        return gj.jacrev(lambda x: doubled(x), out=np.zeros((5, 5)))(X).sum()

    refused(MutationError, "another transform .* traces this Jacobian", lambda: gj.grad(hidden)(2.0))
    traced_out = lambda x: gj.jacrev(f, out=np.ones((12, 5)) * x)(X).sum()
    refused(MutationError, "out is traced", lambda: gj.grad(traced_out)(X))


def test_options_that_do_not_go_together_are_refused_when_the_transform_is_built():
    out = np.empty((12, 5))
    refused(ArgumentError, "out='disk'; give \"host\"", lambda: gj.jacrev(f, out="disk"))
    refused(ArgumentError, 'assembly="stack" keeps a second copy', lambda: gj.jacrev(f, out=out, assembly="stack"))
    refused(ArgumentError, "resume=3 with out=None", lambda: gj.jacfwd(f, resume=3))
    refused(ArgumentError, "resume=3 with out='host'", lambda: gj.jacobian(f, out="host", resume=3))
    refused(ArgumentError, "resume=-1 must be a row", lambda: gj.jacrev(f, out=out, resume=-1))
    refused(ArgumentTypeError, "resume=True is a bool", lambda: gj.jacrev(f, out=out, resume=True))
    refused(ArgumentTypeError, "resume=1.5 is a float", lambda: gj.hessian(f, out=out, resume=1.5))


def test_arrays_of_another_library():
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    x = strict.asarray(X)
    g = lambda x: np.sin(x) * x[0]
    out = strict.zeros((5, 5))
    assert gj.jacrev(g, out=out)(x) is out
    np.testing.assert_array_equal(np.asarray(out), np.asarray(gj.jacrev(g)(x)))
    refused(BackendError, "out is a ndarray, but the Jacobian is one of array_api_strict",
            lambda: gj.jacrev(g, out=np.zeros((5, 5)))(x))  # fmt: skip
    refused(BackendError, "out is an array of array_api_strict, but the Jacobian is one of numpy",
            lambda: gj.jacrev(np.sin, out=out)(X))  # fmt: skip


def test_an_array_of_zarr(tmp_path):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    out = zarr.open(str(tmp_path / "J.zarr"), mode="w", shape=(12, 5), chunks=(4, 5), dtype="f8")
    assert gj.jacrev(f, chunk_size=4, out=out)(X) is out
    np.testing.assert_array_equal(out[:], gj.jacrev(f, chunk_size=4)(X))


@pytest.mark.skipif(not out_cases.STATUS.exists(), reason="only Linux tells anonymous memory from pages of files")
@pytest.mark.parametrize("chunk_size", ["auto", 16])
def test_the_measurement_of_a_large_file_checks_what_it_wrote_and_removes_it(chunk_size, tmp_path):
    found = out_cases.measure(8, chunk_size, tmp_path)
    assert found.error < 1e-12
    assert found.jacobian_bytes == 8 * 128**2
    assert (found.chunk_size, found.chunks) == ((None, 1) if chunk_size == "auto" else (16, 8))
    assert not list(tmp_path.iterdir())
