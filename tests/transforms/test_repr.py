"""Traced arrays show one marker per level, the outermost transform first, and their value."""

import numpy as np
import pytest

import gpujac as gj
from gpujac.core.trace import payload

X = np.array([1.0, 0.5, 2.0])


def shown_by(transform, *args):
    """The repr of the array that a function receives under a transform."""
    seen = []

    def f(x):
        seen.append(repr(x))
        return x * 1.0

    transform(f)(*args)
    return seen[0]


def summed(f):
    return lambda x: f(x).sum()


LEVELS = {
    "Traced<grad>([1. , 0.5, 2. ], shape (3,), float64)": lambda f: gj.grad(summed(f)),
    "Traced<vjp>([1. , 0.5, 2. ], shape (3,), float64)": lambda f: lambda x: gj.vjp(f, x),
    "Traced<jvp>([1. , 0.5, 2. ], shape (3,), float64)": lambda f: lambda x: gj.jvp(f, (x,), (x,)),
    "Traced<jacfwd>([1. , 0.5, 2. ], shape (3,), float64)": gj.jacfwd,
    "Traced<linearize>([1. , 0.5, 2. ], shape (3,), float64)": lambda f: lambda x: gj.linearize(f, x),
    "Traced<linear_transpose>(no value, shape (3,), float64)": lambda f: lambda x: gj.linear_transpose(f, x),
    "Traced<checkpoint>([1. , 0.5, 2. ], shape (3,), float64)":
        lambda f: gj.grad(summed(gj.checkpoint(f))),
    "Traced<vmap, 3 lanes>(Traced<checkpoint>([1. , 0.5, 2. ], shape (), float64))":
        lambda f: gj.vmap(gj.grad(gj.checkpoint(f))),
    "Traced<vmap, 3 lanes>([1. , 0.5, 2. ], shape (), float64)": gj.vmap,
    "Traced<grad>(Traced<grad>([1. , 0.5, 2. ], shape (3,), float64))":
        lambda f: gj.grad(summed(gj.grad(summed(f)))),
    "Traced<vmap, 3 lanes>(Traced<grad>([1. , 0.5, 2. ], shape (), float64))":
        lambda f: gj.vmap(gj.grad(f)),
    "Traced<grad>(Traced<vmap, 3 lanes>([1. , 0.5, 2. ], shape (), float64))":
        lambda f: gj.grad(summed(gj.vmap(f))),
    "Traced<jacfwd>(Traced<jvp>(Traced<vmap, 3 lanes>([1. , 0.5, 2. ], shape (), float64)))":
        lambda f: gj.jacfwd(lambda x: gj.jvp(gj.vmap(f), (x,), (X,))[1]),
}  # fmt: skip


@pytest.mark.parametrize("text", list(LEVELS))
def test_one_marker_for_each_level(text):
    assert shown_by(LEVELS[text], X) == text


def test_an_array_that_outlived_a_checkpoint_says_so():
    kept = []
    gj.grad(gj.checkpoint(lambda x: (kept.append(2.0 * x), x.sum())[1]))(X)
    assert repr(kept[0]) == "Traced<checkpoint, finished>([2., 1., 4.], shape (3,), float64)"


def test_two_vmaps_show_their_lanes_in_front():
    batch = np.arange(6.0).reshape(2, 3)
    text = "Traced<vmap, 2 lanes>(Traced<vmap, 3 lanes>([[0., 1., 2.], [3., 4., 5.]], shape (), float64))"
    assert shown_by(lambda f: gj.vmap(gj.vmap(f)), batch) == text
    assert shown_by(lambda f: gj.vmap(gj.vmap(f), in_dims=1), batch.T.copy()) == text
    text = "Traced<vmap, 3 lanes>([[0., 3.], [1., 4.], [2., 5.]], shape (2,), float64)"
    assert shown_by(lambda f: gj.vmap(f, in_dims=1), batch) == text
    seen = []
    f = lambda x: (seen.append(repr(x)), x)[1]
    gj.vmap(gj.vmap(f, in_dims=-1), in_dims=1)(np.arange(8.0).reshape(2, 2, 2))
    assert seen == [
        "Traced<vmap, 2 lanes>(Traced<vmap, 2 lanes>"
        "([[[0., 4.], [1., 5.]], [[2., 6.], [3., 7.]]], shape (2,), float64))"
    ]


