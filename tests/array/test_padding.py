"""pad in every mode and with every width, and sliding windows: values, derivatives, both transposes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpujac as gj
import gpujac.numpy as gnp
from gpujac.backends.choose import backend_of
from gpujac.ops import window as wd
from tests import device
from tests import oracles as orc
from tests.ops.catalogue import LIBRARIES

if not device.MISSING:
    from gpujac.backends import emulated

X = np.array([[0.3, -1.2, 0.7], [1.9, 0.4, -0.6], [-0.8, 2.2, 1.1], [0.9, -1.7, 0.2]])
GATHERED = ("edge", "reflect", "symmetric", "wrap")
WIDTHS = [0, 1, (2, 3), ((1, 2), (0, 5)), ((9, 17), (11, 0)), [[1], [2]], {0: (2, 1)}, {-1: 3}]
OPTIONS = {
    "constant": [{}, {"constant_values": 2.5}, {"constant_values": (5, 6)}, {"constant_values": ((1, 2), (3, 4.0))}],
    "edge": [{}], "wrap": [{}],
    "linear_ramp": [{}, {"end_values": 5}, {"end_values": ((1, 2), (3, -4.0))}],
    **{name: [{}, {"stat_length": 2}, {"stat_length": ((1, 2), (9, 1))}]
       for name in ("maximum", "mean", "median", "minimum")},
    **{name: [{}, {"reflect_type": "even"}, {"reflect_type": "odd"}] for name in ("reflect", "symmetric")},
}  # fmt: skip
EVERY_CALL = [(mode, options) for mode, rows in OPTIONS.items() for options in rows]
every_call = pytest.mark.parametrize(("mode", "options"), EVERY_CALL, ids=lambda x: str(x))
every_library = pytest.mark.parametrize(
    "library",
    [
        pytest.param(n, marks=pytest.mark.skipif(n == "cupy" and bool(device.MISSING), reason=device.MISSING or "-"))
        for n in ("numpy", "strict", "cupy")
    ],
)


def widths_of(rank):
    """Widths of one axis of length 4 to 5, in all combinations: none, some, most, beyond, negative."""
    one = [(0, 0), (1, 2), (3, 3), (-1, 2), (2, -2), (9, 4)]
    if rank == 3:  # not all of them
        return [(a, b, c) for a, b in itertools.pairwise(one) for c in one]
    return itertools.product(one, repeat=rank)


def on(library, x):
    return LIBRARIES[library].array(x)


# ---------------------------------------------------------------- values and derivatives


@every_call
def test_values_are_numpys_for_every_form_of_width(mode, options):
    for widths in WIDTHS:
        want = np.pad(X, widths, mode, **options)
        for xp in (np, gnp):
            got = gj.jvp(lambda x, xp=xp, w=widths: xp.pad(x, w, mode, **options), (X,), (X,))[0]
            np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-13, err_msg=f"{widths}")
            assert got.dtype == want.dtype


@every_call
def test_both_jacobians_are_those_of_numpys_pad(mode, options):
    for widths in (((1, 2), (0, 3)), ((6, 0), (1, 7))):
        want = orc.numeric_jacobian(lambda x, w=widths: np.pad(x, w, mode, **options), (X,))
        for jacobian in (gj.jacrev, gj.jacfwd):
            J = jacobian(lambda x, w=widths: np.pad(x, w, mode, **options), chunk_size=5)(X)
            np.testing.assert_allclose(J, want, atol=1e-9)


@every_call
def test_vmap_and_batched_second_derivatives_equal_loops(mode, options):
    batch = np.stack([X, X[::-1] * 1.3, X - 0.4], 1)  # the mapped axis in the middle

    def f(x):
        return np.pad(x, ((2, 1), (0, 5)), mode, **options)

    def loss(x):
        return np.sum(np.sin(f(x)) * np.arange(7.0)[:, None])

    lanes = [batch[:, i] for i in range(3)]
    np.testing.assert_allclose(gj.vmap(f, 1)(batch), [f(x) for x in lanes], rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(gj.vmap(gj.jacrev(f), 1)(batch), [gj.jacfwd(f)(x) for x in lanes], atol=1e-13)
    np.testing.assert_allclose(gj.vmap(gj.hessian(loss), 1)(batch), [gj.hessian(loss)(x) for x in lanes], atol=1e-12)


@every_call
def test_whole_numbers_and_single_precision_keep_their_dtype(mode, options):
    for x in (X.astype(np.float32), np.arange(12).reshape(4, 3) % 5):
        want = np.pad(x, ((2, 1), (0, 3)), mode, **options)
        got = gj.vmap(lambda x: np.pad(x, ((2, 1), (0, 3)), mode, **options))(x[None])[0]
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", GATHERED)
def test_complex_arrays_have_the_adjoint_as_their_pullback(mode):
    z = X + 1j * X[::-1]
    y, pullback = gj.vjp(lambda z: np.pad(z, ((2, 3), (1, 1)), mode), z)
    np.testing.assert_allclose(y, np.pad(z, ((2, 3), (1, 1)), mode))
    ct = y * (1 - 2j) + 0.3
    assert np.isclose(orc.inner(pullback(ct)[0], z), orc.inner(ct, y))


@every_library
@pytest.mark.parametrize("mode", ["constant", *GATHERED, "mean", "linear_ramp"])
def test_every_library_gives_the_same(library, mode):
    def f(x):
        return x.__array_namespace__().pad(x, ((2, 1), (0, 4)), mode)

    y, pullback = gj.vjp(f, on(library, X))
    assert isinstance(y, LIBRARIES[library].type)
    want, plain = gj.vjp(lambda x: np.pad(x, ((2, 1), (0, 4)), mode), X)
    np.testing.assert_allclose(device.host(y), want, rtol=1e-13)
    np.testing.assert_allclose(device.host(pullback(y)[0]), plain(want)[0], rtol=1e-12)


# ---------------------------------------------------------------- the two forms of the transpose


@every_library
@pytest.mark.parametrize("mode", GATHERED)
@pytest.mark.parametrize("shape", [(5,), (4, 5), (4, 5, 4)], ids=str)
def test_gathers_and_scatters_are_the_dense_transpose(library, mode, shape):
    if library == "strict" and len(shape) == 3:
        shape = (2, 3, 2)  # its scatter is one write per entry
    rng = np.random.default_rng(3)
    for widths in widths_of(len(shape)):
        if any(n + min(w) < 0 or n + sum(w) < 0 for n, w in zip(shape, widths, strict=True)):
            continue
        op = wd.fold_border(shape, mode, widths)
        if not op.axes or (library == "strict" and math.prod(op.src) > 150):
            continue
        ct = rng.standard_normal((2, *op.src))
        there = on(library, ct)
        be = backend_of(there)
        gathers, scatters = (device.host(form(be, op, there)) for form in (wd.gathered, wd.scattered))
        np.testing.assert_allclose(gathers, scatters, atol=1e-13, err_msg=f"{widths}")
        if library == "numpy":
            eye = np.eye(math.prod(op.dst)).reshape(-1, *op.dst)
            dense = op.transposed(eye).reshape(len(eye), -1)  # one row per entry inside
            np.testing.assert_allclose(gathers, (ct.reshape(2, -1) @ dense.T).reshape(gathers.shape), atol=1e-12)


@pytest.mark.parametrize(("mode", "most"), [("reflect", 1), ("symmetric", 0)])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_no_width_and_the_largest_of_one_reflection_are_numpys(mode, most, rank):
    shape = (4, 3, 5)[:rank]
    x = np.random.default_rng(1).standard_normal(shape)
    for widths in (((0, 0),) * rank, tuple((n - most, n - most) for n in shape)):
        y, pullback = gj.vjp(lambda x, w=widths: np.pad(x, w, mode), x)
        np.testing.assert_array_equal(y, np.pad(x, widths, mode))
        counts = np.zeros(x.size)
        np.add.at(counts, np.pad(np.arange(x.size).reshape(shape), widths, mode), 1)
        np.testing.assert_array_equal(pullback(np.ones(y.shape))[0].ravel(), counts)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    data=st.data(),
    mode=st.sampled_from(GATHERED),
)
def test_both_forms_agree_with_the_positions_that_were_read(shape, data, mode):
    widths = tuple(
        data.draw(st.tuples(st.integers(-n, 6), st.integers(-n, 6)).filter(lambda w, n=n: n + sum(w) >= 0))
        for n in shape
    )
    op = wd.fold_border(tuple(shape), mode, widths)
    if not op.axes:
        return
    ct = np.arange(1.0, 1.0 + math.prod(op.src)).reshape(op.src)
    be = backend_of(ct)
    inside = np.arange(math.prod(op.dst)).reshape(op.dst)
    read = wd.border(tuple(shape), mode, widths)(inside)
    want = np.bincount(read.ravel(), ct.ravel(), inside.size).reshape(op.dst)
    np.testing.assert_allclose(wd.gathered(be, op, ct), want)
    np.testing.assert_allclose(wd.scattered(be, op, ct), want)


@pytest.mark.skipif(device.NAME != "emulated" or bool(device.MISSING), reason="launches are counted without a card")
@pytest.mark.parametrize(
    ("widths", "combinations"),
    [(((1, 2), (3, 1)), 9), (((0, 2), (3, 0)), 4), (((0, 0), (0, 2)), 2), (((0, 0), (3, 3)), 3), (((1, 1),) * 3, 27)],
)
def test_the_gathers_launch_once_per_combination_that_is_not_empty(widths, combinations):
    op = wd.fold_border((4, 5, 4)[: len(widths)], "reflect", widths)
    ct = device.array(np.random.default_rng(0).standard_normal((3, *op.src)))
    with gj.settings.override(kernels="off"), emulated.counting() as n:
        y = op(ct)
    assert (n.launches, n.uploads, n.syncs) == (combinations, 0, 0)
    np.testing.assert_allclose(device.host(y), op(device.host(ct)))


@pytest.mark.skipif(device.NAME != "emulated" or bool(device.MISSING), reason="launches are counted without a card")
def test_the_border_itself_takes_one_launch_per_run_and_no_upload():
    op = wd.border((4, 5), "symmetric", ((1, 2), (0, 3)))
    x = device.array(X[:, [0, 1, 2, 1, 0]])
    with gj.settings.override(kernels="off"), emulated.counting() as n:
        y = op(x)
    assert (n.launches, n.uploads, n.syncs) == (3 + 2, 0, 0)
    np.testing.assert_array_equal(device.host(y), np.pad(device.host(x), ((1, 2), (0, 3)), "symmetric"))


@pytest.mark.slow
@pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
@pytest.mark.parametrize("deterministic", [False, True])
def test_both_forms_agree_with_the_kernels_of_gpujac(deterministic):
    op = wd.fold_border((4, 5), "symmetric", ((3, 9), (0, 2)))
    ct = np.random.default_rng(5).standard_normal((2, *op.src))
    there = device.array(ct)
    be = backend_of(there)
    with gj.settings.override(kernels="auto", deterministic=deterministic):
        for form in (wd.gathered, wd.scattered):
            np.testing.assert_allclose(device.host(form(be, op, there)), op(ct), atol=1e-13)
        x = device.array(X[0])
        J = gj.jacrev(lambda x: device.XP.pad(x, 40, "reflect"))(x)
    np.testing.assert_array_equal(device.host(J), gj.jacrev(lambda x: np.pad(x, 40, "reflect"))(X[0]))


def test_a_long_border_is_scattered_unless_the_order_must_be_fixed():
    x = np.array([1.0, 2.0])
    f = gj.jacrev(lambda x: np.pad(x, 40, "symmetric"))
    with gj.settings.override(deterministic=True):
        fixed = f(x)
    np.testing.assert_array_equal(f(x), fixed)
    assert fixed.sum(0).tolist() == [41.0, 41.0]


# ---------------------------------------------------------------- negative widths: beyond NumPy


@pytest.mark.parametrize("mode", ["constant", *GATHERED])
@pytest.mark.parametrize("widths", [(-1, 2), ((-2, 0), (3, -1)), ((0, -4), (1, 1)), -1, {1: (-1, 4)}], ids=str)
def test_a_negative_width_cuts_the_border_that_would_be_there_without_it(mode, widths):
    if mode == "reflect" and widths == ((0, -4), (1, 1)):
        widths = ((0, -3), (1, 1))
    pairs = [(0, 0), widths[1]] if isinstance(widths, dict) else np.broadcast_to(widths, (2, 2)).tolist()
    whole = np.pad(X, [(max(a, 0), max(b, 0)) for a, b in pairs], mode)
    key = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(whole.shape, pairs, strict=True))
    np.testing.assert_array_equal(gnp.pad(X, widths, mode), whole[key])
    for f in (lambda x: np.pad(x, widths, mode), lambda x: gnp.pad(x, widths, mode)):
        y, pullback = gj.vjp(f, X)
        np.testing.assert_array_equal(y, whole[key])
        t = np.cos(X)
        dy = gj.jvp(f, (X,), (t,))[1]
        assert np.isclose(np.vdot(pullback(y)[0], t), np.vdot(y, dy))


def test_what_is_cut_is_no_view_of_the_array():
    x = X.copy()
    y = gnp.pad(x, -1)
    y[...] = 0
    np.testing.assert_array_equal(x, X)
    assert gnp.pad([1.0, 2.0, 3.0], (-1, 0)).tolist() == [2.0, 3.0]


@pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
def test_gpujac_cupy_crops_plain_and_traced_arrays_alike():
    x = device.array(X)
    f = lambda x: device.XP.pad(x, ((-1, 1), (2, -1)), "edge")
    np.testing.assert_array_equal(device.host(f(x)), device.host(gj.jvp(f, (x,), (x,))[0]))
    np.testing.assert_array_equal(device.host(f(x)), gnp.pad(X, ((-1, 1), (2, -1)), "edge"))


# ---------------------------------------------------------------- other derivatives


def test_border_values_and_ramp_ends_carry_derivatives():
    def f(x, v, w):
        return np.pad(x, ((1, 2), (2, 1)), constant_values=((v, 2.0), (w[0], w[1]))) * np.arange(42.0).reshape(7, 6)

    def ramp(x, v):
        return np.pad(x, (2, 3), "linear_ramp", end_values=(v, 2 * v))

    args = X, np.float64(0.7), np.array([0.3, -0.4])
    for g, xs in ((f, args), (ramp, (X[0], np.float64(0.7)))):
        everything = tuple(range(len(xs)))
        for p, (a, b) in enumerate(zip(gj.jacrev(g, everything)(*xs), gj.jacfwd(g, everything)(*xs), strict=True)):
            want = orc.numeric_jacobian(lambda *xs, g=g: np.asarray(g(*xs)), xs, p)
            np.testing.assert_allclose(a, want, atol=1e-9)
            np.testing.assert_allclose(b, want, atol=1e-9)


def test_all_border_values_as_one_traced_table():
    f = lambda v: np.pad(X, 1, constant_values=v).sum()
    g = lambda x, v: np.pad(x, 1, constant_values=v).sum()
    table = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert np.isclose(f(table), g(X, table))
    np.testing.assert_array_equal(gj.grad(g, 1)(X, table), [[3.0, 3.0], [6.0, 6.0]])


def test_a_function_of_ones_own_writes_the_border():
    def mirror(vector, widths, axis, options):
        if widths[0]:
            vector[: widths[0]] = options["factor"] * vector[widths[0]] + axis
        if widths[1]:
            vector[-widths[1] :] = vector[0]

    f = lambda x: np.pad(x, ((1, 1), (0, 2)), mirror, factor=3.0)
    y, _ = gj.jvp(f, (X,), (X,))
    np.testing.assert_allclose(y, f(X))
    want = orc.numeric_jacobian(f, (X,))
    np.testing.assert_allclose(gj.jacrev(f)(X), want, atol=1e-9)
    np.testing.assert_allclose(gj.jacfwd(f)(X), want, atol=1e-9)


def test_ties_of_an_extreme_in_the_border_share_as_everywhere():
    x = np.array([1.0, 3.0, 3.0])
    np.testing.assert_array_equal(gj.grad(lambda x: np.pad(x, (2, 0), "maximum").sum())(x), [1.0, 2.0, 2.0])


ERRORS = [
    (lambda x: np.pad(x, 1.5), gj.ArgumentTypeError, r"pad_width=1\.5 is not made of whole numbers"),
    (lambda x: np.pad(x, (1, 2, 3)), gj.ShapeError, r"pad_width=\(1, 2, 3\) for an array of 2 axes"),
    (lambda x: np.pad(x, {5: 1}), gj.AxisError, r"pad: axis=5"),
    (lambda x: np.pad(x, 1, "mirror"), gj.ArgumentError, r"mode='mirror' is not one of 'constant', 'edge'"),
    (lambda x: np.pad(x, 1, "edge", constant_values=1), gj.ArgumentError, r"constant_values= is no option of .*'edge'"),
    (lambda x: np.pad(x, 1, "reflect", reflect_type="up"), gj.ArgumentError, r"reflect_type='up'"),
    (lambda x: np.pad(x, -1, "mean"), gj.ArgumentError, r"only 'constant'.* do, not 'mean'"),
    (lambda x: np.pad(x, (-3, -2)), gj.ShapeError, r"pad_width=\(-3, -2\) crops more than axis 0 of shape \(4, 3\)"),
    (lambda x: np.pad(x[:0], 1, "edge"), gj.ShapeError, r"axis 0 of shape \(0, 3\) has no entries"),
    (lambda x: np.pad(x, 1, "mean", stat_length=0), gj.ArgumentError, r"stat_length=0 leaves nothing"),
    (lambda x: np.pad(x, 1, constant_values=np.zeros((1, 1, 2))), gj.ShapeError, r"_values of shape \(1, 1, 2\)"),
    (lambda x: windows_of(x, 9, 0), gj.ShapeError, r"a window of 9 along axis 0 of shape \(4, 3\)"),
    (lambda x: windows_of(x, (2, 2), 0), gj.ShapeError, r"window_shape=\(2, 2\) for axis=0"),
    (lambda x: windows_of(x, 2), gj.ShapeError, r"window_shape=\(2,\) for 2 axes"),
]  # fmt: skip


@pytest.mark.parametrize(("f", "error", "message"), ERRORS, ids=[row[2] for row in ERRORS])
def test_a_wrong_argument_is_named(f, error, message):
    with pytest.raises(error, match=message):
        gj.jvp(f, (X,), (X,))


def test_an_array_without_entries_may_keep_its_empty_axis():
    assert gj.jvp(lambda x: np.pad(x, ((0, 0), (2, 1)), "edge"), (X[:0],), (X[:0],))[0].shape == (0, 6)
    assert gj.jvp(lambda x: np.pad(x, ((1, 0), (2, 1))), (X[:0],), (X[:0],))[0].shape == (1, 6)


# ---------------------------------------------------------------- sliding windows

windows_of = np.lib.stride_tricks.sliding_window_view


@pytest.mark.parametrize(
    ("shape", "axis"), [((2, 3), None), (2, 0), ((2, 2), (1, 0)), ((2, 2), (0, 0)), (3, -1)], ids=str
)
def test_windows_are_numpys_and_both_jacobians_agree(shape, axis):
    f = lambda x: windows_of(x, shape, axis)
    np.testing.assert_array_equal(gj.jvp(f, (X,), (X,))[0], f(X))
    want = orc.numeric_jacobian(f, (X,))
    np.testing.assert_allclose(gj.jacrev(f)(X), want, atol=1e-9)
    np.testing.assert_allclose(gj.jacfwd(f)(X), want, atol=1e-9)
    batch = np.stack([X, 2 * X], -1)
    np.testing.assert_array_equal(gj.vmap(f, -1)(batch), [f(X), f(2 * X)])


def test_windows_see_later_writes_into_their_array():
    def f(x):
        x = x * 1.0
        windows = windows_of(x, 2, 0)
        x[1] = x[0] ** 2
        return windows

    np.testing.assert_array_equal(gj.jvp(f, (X,), (X,))[0], f(X))
    np.testing.assert_allclose(gj.jacrev(f)(X), gj.jacfwd(f)(X))


@every_library
def test_a_moving_average_and_a_pooling_layer_on_every_library(library):
    def f(x):
        windows = wd.windows((4, 3), 2)(x)
        return windows.max(-1) * windows.mean(-1) if library != "strict" else (windows * windows).sum(-1)

    found = gj.vjp(f, on(library, X))
    wanted = gj.vjp(f, X)
    np.testing.assert_allclose(device.host(found[0]), wanted[0])
    np.testing.assert_allclose(device.host(found[1](found[0])[0]), wanted[1](wanted[0])[0])


@pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
def test_cupys_sliding_windows_are_reached_by_their_own_name():
    tricks = device.XP.lib.stride_tricks
    y, pullback = gj.vjp(lambda x: tricks.sliding_window_view(x, 2, 1), device.array(X))
    np.testing.assert_array_equal(device.host(y), windows_of(X, 2, 1))
    assert device.host(pullback(y)[0]).shape == X.shape


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("mode", ["edge", "wrap", "reflect", "symmetric"])
def test_runs_copy_what_positions_say(mode):
    for n, before, after in itertools.product((1, 2, 3, 5), (-7, -1, 0, 2, 9), (-7, -2, 0, 1, 12)):
        if n + before + after < 0:
            continue
        found = np.full(n + before + after, -1)
        for run in wd.runs_of(mode, n, before, after):
            assert run.start >= 0
            found[run.outside] = np.arange(n)[run.inside]
        np.testing.assert_array_equal(found, wd.positions(mode, n, before, after))


def test_a_border_on_the_host_needs_no_runs_and_long_positions_are_not_kept():
    op = wd.border((3, 50_000), "reflect", ((0, 0), (2, 3)))
    x = np.arange(150_000.0).reshape(3, 50_000)
    np.testing.assert_array_equal(op(x), np.pad(x, ((0, 0), (2, 3)), "reflect"))
    assert "runs" not in vars(op)
    assert wd.positions("reflect", 50_000, 2, 3) is not wd.positions("reflect", 50_000, 2, 3)
    assert wd.positions("reflect", 50, 2, 3) is wd.positions("reflect", 50, 2, 3)
