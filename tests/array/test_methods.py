"""Methods and attributes of traced arrays: NumPy's positional signatures, results and dtypes."""

import operator

import numpy as np
import pytest

import gpujac as gj
from tests.array.calls import OPERANDS

X, T = OPERANDS["x"], OPERANDS["t"]
CALLS = """
x.sum() x.sum(0) x.sum(1,None) x.sum(-1,np.float32) x.sum(1,None,None,True) x.sum(axis=(0,1),keepdims=True)
x.sum(None,None,None,False,2.0) x.sum(where=x>0) x.mean() x.mean(0) x.mean(1,None,None,True) x.mean(where=x>0)
x.var() x.var(0) x.var(1,None,None,1) x.var(0,None,None,1,True) x.var(ddof=1) x.std()
x.std(0,None,None,1,True) x.max() x.max(0) x.max(1,None,True) x.max(initial=3.0) x.min() x.min(axis=-1)
x.min(0,None,True) x.prod() x.prod(0) x.prod(1,None,None,True) x.any() x.any(0) x.any(1,keepdims=True) x.all()
x.all(0,keepdims=True) x.argmax() x.argmax(0) x.argmax(1,None,keepdims=True) x.argmin() x.argmin(-1)
x.cumsum() x.cumsum(0) x.cumsum(1,np.float32) x.cumprod() x.cumprod(1) x.round() x.round(1) x.clip(-0.4,0.4)
x.clip(-0.4) x.clip(max=0.4) x.clip(min=0) x.conj() x.conjugate() x.real x.imag x.T t.T t.mT x.ravel()
x.ravel('F') x.flatten() x.flatten('F') x.reshape(4,3) x.reshape((4,3)) x.reshape(-1)
x.reshape(2,-1,order='F') x.transpose() x.transpose(1,0) x.transpose((1,0)) t.transpose(None)
t.transpose([2,0,1]) x.swapaxes(0,1) x[:1].squeeze() x[:1].squeeze(0) x[:1].squeeze(axis=0) x.repeat(2)
x.repeat(2,1) x.repeat([1,2,0],axis=0) x.take([0,2]) x.take([0,2],1) x.take([9],0,None,'wrap') x.diagonal()
x.diagonal(1) t.diagonal(0,1,2) x.trace() x.trace(1) x.dot(x.T) x.dot(x[0]) x.copy() x.astype(np.float32)
x.astype('f4') x.astype(float,copy=False) x.astype(int) x.view() x.nonzero()[0]
x.compress([True,False,True],0) x.__abs__() +x -x abs(x) divmod(x,0.3)[1] x//0.3 x%0.3 2**x x**2 x**-1
(x>0)|(x<-1) ~(x>0) x<=0.1 round(x[0,0],1)
""".split()


@pytest.mark.parametrize("call", CALLS)
def test_a_method_has_the_signature_value_and_dtype_of_numpys(call):
    def f(x, t):
        return eval(call, {"x": x, "t": t, "np": np})

    want = np.asarray(f(X, T))
    y, dy = gj.jvp(f, (X, T), (np.cos(X), np.sin(T)))
    np.testing.assert_allclose(y, want, rtol=1e-13)
    assert (np.shape(y), np.asarray(y).dtype) == (want.shape, want.dtype)
    if want.dtype == np.float64:
        h = 1e-6
        moved = (f(X + h * np.cos(X), T + h * np.sin(T)) - f(X - h * np.cos(X), T - h * np.sin(T))) / (2 * h)
        np.testing.assert_allclose(dy, moved, rtol=1e-6, atol=1e-7)
    lanes = np.stack([X, X * 1.01]), np.stack([T, T * 1.01])
    if "nonzero" not in call:
        got = gj.vmap(f)(*lanes)
        np.testing.assert_allclose(got, np.stack([f(*lane) for lane in zip(*lanes, strict=True)]), rtol=1e-6)
        assert got.dtype == want.dtype


def test_the_attributes_of_a_traced_array_are_those_of_its_array():
    names = "shape dtype ndim size itemsize nbytes".split()

    def f(x):
        for name in names:
            assert getattr(x, name) == getattr(X, name), name
        assert str(x.device) == "cpu"
        assert [float(v) for v in np.zeros_like(x).flat] == [0.0] * 12
        assert len(x.tolist()) == 3
        return x

    gj.jvp(f, (X,), (X,))


