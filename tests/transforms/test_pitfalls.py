"""Traps that a prototype, torch.func or another system fell into: each one a test of the right thing."""

import numpy as np
import pytest

import gpujac as gj
from gpujac.backends.host import Host
from gpujac.ops.indexing import Place
from tests.transforms import helpers as h

X = np.array([1.0, 2.0, 3.0])
MODES = [gj.jacrev, gj.jacfwd]
every_mode = pytest.mark.parametrize("transform", MODES, ids=["jacrev", "jacfwd"])
every_chunk = pytest.mark.parametrize("chunk_size", [None, 1, 2])


# ---------------------------------------------------------------- design, section 12


@every_mode
@every_chunk
def test_where_does_not_count_two_channels_twice(transform, chunk_size):
    # both branches read x through one-hot rows, then a sum mixes them
    f = lambda x: np.where(x > 1.5, 2 * x, 3 * x) + np.where(x > 2.5, x, 1.0) * x.sum()
    np.testing.assert_allclose(transform(f, chunk_size=chunk_size)(X), h.difference_matrix(f, X), atol=1e-8)
    g = lambda x: np.cumsum(np.where(x > 1.5, x, x * x) + x)
    np.testing.assert_allclose(transform(g, chunk_size=chunk_size)(X), h.difference_matrix(g, X), atol=1e-8)


KEYS = {
    "integer beside an array": (0, slice(None), np.array([2, 0])),
    "array, slice, array": (np.array([0, 1]), slice(None), np.array([2, 0])),
    "slice, array": (slice(None), np.array([2, 0, 2])),
    "mask": (np.array([True, False]),),
    "mask of two axes": (np.array([[True, False, True], [False, True, True]]),),
    "integer and mask": (1, np.array([True, False, True])),
    "ellipsis and array": (..., np.array([3, 0])),
    "None and array": (None, np.array([1, 0]), slice(1, None)),
    "two-dimensional array": (np.array([[0, 1], [1, 1]]),),
    "all integers": (1, 2, 3),
    "empty tuple": (),
    "empty slice": (slice(2, 2),),
    "negative step": (slice(None, None, -1), slice(None, None, -2)),
    "empty array": (np.array([], int),),
}


@every_mode
@pytest.mark.parametrize("name", list(KEYS))
def test_indexing_follows_numpy(transform, name):
    key = KEYS[name]
    x = np.arange(24.0).reshape(2, 3, 4)
    positions = np.arange(24).reshape(2, 3, 4)[key]
    J = transform(lambda x: x[key] * 2.0)(x)
    assert J.shape == (*positions.shape, 2, 3, 4)
    np.testing.assert_array_equal(J.reshape(positions.size, 24), 2 * np.eye(24)[positions.ravel()])
    ct = np.ones(positions.shape)
    (found,) = gj.vjp(lambda x: x[key], x)[1](ct)
    np.testing.assert_array_equal(found.ravel(), np.bincount(positions.ravel(), minlength=24)[:24])


def test_an_index_without_ellipsis_gives_scalars_that_stay_arrays_for_the_derivative():
    f = lambda x: x[0] * x[1] + np.float64(2.0) * x[2]
    np.testing.assert_array_equal(gj.grad(f)(X), [2, 1, 2])
    y, pullback = gj.vjp(lambda x: x[1], X)
    assert np.shape(y) == ()
    np.testing.assert_array_equal(pullback(1.0)[0], [0, 1, 0])


@every_mode
@every_chunk
def test_broadcasting_a_column_to_a_matrix(transform, chunk_size):
    x, row = X.reshape(3, 1), np.arange(4.0)
    for f in (lambda x: x + row, lambda x: x * row, lambda x: np.broadcast_to(x, (3, 4)) * 1.0,
              lambda x: np.maximum(x, row), lambda x: np.where(row > 1, x, row)):  # fmt: skip
        J = transform(f, chunk_size=chunk_size)(x)
        np.testing.assert_allclose(J.reshape(12, 3), h.difference_matrix(f, x), atol=1e-7)


