"""Views of which several entries are one in memory: a write into them raises, as NumPy's does."""

import numpy as np
import pytest

import gpujac as gj

windows = np.lib.stride_tricks.sliding_window_view
X = np.arange(12.0).reshape(3, 4) ** 2
READ_ONLY = {
    "windows": lambda y: windows(y, 2, 0),
    "windows of both axes": lambda y: windows(y, (2, 2)),
    "a part of windows": lambda y: windows(y, 2, 1)[0],
    "windows of one": lambda y: windows(y, 1, 0),
    "broadcast": lambda y: np.broadcast_to(y, (2, 3, 4)),
    "broadcast to its own shape": lambda y: np.broadcast_to(y, (3, 4)),
    "a part of a broadcast": lambda y: np.broadcast_to(y[0], (3, 4)).T[1:],
    "broadcast together": lambda y: np.broadcast_arrays(y[:, :1], y)[0],
}
WAYS = [lambda f: gj.jvp(f, (X,), (X,)), lambda f: gj.vjp(f, X), lambda f: gj.vmap(f)(np.stack([X, X, X]))]
way = pytest.mark.parametrize("apply", WAYS, ids=["jvp", "vjp", "vmap"])


@way
@pytest.mark.parametrize("take", READ_ONLY.values(), ids=READ_ONLY)
def test_a_write_into_a_read_only_view_raises(take, apply):
    def f(x, write):
        y = x * 1.0
        write(take(y))
        return y

    for write in (lambda v: v.__setitem__((..., 0), 5.0), lambda v: v.__iadd__(1.0), lambda v: v.fill(2.0)):
        with pytest.raises(gj.MutationError, match=r"write into the array itself, or \.copy"):
            apply(lambda x, write=write: f(x, write))
    apply(lambda x: f(x, lambda v: v.copy().fill(1.0)))


@way
@pytest.mark.parametrize("take", READ_ONLY.values(), ids=READ_ONLY)
def test_a_write_into_the_array_is_seen_by_its_view(take, apply):
    def f(x):
        y = x * 1.0
        v = take(y)
        y[0] = x[1] * 2.0
        return v * 1.0

    found = apply(f)
    value = found[0]
    np.testing.assert_allclose(value, f(X))


@way
def test_windows_may_be_written_where_they_ask_for_it_and_lie_apart(apply):
    def f(x, width=1, axis=0):
        y = x * 1.0
        windows(y, width, axis, writeable=True)[..., 0] = x[0, 0] + 7.0
        return y * x

    np.testing.assert_allclose(apply(f)[0], f(X))
    np.testing.assert_allclose(apply(lambda x: f(x, 4, 1))[0], f(X, 4, 1))
    with pytest.raises(gj.MutationError, match="windows overlap"):
        apply(lambda x: f(x, 2, 1))


def test_a_width_of_windows_is_any_whole_number():
    for width in (np.array([2]), np.int64(2), [2], (np.int32(2),)):
        found = gj.jvp(lambda x, width=width: windows(x, width, 0), (X,), (X,))[0]
        np.testing.assert_array_equal(found, windows(X, 2, 0))
    with pytest.raises(gj.ArgumentTypeError, match=r"window_shape=2\.5 is not made of whole numbers"):
        gj.jvp(lambda x: windows(x, 2.5, 0), (X,), (X,))