def test_an_argument_that_is_not_mapped_says_so():
    seen = []
    gj.vmap(lambda x, y: (seen.append(repr(y)), x)[1], in_dims=(0, None))(X, X)
    assert seen == ["Traced<vmap, the same in 3 lanes>([1. , 0.5, 2. ], shape (3,), float64)"]


def test_a_plain_array_that_was_captured_shows_as_itself():
    plain = np.array([1.0, 2.0])
    seen = []
    gj.grad(lambda x: (seen.append(repr(plain)), x.sum())[1])(X)
    assert seen == [repr(plain)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("shape", [(), (2,), (0,), (2, 0), (1, 1)])
@pytest.mark.parametrize("mode", ["vjp", "jvp", "vmap"])
def test_every_dtype_and_shape(dtype, shape, mode):
    x = np.ones((2, *shape) if mode == "vmap" else shape, dtype)
    transforms = {
        "vjp": lambda f: lambda x: gj.vjp(f, x),
        "jvp": lambda f: lambda x: gj.jvp(f, (x,), (x,)),
        "vmap": gj.vmap,
    }
    text = shown_by(transforms[mode], x)
    assert text.startswith(f"Traced<{mode}")
    assert text.endswith(f", shape {shape}, {np.dtype(dtype)})")
    assert ("1." in text) == (x.size > 0)


def test_a_python_number_and_a_zero_dimensional_array():
    for x in (1.5, np.float64(1.5), np.array(1.5)):
        assert shown_by(gj.grad, x) == "Traced<grad>(1.5, shape (), float64)"


def test_a_long_array_is_cut():
    text = shown_by(lambda f: gj.grad(summed(f)), np.arange(1e6).reshape(1000, 1000))
    assert text == "Traced<grad>([0., 1., 2., ...], shape (1000, 1000), float64)"


def test_few_digits_and_one_line():
    text = shown_by(lambda f: gj.grad(summed(f)), np.array([[np.pi, 1e-9], [np.nan, -np.inf]]))
    assert "\n" not in text
    assert "3.1416e+00" in text
    assert "nan" in text
    assert "-inf" in text


def test_str_and_format_are_the_repr_and_a_spec_formats_the_value():
    seen = []

    def f(x):
        seen.append((repr(x), str(x), f"{x}", "%s" % x, f"{x:.2f}", f"{x!r:>60}"))  # noqa: UP031 (old code does)
        return x * x

    gj.grad(f)(1.25)
    text = "Traced<grad>(1.25, shape (), float64)"
    assert seen == [(text, text, text, text, "1.25", text.rjust(60))]


def test_inside_containers_and_other_texts():
    seen = []
    gj.grad(lambda x: (seen.append(f"{[x]} {({'a': x})}"), x)[1])(2.0)
    assert seen == ["[Traced<grad>(2., shape (), float64)] {'a': Traced<grad>(2., shape (), float64)}"]


def test_showing_an_array_changes_nothing():
    f = lambda x: (repr(x), (np.sin(x) * x).sum())[1]
    plain = lambda x: (np.sin(x) * x).sum()
    np.testing.assert_array_equal(gj.grad(f)(X), gj.grad(plain)(X))
    np.testing.assert_array_equal(gj.hessian(f)(X), gj.hessian(plain)(X))
    np.testing.assert_array_equal(gj.vmap(gj.grad(f))(np.stack([X, X])), gj.vmap(gj.grad(plain))(np.stack([X, X])))


def test_the_stored_array_is_the_callers_own_through_two_vmaps():
    batch = np.arange(6.0).reshape(2, 3)
    seen = []
    gj.vmap(gj.vmap(lambda x: (seen.append(payload(x)), x)[1]))(batch)
    assert seen[0] is batch