def test_coefficients_of_an_outer_level_have_their_own_rank():
    # the coefficient c is an outer tracer of rank 0 to 2; cotangents have rank 2 and a basis axis
    for c in (2.0, np.arange(3.0), np.ones((2, 3)) * 2):
        f = lambda c: gj.jacrev(lambda x: x * c)(np.ones((2, 3)))
        np.testing.assert_allclose(gj.jacfwd(f)(c), gj.jacrev(f)(c))
        batch = np.stack([c, np.asarray(c) + 1])
        found = gj.vmap(f)(batch)
        np.testing.assert_allclose(found, np.stack([f(b) for b in batch]))
        back = gj.vmap(f, -1, -1)(np.moveaxis(batch, 0, -1))
        np.testing.assert_allclose(np.moveaxis(back, -1, 0), found)


@every_mode
@every_chunk
def test_seeds_have_the_dtype_of_the_variable(transform, chunk_size):
    x = X.astype("f4")
    for f in (lambda x: x * 2.0, lambda x: np.sin(x) / 3, lambda x: np.cumsum(x) * np.float32(2), lambda x: x**2 + 1,
              lambda x: x @ np.eye(3, dtype="f4"), lambda x: x[::-1].sum() * x):  # fmt: skip
        assert transform(f, chunk_size=chunk_size)(x).dtype == np.float32


def test_casts_on_the_tangent_have_transposes():
    x = X.astype("f4")
    g = gj.grad(lambda x: (x * np.linspace(0, 1, 3)).sum())(x)  # the product is float64
    assert g.dtype == np.float32
    np.testing.assert_allclose(g, np.linspace(0, 1, 3), rtol=1e-6)
    c = np.array([1 + 2j, 3.0, 1j])
    g = gj.grad(lambda x: (x * c).real.sum() + (x * c).imag.sum() * 10)(X)  # the cast takes the real part
    assert g.dtype == np.float64
    np.testing.assert_allclose(g, c.real + 10 * c.imag)


@every_mode
@every_chunk
def test_ranges_with_no_entries(transform, chunk_size):
    for f, m in (
        (lambda x: x[5:], 0),
        (lambda x: x[2:1], 0),
        (lambda x: np.ones(2), 2),
        (lambda x: x[:0].sum() * np.ones(2), 2),
    ):
        np.testing.assert_array_equal(transform(f, chunk_size=chunk_size)(X), np.zeros((m, 3)))


def test_containers_of_traced_arrays_are_searched_by_identity_not_equality():
    # `in` and `list.index` would call ==, which is elementwise
    f = lambda x, y: (x[:1] + y[:1], y, x, y)
    J = gj.jacrev(f, (0, 1))(X, X.copy())
    np.testing.assert_array_equal(J[1][1], np.eye(3))
    np.testing.assert_array_equal(J[2][0], np.eye(3))
    np.testing.assert_array_equal(J[1][0], np.zeros((3, 3)))


def test_adding_a_traced_array_into_a_plain_one_is_refused():
    def f(x):
        total = np.zeros(3)
        total += x
        return total.sum()

    with pytest.raises(gj.MutationError, match=r"np\.add would write a traced value into a plain array.*zeros_like"):
        gj.grad(f)(X)


def test_the_cotangent_that_add_passes_on_is_not_written_into():
    ct = np.ones(3)
    _, pullback = gj.vjp(lambda x, y: ((x + y) + x) + y * x, X, X)
    a, b = pullback(ct)
    np.testing.assert_array_equal(ct, np.ones(3))
    np.testing.assert_array_equal(a, 2 + X)
    np.testing.assert_array_equal(b, 1 + X)


def test_chunk_rules_count_the_mapped_axes_of_outer_transforms():
    plans = []
    n = 400

    def f(c):
        return gj.jacrev(lambda x: np.cumsum(np.sin(c * x)), report=plans.append)(np.ones(n))

    f(1.0)
    gj.vmap(f)(np.ones(64))
    plain, mapped = [p for p in plans if p.peak_bytes is None]
    assert mapped.row_bytes == 64 * plain.row_bytes
    assert (mapped.chunk_size or n) < (plain.chunk_size or n)


def test_complex_pulls_conjugate_and_pushes_do_not():
    c = 2 - 3j
    z = X + 1j
    assert gj.jvp(lambda z: z[0] * c, (z,), (np.array([1j, 0, 0]),))[1] == 1j * c
    assert gj.vjp(lambda z: z[0] * c, z)[1](1.0 + 0j)[0][0] == np.conj(c)
    for chunk_size in (None, 1, 2):
        J = gj.jacrev(lambda z: z * c + z[::-1] * 1j, holomorphic=True, chunk_size=chunk_size)(z)
        np.testing.assert_allclose(J, c * np.eye(3) + 1j * np.eye(3)[::-1])


