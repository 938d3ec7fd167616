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


# ---------------------------------------------------------------- rules that somebody wrote, and linear functions

LAYOUTS = [
    pytest.param(lambda shape: np.zeros(shape), id="C"),
    pytest.param(lambda shape: np.zeros(shape, order="F"), id="F"),
    pytest.param(lambda shape: np.zeros((shape[0], 2 * shape[1]))[:, ::2], id="strided"),
]
SHAPES = [(3, 3), (2, 5), (90, 70)]  # square and not; the last is not copied but held
FOUR = [
    pytest.param(lambda f, x: gj.grad(lambda x: f(x).sum())(x), id="grad"),
    pytest.param(lambda f, x: gj.vjp(f, x)[1](np.ones_like(x))[0], id="vjp"),
    pytest.param(lambda f, x: gj.linearize(f, x)[1](np.ones_like(x)), id="linearize"),
    pytest.param(lambda f, x: gj.jvp(f, (x,), (np.ones_like(x),))[1], id="jvp"),
]


def sine_with_a_tangent_rule(work):
    """sin, whose tangent rule makes its coefficient in `work` and uses that for something else."""
    f = gj.custom_jvp(lambda x: np.sin(x))

    def rule(primals, tangents):
        work[...] = np.cos(gj.value(primals[0]))
        dy = work * tangents[0]
        work[...] = 7.0
        return np.sin(primals[0]), dy

    f.defjvp(rule)
    return f


def sine_with_a_cotangent_rule(work):
    """sin, whose cotangent rule does the same; forward mode transposes it."""
    f = gj.custom_vjp(lambda x: np.sin(x))

    def bwd(x, ct):
        work[...] = np.cos(x)
        out = work * ct
        work[...] = 7.0
        return (out,)

    f.defvjp(lambda x: (np.sin(x), x), bwd)
    return f


@pytest.mark.parametrize("made", [sine_with_a_tangent_rule, sine_with_a_cotangent_rule])
@pytest.mark.parametrize("transform", FOUR)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_rule_may_use_its_work_array_again_or_is_told_that_it_may_not(made, transform, layout, shape, rng):
    """Right, or an error: never a wrong derivative, whoever records the rule."""
    work, x = layout(shape), rng.standard_normal(shape)
    told, found = None, None
    try:
        found = transform(made(work), x)
    except ValueError as error:
        told = str(error)
    assert told is None or ("read-only" in told and shape == SHAPES[-1])
    if told is None:
        np.testing.assert_allclose(found, np.cos(x), rtol=1e-14)
    work[...] = 0.0  # nothing is held any longer


@pytest.mark.parametrize("transform", FOUR[:3])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES[:2])
def test_a_rule_reads_a_captured_buffer_as_it_was_when_the_rule_ran(transform, layout, shape):
    buffer = layout(shape)
    f = gj.custom_jvp(lambda x: x * buffer)
    f.defjvp(lambda primals, tangents: (primals[0] * buffer, tangents[0] * buffer))

    def filled_again(x):
        y = x
        for scale in (2.0, 3.0):
            buffer[...] = scale
            y = f(y)
        return y

    np.testing.assert_array_equal(transform(filled_again, np.ones(shape)), np.full(shape, 6.0))


def test_a_rule_reads_a_captured_matrix_and_an_index_as_they_were():
    matrix, index, mask = np.arange(6.0).reshape(2, 3), np.array([0, 2]), np.array([True, False])
    f = gj.custom_jvp(lambda x: np.where(mask, matrix @ x, 0.0) + x[index])
    f.defjvp(lambda xs, ts: (f(*xs), np.where(mask, matrix @ ts[0], 0.0) + ts[0][index]))
    _, pullback = gj.vjp(f, np.ones(3))
    matrix[:], index[:], mask[:] = 9.0, 1, True
    np.testing.assert_array_equal(pullback(np.array([1.0, 10.0]))[0], [1.0, 1.0, 12.0])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES[:2])
def test_a_linear_function_is_transposed_with_its_constants_as_they_were(layout, shape):
    buffer = layout(shape)

    def f(x):
        buffer[...] = 2.0
        y = x * buffer
        buffer[...] = 5.0
        return y

    ft = gj.linear_transpose(f, np.zeros(shape))
    buffer[...] = 7.0
    np.testing.assert_array_equal(ft(np.ones(shape))[0], np.full(shape, 2.0))


def test_a_transposed_function_notices_a_write_into_a_large_constant():
    c = np.full(LARGE, 2.0)
    ft = gj.linear_transpose(lambda x: c * x, np.zeros(LARGE))
    assert np.array_equal(ft(np.ones(LARGE))[0], c)
    assert c.flags.writeable
    c[0] = 3.0
    with pytest.raises(gj.MutationError, match=r"linear_transpose: an array of shape .* written into since"):
        ft(np.ones(LARGE))
