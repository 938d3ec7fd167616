"""Plain arrays that a function reads and the user writes into: never a silently wrong derivative."""

import threading

import numpy as np
import pytest

import gpujac as gj

SMALL, LARGE = 3, 10_000


def with_a_work_buffer(n):
    def f(x):
        buffer, total = np.empty(n), 0.0
        for k in range(3):
            buffer[:] = k
            total = total + (x * buffer).sum()
        return total

    return f


def test_a_small_work_buffer_is_read_as_it_was():
    assert np.array_equal(gj.grad(with_a_work_buffer(SMALL))(np.ones(SMALL)), np.full(SMALL, 3.0))


def test_a_large_work_buffer_is_read_only_with_a_note_that_says_why():
    with pytest.raises(ValueError, match="read-only") as caught:
        gj.grad(with_a_work_buffer(LARGE))(np.ones(LARGE))
    assert "use a fresh array or .copy() there" in caught.value.__notes__[0]


@pytest.mark.parametrize("n", [SMALL, LARGE])
@pytest.mark.parametrize("transform", [gj.grad, gj.jacrev, gj.jacfwd])
def test_constants_are_writable_again_afterwards(n, transform):
    c = np.ones(n)
    transform(lambda x: (c * x).sum() * x[0] / n)(np.ones(n))
    c[:] = 2.0
    assert c.flags.writeable


def test_constants_are_writable_again_after_an_error():
    c = np.ones(LARGE)

    def f(x):
        raise KeyError((c * x).sum())

    with pytest.raises(KeyError):
        gj.grad(f)(np.ones(LARGE))
    assert c.flags.writeable


def test_an_array_that_was_read_only_stays_read_only():
    c = np.ones(LARGE)
    c.flags.writeable = False
    gj.grad(lambda x: (c * x).sum())(np.ones(LARGE))
    assert not c.flags.writeable


def test_two_transforms_at_once_release_a_constant_when_both_are_done():
    c = np.ones(LARGE)
    inside, go_on = threading.Event(), threading.Event()

    def slow(x):
        y = (c * x).sum()
        inside.set()
        go_on.wait(10)
        return y

    thread = threading.Thread(target=gj.grad(slow), args=(np.ones(LARGE),))
    thread.start()
    inside.wait(10)
    gj.grad(lambda x: (c * x).sum())(np.ones(LARGE))
    assert not c.flags.writeable
    go_on.set()
    thread.join()
    assert c.flags.writeable


def test_a_pullback_does_not_see_writes_into_primals_and_small_constants():
    c, x = np.array([2.0, 3.0, 4.0]), np.ones(3)
    _, pullback = gj.vjp(lambda x: c * x * x, x)
    c[:], x[:] = 0.0, 100.0
    assert np.array_equal(pullback(np.ones(3))[0], [4.0, 6.0, 8.0])


@pytest.mark.parametrize("write", [lambda c: c.__imul__(3.0), lambda c: c.__setitem__(0, 7.0)])
def test_a_pullback_and_a_linear_map_notice_writes_into_large_constants(write):
    for make, call in ((gj.vjp, lambda p: p(1.0)), (gj.linearize, lambda p: p(np.ones(LARGE)))):
        c = np.full(LARGE, 2.0)
        _, linear = make(lambda x, c=c: (c * x).sum(), np.ones(LARGE))
        call(linear)
        write(c)
        with pytest.raises(gj.MutationError, match="written into since"):
            call(linear)


@pytest.mark.parametrize("order", ["owner first", "view first"])
def test_a_constant_and_a_view_of_it_are_both_writable_again(order):
    c = np.ones((LARGE, 2))
    view = c.T
    x = np.ones(LARGE)

    def f(x):
        if order == "owner first":
            return (x @ c).sum() + (view @ x).sum()
        return (view @ x).sum() + (x @ c).sum()

    gj.grad(f)(x)
    assert c.flags.writeable
    assert view.flags.writeable
    view[:] = 2.0


def test_a_constant_that_an_inner_transform_held_stays_held_for_the_outer_one():
    """Both read it; the inner one ends first, and the function writes into it afterwards."""
    wide = np.linspace(0.0, 1.0, 8000)

    def f(x):
        inner = gj.grad(lambda u: (u * x * wide).sum())(2.0)
        wide[0] = 7.0
        return inner * x

    with pytest.raises(ValueError, match="read-only"):
        gj.grad(f)(3.0)
    assert wide.flags.writeable