def test_n_reads_of_one_variable_cost_n_not_n_squared(monkeypatch):
    placed = []
    original = Place.evaluate
    monkeypatch.setattr(Place, "evaluate", lambda op, be, *xs: (placed.append(len(xs)), original(op, be, *xs))[1])
    add_at = Host.add_at  # on the CPU single entries are added up by one call of NumPy's
    monkeypatch.setattr(Host, "add_at", lambda be, y, i, *xs: (placed.append(len(i)), add_at(be, y, i, *xs))[1])
    g = gj.grad(lambda x: sum(x[i] * (i + 1.0) for i in range(50)))(np.arange(50.0))
    np.testing.assert_array_equal(g, np.arange(50) + 1.0)
    assert placed == [50]  # one placement with all fifty pieces


# ---------------------------------------------------------------- quirks of torch.func, done better


def test_q1_dicts_match_by_key_everywhere():
    p = {"a": np.zeros((2, 3)), "b": np.ones((3, 2))}
    for in_dims in ({"a": 0, "b": 1}, {"b": 1, "a": 0}):
        np.testing.assert_array_equal(gj.vmap(lambda d: d["a"] + d["b"], (in_dims,))(p), np.ones((2, 3)))
    _y, pullback = gj.vjp(lambda x: {"u": x, "v": 2 * x}, X)
    h.assert_close(pullback({"v": X, "u": 0 * X}), (2 * X,))
    _, dy = gj.jvp(lambda d: d["u"] - d["v"], ({"u": X, "v": X},), ({"v": 0 * X, "u": X},))
    np.testing.assert_array_equal(dy, X)
    _, lin = gj.linearize(lambda d: d["u"] - d["v"], {"u": X, "v": X})
    np.testing.assert_array_equal(lin({"v": 0 * X, "u": X}), X)


def test_q2_chunks_with_an_output_that_is_not_mapped():
    for chunk_size in (1, 2, 3, 5):
        y, c, label = gj.vmap(lambda x: (x, np.ones(2), "s"), out_dims=(0, None, None), chunk_size=chunk_size)(X)
        np.testing.assert_array_equal(y, X)
        assert (c.shape, label) == ((2,), "s")


def test_q3_chunks_of_an_empty_batch():
    assert gj.vmap(lambda x: x * 2, chunk_size=2)(np.zeros((0, 3))).shape == (0, 3)


def test_q4_and_q5_empty_outputs_and_inputs():
    assert gj.jacrev(lambda x: x[:0], chunk_size=1)(X).shape == (0, 3)
    assert gj.jacfwd(lambda x: np.ones(2))(np.zeros(0)).shape == (2, 0)
    J, aux = gj.jacfwd(lambda x: (x, "aux"), has_aux=True)(np.zeros(0))
    assert (J.shape, aux) == ((0, 0), "aux")


def test_q6_unmapped_output_at_another_axis():
    assert gj.vmap(lambda x: np.ones(4), out_dims=1)(X).shape == (4, 3)


@every_mode
def test_q7_preallocation_under_vmap_with_a_captured_batched_value(transform):
    f = lambda s: transform(lambda x: s * x[::-1], chunk_size=2, assembly="preallocate")(X)
    np.testing.assert_array_equal(gj.vmap(f)(X), X[:, None, None] * np.eye(3)[::-1])


def test_q9_the_gradient_of_an_integer_raises_as_the_pullback_does():
    for call in (lambda: gj.grad(lambda x: (x > 0).sum())(X), lambda: gj.vjp(lambda x: (x > 0).sum(), X),
                 lambda: gj.jacfwd(lambda x: x > 0)(X)):  # fmt: skip
        with pytest.raises(gj.DTypeError):
            call()


def test_q10_a_mapped_index_without_axes():
    table = np.arange(12.0).reshape(4, 3)
    index = np.array([2, 0])
    found = gj.vmap(lambda t, i: np.take(t, i, axis=1), (None, 0))(table, index)
    np.testing.assert_array_equal(found, table[:, index].T)
    found = gj.vmap(lambda t, i: t[:, i], (None, 0))(table, index)
    np.testing.assert_array_equal(found, table[:, index].T)
    found = gj.vmap(lambda t, i: np.take(t, i[None], axis=1), (None, 0))(table, index)
    assert found.shape == (2, 4, 1)


