"""In-place writes: functional updates behind the name, with NumPy's meaning and right derivatives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpujac as gj
from tests.transforms import helpers as h

X = np.array([0.5, -1.0, 2.0, 1.5])


def slices(x):
    y = np.zeros_like(x)
    y[1:-1] = x[2:] * x[:-2]
    y[0] = 3.0
    y[-1] = x[0] ** 2
    y[::2] += x[1::2]
    return y


def augmented(x):
    y = x.copy()
    y += x**2
    y *= 2.0
    y -= x[::-1]
    y /= 1.0 + x**2
    y **= 2
    return y


def own_argument(x):
    x[1] = x[0] * x[2]
    x += 1.0
    x[x > 2.2] = 0.5
    return x


def views(x):
    y = np.zeros_like(x)
    left, grid = y[:2], y.reshape(2, 2)
    left[:] = x[:2] ** 2
    grid[1] = x[2:] * 3
    grid.T[0, 1] += left[1]
    left *= x[3]
    return y + grid.sum() * left[0]


def masks_and_gathers(x):
    y = np.ones_like(x)
    y[x > 0] = 2.0
    y[[0, 0, 3]] = x[[1, 2, 3]]  # the last write wins
    y[np.array([True, False, False, True])] *= x[1]
    np.add.at(y, [1, 1, 2], x[:3])
    return y


def swaps(x):
    y = x.copy()
    y[0], y[1] = y[1] * 1.0, y[0] * 1.0
    y[:2], y[2:] = y[2:].copy(), y[:2].copy()
    return y * x


def outs(x):
    y = np.empty_like(x)
    np.multiply(x, x, out=y)
    np.add(y, 1.0, out=y)
    return y


def filled(x):
    y = np.full_like(x, x[2])
    z = np.ones_like(x)
    z.fill(x[0])
    y[1] = z[3]
    return y * z


def two_dimensional(x):
    a = np.zeros_like(x, shape=(3, 4))
    a[0] = x
    a[:, 1] = x[:3]
    a[1:, 2:] = x[:2]
    a[2] += a[0] * a[1]
    a[..., -1] = a[..., 0] - x[0]
    return a @ x


def loops(x):
    y = np.zeros_like(x)
    y[0] = x[0]
    for i in range(1, len(x)):
        y[i] = 0.5 * y[i - 1] + np.sin(x[i])
    return y


PROGRAMS = [slices, augmented, own_argument, views, masks_and_gathers, swaps, outs, filled,
            two_dimensional, loops]  # fmt: skip
every_program = pytest.mark.parametrize("f", PROGRAMS)


def fresh(f):
    """NumPy's own answer, on a copy."""
    return lambda x: f(np.array(x))


@every_program
def test_values_and_derivatives_are_numpys(f):
    x = X.copy()
    y, pullback = gj.vjp(f, x)
    np.testing.assert_array_equal(x, X)  # the caller's array is never written into
    np.testing.assert_array_equal(y, fresh(f)(X))
    M = h.difference_matrix(fresh(f), X)
    for transform in (gj.jacrev, gj.jacfwd):
        np.testing.assert_allclose(transform(f)(x), M, atol=1e-7)
    for ct in np.eye(4)[: len(y)]:
        np.testing.assert_allclose(pullback(ct[: len(y)])[0], ct[: len(y)] @ M, atol=1e-7)


@every_program
def test_under_vmap_every_lane_is_numpys(f):
    xs = np.stack([X, X[::-1] + 0.1, X * 2])
    found = gj.vmap(f)(xs)
    np.testing.assert_allclose(found, np.stack([fresh(f)(x) for x in xs]), atol=1e-14)
    J = gj.vmap(gj.jacrev(f))(xs)
    np.testing.assert_allclose(J, np.stack([gj.jacrev(f)(x) for x in xs]), atol=1e-13)
    J = gj.jacfwd(gj.vmap(f))(xs)
    for i in range(3):
        np.testing.assert_allclose(J[i, :, i], gj.jacrev(f)(xs[i]), atol=1e-13)


@every_program
def test_second_derivatives_of_writes(f):
    loss = lambda x: (f(x) ** 2).sum()
    H = gj.hessian(loss)(X)
    np.testing.assert_allclose(H, h.difference_matrix(gj.grad(loss), X), rtol=1e-5, atol=1e-5)


steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "add", "scale", "view", "copy", "reverse", "gather", "mask"]),
        st.integers(0, 3), st.integers(0, 3), st.integers(0, 3),
    ),
    min_size=1, max_size=8,
)  # fmt: skip


def run(program, x):
    """A random program over a list of buffers and views of them, each of four entries or fewer."""
    names = [x.copy(), np.zeros_like(x)]
    for what, i, j, k in program:
        a, b = names[i % len(names)], names[j % len(names)]
        n = min(len(a), len(b))
        if what == "write":
            a[:n] = b[:n] * x[k]
        elif what == "add":
            a[:n] += np.sin(b[:n])
        elif what == "scale":
            a *= x[k]
        elif what == "view":
            names.append(a[k % 2 :])
        elif what == "copy":
            names.append(a.copy())
        elif what == "reverse":
            names.append(a[::-1])
        elif what == "gather":
            a[[k % len(a), 0]] = b[0] * 2
        else:
            a[a > 0.3] = 0.25
    return np.concatenate(names)


