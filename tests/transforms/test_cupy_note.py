"""The note at a transform's door: which function of CuPy's refused a traced array, and the cure."""

import numpy as np
import pytest

import gpujac as gj
from tests import device

if device.MISSING:
    pytest.skip(device.MISSING, allow_module_level=True)

import cupy as cp

X = np.array([[0.3, 0.7], [1.2, 0.4]])
A = device.array(np.eye(2))
CURE = "`import gpujac.cupy as cp` for `import cupy as cp`, or pass gpujac.adopt(f) for f"


def raised(f, transform=None):
    """The error that leaves a transform of `f`."""
    transform = transform or (lambda f, x: gj.jvp(f, (x,), (x,)))
    try:
        transform(f, device.array(X))
    except Exception as error:
        return error
    return pytest.fail("no error")


def notes(error):
    return getattr(error, "__notes__", [])


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (lambda x: cp.concatenate([x, A]), "cupy.concatenate"),
        (lambda x: cp.stack([A, x]), "cupy.stack"),
        (lambda x: cp.matmul(A, x), "cupy.matmul"),
        (lambda x: cp.moveaxis(x, 0, 1), "cupy.moveaxis"),
        (lambda x: cp.cumsum(x), "cupy.cumsum"),
        (lambda x: cp.asarray(x), "cupy.asarray"),
        (lambda x: cp.array([x, x]), "cupy.array"),
        (lambda x: cp.tile(x, 2), "cupy.tile"),
        (lambda x: cp.einsum("ij->i", x), "cupy.einsum"),
        (lambda x: cp.linalg.matrix_power(x, 2), "cupy.linalg.matrix_power"),
        (lambda x: cp.where(x), "cupy.where"),
        (lambda x: cp.size(x), "a compiled function of CuPy's"),
        (lambda x: A.dot(x), "cupy.ndarray.dot"),
        (lambda x: cp.fuse(lambda x, a: x * a)(x, A), "cupy.fuse"),
    ],
)
def test_the_note_names_the_function_and_the_cure(f, name):
    (note,) = notes(raised(f))
    assert note.startswith(f"gpujac: {name} met a traced array, which its compiled code does not know.")
    assert note.endswith(CURE)


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (lambda x: cp.histogram(x), "cupy.histogram"),
        (lambda x: cp.unique(x), "cupy.unique"),
        (lambda x: cp.nanargmax(x), "cupy.nanargmax"),
    ],
)
def test_the_note_says_where_gpujac_has_no_rule_either(f, name):
    (note,) = notes(raised(f))
    assert note.startswith(f"gpujac: {name} met a traced array, for which gpujac has no rule;")
    assert "gpujac.value(x)" in note


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.nothing,
        lambda x: cp.moveaxis(A, 7, 1) + x,
        lambda x: x + {}["key"],
        lambda x: 1 // 0,
        lambda x: cp.sum(x, axis="wrong"),
        lambda x: np.concatenate([x, A[0]]),
        lambda x: x.reshape(7),
        lambda x: x[5],
        lambda x: cp.i0(x),
        lambda x: cp.reshape(x, (7,)),
        lambda x: float(x[0, 0]),
    ],
)
def test_an_error_about_something_else_has_no_note(f):
    assert notes(raised(f)) == []


def test_one_note_for_nested_transforms():
    def outer(x):
        return gj.grad(lambda x: cp.matmul(x, x).sum())(x)

    lanes = device.array(np.stack([X, X]))
    for transform in (lambda f, x: gj.vmap(f)(lanes), lambda f, x: gj.jacrev(f)(x), lambda f, x: gj.jacfwd(f)(x)):
        (note,) = notes(raised(outer, transform))
        assert "cupy.matmul" in note


@pytest.mark.parametrize(
    "transform",
    [
        lambda f, x: gj.vjp(f, x),
        lambda f, x: gj.grad(f)(x),
        lambda f, x: gj.jacrev(f)(x),
        lambda f, x: gj.jacfwd(f)(x),
        lambda f, x: gj.hessian(f)(x),
        lambda f, x: gj.linearize(f, x),
        lambda f, x: gj.vmap(f)(x),
        lambda f, x: gj.linear_transpose(f, x),
    ],
    ids="vjp grad jacrev jacfwd hessian linearize vmap linear_transpose".split(),
)
def test_every_transform_has_the_note(transform):
    error = raised(lambda x: cp.concatenate([x, x]).sum(), transform)
    assert any(CURE in note for note in notes(error))


def test_a_write_into_a_plain_cupy_array_is_a_mutation_error():
    def f(x):
        buffer = A.copy()
        buffer[0] = x[0]
        return buffer

    error = raised(f)
    assert isinstance(error, gj.MutationError)
    assert isinstance(error.__cause__, gj.ConcretizationError)
    assert "plain CuPy array (a[i] = x)" in str(error)


def test_the_cure_in_the_note_cures():
    with gj.settings.override(backend=device.NAME):
        y, _ = gj.jvp(gj.adopt(lambda x: cp.concatenate([x, A])), (device.array(X),), (A,))
    np.testing.assert_array_equal(device.host(y), np.concatenate([X, np.eye(2)]))