def test_q11_complex_arguments_that_are_not_selected():
    for transform in MODES:
        np.testing.assert_allclose(transform(lambda x, z: x * z.imag)(X, X * 1j), np.diag(X))


def test_q12_one_error_class_for_a_leaf_that_is_no_array():
    for call in (
        lambda: gj.grad(np.sin)("t"),
        lambda: gj.vjp(np.sin, "t"),
        lambda: gj.jacfwd(np.sin)("t"),
        lambda: gj.linearize(np.sin, "t"),
        lambda: gj.jvp(np.sin, ("t",), ("t",)),
        lambda: gj.vmap(np.sin)("t"),
    ):
        with pytest.raises(gj.ArgumentTypeError, match="is a str"):
            call()


def test_q13_chunk_sizes_are_checked_when_the_transform_is_built():
    for bad in (1.5, True, "2"):
        with pytest.raises(gj.ArgumentTypeError):
            gj.jacrev(np.sin, chunk_size=bad)
        with pytest.raises(gj.ArgumentTypeError):
            gj.vmap(np.sin, chunk_size=bad)


@every_mode
@every_chunk
def test_q14_no_nan_off_the_diagonal(transform, chunk_size):
    x = np.array([0.0, 4.0, 0.0])
    for f in (np.sqrt, lambda x: np.cumsum(np.sqrt(x)), lambda x: np.sqrt(x)[::-1] * 2, lambda x: np.cbrt(x) * x.sum()):
        J = transform(f, chunk_size=chunk_size)(x)
        assert not np.isnan(J).any()
    np.testing.assert_array_equal(gj.vmap(gj.grad(lambda s: np.where(s > 0, np.sqrt(s), 0.0)))(x), [0, 0.25, 0])


def test_q15_blocks_are_separate_arrays():
    a, b = gj.jacrev(lambda x: (x, x * 2), chunk_size=None)(X)
    assert (a if a.base is None else a.base).nbytes == a.nbytes
    assert not np.may_share_memory(a, b)


def test_q16_jvp_and_linearize_treat_dtypes_alike():
    x, t = X.astype("f4"), X
    one = gj.jvp(lambda x: x * 2, (x,), (t,))[1]
    other = gj.linearize(lambda x: x * 2, x)[1](t)
    h.assert_same_bits(one, other)


def test_q17_messages_name_what_was_called():
    for name in ("grad", "jacrev", "jacfwd", "jacobian", "hessian"):
        with pytest.raises(gj.DTypeError, match=f"^{name}: "):
            getattr(gj, name)(np.sin)(np.arange(3))


# ---------------------------------------------------------------- other traps


def test_a_pullback_of_an_inner_level_that_outlives_the_outer_one_says_so():
    kept = []

    def outer(x):
        y, pullback = gj.vjp(lambda z: z * x, x)
        kept.append(pullback)
        return y.sum()

    gj.grad(outer)(X)
    with pytest.raises(gj.LeakedTracerError, match="escaped from"):
        kept[0](np.ones(3))


def test_a_write_to_an_array_that_is_not_selected_does_not_reach_the_caller():
    y = np.zeros(3)

    def f(x, y):
        y[1:] = x[:-1]
        return y

    np.testing.assert_array_equal(gj.jacrev(f)(X, y), np.eye(3, k=-1))
    np.testing.assert_array_equal(gj.jacfwd(f)(X, y), np.eye(3, k=-1))
    np.testing.assert_array_equal(gj.vmap(f, (0, None))(np.stack([X, X]), y), [[0, 1, 2]] * 2)
    np.testing.assert_array_equal(y, np.zeros(3))


def test_a_work_buffer_of_an_unselected_argument_receives_traced_values():
    def residual(u, p):
        du = np.zeros_like(u)
        du[1:-1] = p["k"] * (u[2:] - u[:-2])
        return du

    J = gj.jacrev(residual, 1)(X, {"k": np.array(2.0)})
    np.testing.assert_array_equal(J["k"], [0, 2, 0])