def test_a_method_that_numpy_arrays_lack_is_an_attribute_error():
    with pytest.raises(AttributeError):
        gj.grad(lambda x: x.nothing())(X)


REAL = [np.dtype(t) for t in "f2 f4 f8".split()]
ALL = [np.dtype(t) for t in "? i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16".split()]
OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
             operator.pow, operator.matmul, np.maximum, np.arctan2, np.hypot, np.logaddexp, np.copysign,
             lambda a, b: np.where(a > b, a, b), lambda a, b: np.concatenate([a, b]),
             lambda a, b: np.stack([a, b]), lambda a, b: np.dot(a, b), lambda a, b: np.einsum("i,i", a, b),
             operator.lt, np.logical_and, lambda a, b: np.outer(a, b), lambda a, b: np.clip(a, 0, b)]  # fmt: skip
UNARY = [np.sum, np.mean, np.prod, np.var, np.std, np.max, np.cumsum, np.cumprod, np.sin, np.sqrt, np.abs, np.sign,
         np.square, np.floor, np.rint, np.round, np.negative, np.conj, np.real, np.imag, np.any, np.argmax,
         np.linalg.norm, np.diff, np.reciprocal, np.exp2, np.isfinite, np.count_nonzero, np.degrees, np.fabs,
         np.trace, np.tril, lambda x: np.pad(x, 1), lambda x: np.average(x), np.ptp, np.isclose, np.positive,
         lambda x: x + 1, lambda x: 1.5 * x, lambda x: x**2, lambda x: x / 2, lambda x: x + np.float32(1),
         lambda x: 1j * x, lambda x: x // 2, lambda x: x > 0, lambda x: np.sum(x, dtype=np.float32)]  # fmt: skip


def outcome(f, *args):
    """The dtype of a result, or None where NumPy refuses these dtypes."""
    try:
        with np.errstate(all="ignore"):
            return np.asarray(f(*args)).dtype
    except (TypeError, np.exceptions.ComplexWarning):
        return None


@pytest.mark.parametrize("first", ALL, ids=str)
@pytest.mark.parametrize("second", ALL, ids=str)
def test_two_dtypes_promote_as_in_numpy_in_every_operator(first, second):
    a, b = np.array([1, 1], first), np.array([1, 1], second)
    for f in OPERATORS:
        want = outcome(f, a, b)
        if want is None:
            continue
        with np.errstate(all="ignore"):
            assert gj.vmap(f)(a[None], b[None]).dtype == want, (f, first, second)
            assert gj.vmap(f, in_dims=(None, 0))(a, b[None]).dtype == want, (f, first, second)
            if first.kind in "fc" and want.kind in "fc":
                y, dy = gj.jvp(lambda a, f=f: f(a, b), (a,), (a,))
                assert np.asarray(y).dtype == np.asarray(dy).dtype == want, (f, first, second)
                back = gj.vjp(lambda a, f=f: f(a, b), a)[1](np.ones(np.shape(y), want))
                assert back[0].dtype == first, (f, first, second)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_functions_of_one_array_give_the_dtype_of_numpys(dtype):
    for f in UNARY:
        rank = 2 if f in (np.trace, np.tril) else 1
        a = np.ones((2,) * rank, dtype)
        want = outcome(f, a) if f is not np.isclose else None
        if want is None or (f is np.conj and dtype.kind == "b"):  # NumPy's conj turns bool into int8
            continue
        with np.errstate(all="ignore"):
            assert gj.vmap(f)(a[None]).dtype == want, (f, dtype)
            if dtype.kind in "fc" and want.kind in "fc":
                y, dy = gj.jvp(f, (a,), (a,))
                assert np.asarray(y).dtype == np.asarray(dy).dtype == want, (f, dtype)


@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_python_numbers_are_weak_and_numpy_scalars_are_not(dtype):
    x = np.ones(2, dtype)
    for f in (lambda x: x * 2.0, lambda x: 3 + x, lambda x: x**0.5, lambda x: np.maximum(x, 1.5)):
        y, dy = gj.jvp(f, (x,), (x,))
        assert y.dtype == dy.dtype == f(x).dtype == dtype
        assert gj.grad(lambda x, f=f: np.sum(f(x)))(x).dtype == dtype
    strong = gj.jvp(lambda x: x * np.float64(2), (x,), (x,))
    assert strong[0].dtype == strong[1].dtype == np.float64