@given(program=steps)
def test_random_programs_of_writes_and_views(program):
    f = lambda x: run(program, x)
    y, pullback = gj.vjp(f, X)
    np.testing.assert_allclose(y, run(program, X), rtol=1e-13)
    t = np.array([0.3, -0.7, 0.2, 1.0])
    step = 1e-7
    slope = (run(program, X + step * t) - run(program, X - step * t)) / (2 * step)
    dy = gj.jvp(f, (X,), (t,))[1]
    np.testing.assert_allclose(dy, slope, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(y).max()))
    ct = np.cos(np.arange(y.size))
    assert h.inner(ct, dy) == pytest.approx(h.inner(pullback(ct)[0], t), rel=1e-9, abs=1e-9)


# ---------------------------------------------------------------- what is refused


def test_writing_into_a_captured_array_is_refused():
    captured = np.zeros(4)

    def stores(x):
        captured[0] = x[0]
        return captured

    def adds(x):
        nonlocal captured
        captured += x
        return captured

    with pytest.raises(gj.MutationError, match="zeros_like"):
        gj.grad(lambda x: stores(x).sum())(X)
    with pytest.raises(gj.MutationError, match="zeros_like"):
        gj.grad(lambda x: adds(x).sum())(X)
    with pytest.raises(gj.MutationError, match="zeros_like"):
        gj.grad(lambda x: np.multiply(x, x, out=captured).sum())(X)
    with pytest.raises(gj.MutationError, match="zeros_like"):
        gj.grad(lambda x: (np.add.at(captured, [0], x[0]), x.sum())[1])(X)
    np.testing.assert_array_equal(captured, np.zeros(4))


@pytest.mark.parametrize("inner", [gj.grad, gj.jacfwd, gj.hessian, gj.vmap])
def test_writing_into_an_array_of_an_outer_level_is_refused(inner):
    def outer(x):
        buffer = np.zeros_like(x)

        def f(y):
            buffer[0] = y * y if inner is not gj.vmap else y
            return y * y

        inner(f)(x[0] if inner is not gj.vmap else x)
        return buffer.sum()

    with pytest.raises(gj.MutationError, match="made outside"):
        gj.grad(outer)(X)


def test_an_outer_buffer_may_receive_outer_values_inside():
    def outer(x):
        buffer = np.zeros_like(x)
        y = gj.grad(lambda z: z**3)(x[1])
        buffer[2] = y
        return (buffer * x).sum()

    np.testing.assert_allclose(gj.grad(outer)(X), [0, 6 * X[1] * X[2], 3 * X[1] ** 2, 0])


def test_values_that_do_not_fit_are_refused_before_anything_changes():
    seen = {}

    def f(x):
        y = x * 1.0
        seen["y"] = y
        with pytest.raises(ValueError, match="does not fit"):
            y[:2] = x[:3]
        with pytest.raises(gj.ShapeError):
            y += np.ones((2, 4))
        with pytest.raises(gj.DTypeError, match="lose the derivative"):
            y.astype(np.float32)[...] = y
            np.zeros_like(y, dtype=int)[0] = y[0]
        with pytest.raises(gj.DTypeError):
            y += 1j
        with pytest.raises(IndexError):
            y[7] = 1.0
        return y.sum()

    np.testing.assert_array_equal(gj.grad(f)(X), np.ones(4))


def test_a_write_into_an_outer_array_does_not_reach_the_residuals_of_an_inner_pullback():
    def outer(x):
        y, pullback = gj.vjp(np.exp, x)
        y[...] = 0.0
        x[...] = 0.0
        return pullback(np.ones(4))[0].sum() + y.sum()

    np.testing.assert_allclose(gj.grad(outer)(X), np.exp(X))


def test_a_write_into_the_outputs_does_not_reach_the_residuals():
    for transform in (gj.vjp, gj.linearize):
        y, linear, aux = transform(lambda x: (np.exp(x), x), X, has_aux=True)
        y[...] = 0.0
        aux[...] = 0.0
        (found,) = h.leaves(linear(np.ones(4)))
        np.testing.assert_allclose(found, np.exp(X))


def test_a_captured_outer_array_written_between_two_uses_inside():
    def outer(c):
        def inner(x):
            y = x * c
            c[0] = 5.0 * c[1]
            return (y * c).sum()

        return gj.grad(inner)(X)

    def plain(c):
        before = c.copy()
        after = c.copy()
        after[0] = 5.0 * c[1]
        return before * after

    c = np.array([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(gj.jacfwd(outer)(c), h.difference_matrix(plain, c), atol=1e-6)
    y, _ = gj.vjp(outer, c)
    np.testing.assert_allclose(y, plain(c))


def test_a_plain_buffer_reused_inside_f_keeps_each_of_its_values():
    table = np.arange(12.0).reshape(3, 4)

    def f(x):
        row, total = np.empty(4), 0.0
        for values in table:
            row[:] = values
            total = total + (row * x * x).sum() + row @ x
        return total

    np.testing.assert_allclose(gj.grad(f)(X), 2 * table.sum(0) * X + table.sum(0))
    np.testing.assert_allclose(gj.jacfwd(f)(X), 2 * table.sum(0) * X + table.sum(0))