def test_the_warnings_of_f_are_numpys_own():
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        gj.grad(lambda x: np.log(x).sum())(np.array([0.0, 1.0]))
    gj.grad(lambda x: np.sqrt(x).sum())(np.array([0.0, 1.0]))  # f does not warn, nor does its slope


def test_duplicate_leaves_in_one_argument():
    np.testing.assert_array_equal(gj.grad(lambda p: (p[0] * p[1]).sum())([X, X])[0], X)
    x = X
    a, b = gj.grad(lambda x, y: (x * 2 + y * 3).sum(), (0, 1))(x, x)
    np.testing.assert_array_equal(a, [2, 2, 2])
    np.testing.assert_array_equal(b, [3, 3, 3])


@pytest.mark.parametrize("n", [1, 2, 8, 9, 64])
def test_every_mode_agrees_on_both_sides_of_the_small_case_rule(n):
    W = np.linspace(-1, 1, n * n).reshape(n, n)
    f = lambda x: np.tanh(W @ x) * x
    x = np.linspace(0.1, 1, n)
    np.testing.assert_allclose(gj.jacrev(f)(x), gj.jacfwd(f)(x), atol=1e-13)


# ---------------------------------------------------------------- numbers of every kind as the point

ON_NUMBERS = {
    "constant array": lambda x: x * np.arange(3.0) + np.ones((2, 1)),
    "reshape": lambda x: np.reshape(x, (1, 1)),
    "stack": lambda x: np.stack([x, x * 2]),
    "broadcast_to": lambda x: np.broadcast_to(x, (3,)),
    "where": lambda x: np.where(np.arange(3) > 1, x, 0.0),
    "sum": lambda x: np.sum(x) * np.prod(x) * np.mean(x),
    "full_like": lambda x: np.full_like(np.ones(3) * x, x),
    "outer": lambda x: np.outer(x, np.ones(2)) @ np.ones(2),
    "dot": lambda x: np.dot(x, np.ones(2)),
    "tensordot": lambda x: np.tensordot(x, np.ones(2), 0),
    "einsum": lambda x: np.einsum("i,->i", np.ones(2), x),
    "maximum": lambda x: np.maximum(x, np.arange(4.0) + 0.5),
    "power": lambda x: x ** np.arange(3),
    "linspace": lambda x: np.linspace(0.0, x, 3),
    "ravel": lambda x: np.ravel(x) * np.atleast_1d(x),
    "python only": lambda x: 3.0 * x**2 - 1 / x + abs(x),
}


@pytest.mark.parametrize("name", list(ON_NUMBERS))
@pytest.mark.parametrize("kind", [float, np.float64, np.float32, np.array])
def test_functions_of_one_number(name, kind):
    f, x = ON_NUMBERS[name], kind(2.0)
    ahead, behind = np.asarray(2.0 + 1e-6), np.asarray(2.0 - 1e-6)
    slope = (np.asarray(f(ahead)) - np.asarray(f(behind))) / (ahead - behind)
    near = {"rtol": 1e-5, "atol": 1e-5}
    for transform in (gj.jacrev, gj.jacfwd):
        np.testing.assert_allclose(transform(f)(x), slope, **near)
    ct = np.cos(np.ones(slope.shape))
    np.testing.assert_allclose(gj.vjp(f, x)[1](ct)[0], (ct * slope).sum(), **near)
    np.testing.assert_allclose(gj.jvp(f, (x,), (1.0,))[1], slope, **near)
    np.testing.assert_allclose(gj.linearize(f, x)[1](1.0), slope, **near)
    g = gj.grad(lambda x: np.sum(f(x) * f(x)))
    curvature = (float(g(2.0 + 1e-5)) - float(g(2.0 - 1e-5))) / 2e-5
    np.testing.assert_allclose(gj.grad(g)(x), curvature, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(gj.hessian(lambda x: np.sum(f(x) * f(x)))(x), curvature, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(gj.vmap(g)(np.full(2, x)), [g(x)] * 2, **near)


@pytest.mark.parametrize("x", [np.ma.array([1.0, 2.0])], ids=["masked"])
def test_array_classes_with_other_operators_are_refused(x):
    with pytest.raises(gj.ArgumentTypeError, match="MaskedArray"):
        gj.grad(lambda x: (x * x).sum())(x)
