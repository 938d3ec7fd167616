"""Every function of the table, by many call signatures: NumPy's values, and derivatives that agree.

The calls are text (`tests/array/calls.py`), run once on plain arrays and once on traced ones.
"""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpujac as gj
import gpujac.numpy as gnp
from tests.array import calls
from tests.array.keys import values

CALLS = calls.all_calls()
FLOATING = [call for call in CALLS if not call.startswith(calls.FLAT)]
every_call = pytest.mark.parametrize("call", CALLS)
every_floating_call = pytest.mark.parametrize("call", FLOATING)
H = 1e-5


class Called:
    """A call as a function of the operands that it names."""

    def __init__(self, call, namespace=np):
        self.names = calls.operands_of(call)
        self.args = tuple(calls.OPERANDS[n] for n in self.names)
        self.tangents = tuple(np.cos(np.arange(np.size(a)) + i).reshape(np.shape(a)) for i, a in enumerate(self.args))
        self.code, self.namespace = compile(call, call, "eval"), namespace

    def __call__(self, *args):
        return eval(self.code, {"np": self.namespace, **dict(zip(self.names, args, strict=True))})

    def moved(self, h):
        """The result with all operands moved along their tangents."""
        args = [a + h * t for a, t in zip(self.args, self.tangents, strict=True)]
        return np.asarray(self(*args), float)


@every_call
def test_the_value_shape_and_dtype_are_those_of_numpy(call):
    f = Called(call)
    want = np.asarray(f(*f.args))
    for namespace in (np, gnp):
        got = np.asarray(gj.jvp(Called(call, namespace), f.args, f.tangents)[0])
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
        assert (got.shape, got.dtype) == (want.shape, want.dtype)


@every_floating_call
def test_the_tangent_agrees_with_central_differences(call):
    f = Called(call)
    y, dy = gj.jvp(f, f.args, f.tangents)
    single = np.asarray(y).dtype == np.float32
    h, tolerance = (1e-2, 2e-3) if single else (H, 1e-7)
    want = (f.moved(h) - f.moved(-h)) / (2 * h)
    np.testing.assert_allclose(dy, want, rtol=tolerance, atol=tolerance)
    assert np.asarray(dy).dtype == np.asarray(y).dtype


@every_floating_call
def test_the_pullback_is_the_adjoint_of_the_tangent(call):
    f = Called(call)
    y, dy = gj.jvp(f, f.args, f.tangents)
    ct = np.sin(1.0 + np.arange(np.size(y))).reshape(np.shape(y)).astype(np.asarray(y).dtype)
    _, pullback = gj.vjp(f, *f.args)
    back = sum(np.sum(c * t) for c, t in zip(pullback(ct), f.tangents, strict=True))
    tolerance = 1e-5 if ct.dtype == np.float32 else 1e-11
    np.testing.assert_allclose(back, np.sum(ct * dy), rtol=tolerance, atol=tolerance)


@every_floating_call
def test_second_derivatives_agree_forward_over_forward_and_over_reverse(call):
    f = Called(call)
    y = np.asarray(f(*f.args))
    if y.dtype == np.float32:
        return  # differences of single-precision tangents show nothing
    ct = np.sin(1.0 + np.arange(y.size)).reshape(y.shape)

    def forward(*args):
        return np.sum(ct * gj.jvp(f, args, f.tangents)[1])

    def reverse(*args):
        pulled = gj.vjp(f, *args)[1](ct)
        return sum(np.sum(c * t) for c, t in zip(pulled, f.tangents, strict=True))

    ahead, behind = (tuple(a + s * H * t for a, t in zip(f.args, f.tangents, strict=True)) for s in (1, -1))
    want = (forward(*ahead) - forward(*behind)) / (2 * H)
    for g in (forward, reverse):
        got = gj.jvp(g, f.args, f.tangents)[1]
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("call", [c for c in CALLS if not re.search(calls.DATA_DEPENDENT, c)])
@pytest.mark.parametrize("mapped", ["all", "first"])
def test_vmap_gives_each_lane_what_the_call_gives(call, mapped):
    f = Called(call)
    count = len(f.names) if mapped == "all" else 1
    lanes = [tuple(a if i >= count else a + 0.001 * k for i, a in enumerate(f.args)) for k in range(2)]
    batch = [a if i >= count else np.stack([lane[i] for lane in lanes], -1) for i, a in enumerate(f.args)]
    dims = tuple(-1 if i < count else None for i in range(len(f.names)))
    got = gj.vmap(f, in_dims=dims)(*batch)
    want = np.stack([f(*lane) for lane in lanes])
    tolerance = 1e-6 if want.dtype == np.float32 else 1e-12  # other order of additions
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=1e-14)
    assert got.dtype == want.dtype


@pytest.mark.parametrize("call", calls.UNSUPPORTED)
def test_a_function_without_a_rule_refuses_by_name_and_says_what_to_do(call):
    name = re.match(r"np\.([\w.]+)", call).group(1)
    for namespace in (np, gnp):
        f = Called(call, namespace)
        with pytest.raises(gj.DispatchError, match=rf"\b{name}\b.*gpujac\.value"):
            gj.jvp(f, f.args, f.tangents)


REDUCTIONS = "sum mean var std max min prod any all argmax argmin cumsum".split()


@st.composite
def reductions(draw):
    """A reduction, a shape, and an axis or axes that fit both."""
    name = draw(st.sampled_from(REDUCTIONS))
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    one = st.integers(-len(shape), len(shape) - 1)
    several = st.lists(one, max_size=3, unique_by=lambda a: a % len(shape)).map(tuple)
    single = name in ("argmax", "argmin", "cumsum")
    axis = draw(st.one_of(st.none(), one) if single else st.one_of(st.none(), one, several))
    options = {} if name == "cumsum" else {"keepdims": draw(st.booleans())}
    return name, shape, axis, options


@given(reductions())
def test_reductions_over_any_axes_agree_with_numpy_and_in_both_modes(case):
    name, shape, axis, options = case
    x, t = values(shape) / 5, values(shape, 1)

    def f(x):
        return getattr(np, name)(x, axis=axis, **options)

    y, dy = gj.jvp(f, (x,), (t,))
    np.testing.assert_allclose(y, f(x), rtol=1e-12)
    if np.asarray(y).dtype.kind != "f":
        return
    want = (f(x + H * t) - f(x - H * t)) / (2 * H)
    if name != "std":  # std is not smooth where all entries agree
        np.testing.assert_allclose(dy, want, rtol=1e-5, atol=1e-5)
    ct = values(np.shape(y), 2)
    np.testing.assert_allclose(np.sum(ct * dy), np.sum(gj.vjp(f, x)[1](ct)[0] * t), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(gj.vmap(f)(np.stack([x, t])), np.stack([f(x), f(t)]), rtol=1e-12)


@given(st.lists(st.integers(1, 3), min_size=0, max_size=3), st.integers(0, 3), st.integers(0, 3))
def test_elementwise_functions_broadcast_as_numpy_does(shape, ones, rank):
    shape = tuple(shape)
    other = tuple(1 if i < ones else n for i, n in enumerate(shape))[len(shape) - min(rank, len(shape)) :]
    x, y = values(shape), values(other, 1)
    z, dz = gj.jvp(lambda x, y: x * y + np.maximum(x, y), (x, y), (y + x, y))
    np.testing.assert_allclose(z, x * y + np.maximum(x, y))
    np.testing.assert_allclose(dz, (y + x) * y + x * y + np.where(x > y, y + x, y))
    back = gj.vjp(lambda x, y: x * y, x, y)[1](np.ones(z.shape))
    assert [b.shape for b in back] == [shape, other]


COMPLEX = """
np.sum(z) np.mean(z,axis=0) np.prod(z) np.cumsum(z) np.real(z) np.imag(z) np.conj(z) np.abs(z) np.angle(z)
z.real z.imag z.conj() np.exp(z) np.sqrt(z) z*z z/(z+2) z**2 np.sin(z) np.vdot(z,z) np.vecdot(z,z)
np.dot(z,z.T) np.var(z) np.std(z,axis=0) np.linalg.norm(z) np.sign(z) np.where(np.abs(z)>1,z,0)
np.einsum('ij,kj->ik',z,z) z.astype(np.complex64) np.linalg.solve(z,z+np.eye(2)) np.linalg.inv(z)
np.reciprocal(z) np.log(z) np.outer(z,z) np.trace(z) np.square(z)
""".split()


@pytest.mark.parametrize("call", COMPLEX)
def test_functions_of_complex_arrays_agree_with_numpy_differences_and_the_adjoint(call):
    rng = np.random.default_rng(3)
    z, t = (rng.normal(size=(2, 2)) + 1j * rng.normal(size=(2, 2)) for _ in range(2))

    def f(z):
        return eval(call, {"np": np, "z": z})

    y, dy = gj.jvp(f, (z,), (t,))
    want = np.asarray(f(z))
    np.testing.assert_allclose(y, want, rtol=1e-6 if want.dtype == np.complex64 else 1e-12)
    assert np.asarray(y).dtype == want.dtype
    h, tolerance = (1e-2, 1e-2) if want.dtype == np.complex64 else (1e-6, 1e-7)
    np.testing.assert_allclose(dy, (f(z + h * t) - f(z - h * t)) / (2 * h), rtol=tolerance, atol=tolerance)
    ct = np.asarray(rng.normal(size=want.shape) + 1j * rng.normal(size=want.shape))
    ct = ct.astype(want.dtype) if want.dtype.kind == "c" else ct.real
    back = gj.vjp(f, z)[1](ct)[0]
    np.testing.assert_allclose(np.vdot(ct, dy).real, np.vdot(back, t).real, rtol=1e-5, atol=1e-6)


ERRORS = [
    ("np.sum(x,axis=2)", gj.AxisError, r"sum: axis=2 .* 2 axes; use -2 to 1"),
    ("np.sum(x,axis=(0,0))", gj.AxisError, r"sum: axis=\(0, 0\) names an axis twice"),
    ("np.sum(x,axis='a')", gj.ArgumentTypeError, r"sum: axis='a' is not an integer"),
    ("np.reshape(x,(5,5))", gj.ShapeError, r"reshape: .*\(3, 4\).*\(5, 5\)"),
    ("np.reshape(x,(-1,-1))", gj.ShapeError, r"reshape: .*\(-1, -1\)"),
    ("np.transpose(x,(0,0))", gj.AxisError, r"transpose: axes=\(0, 0\)"),
    ("np.concatenate([x,v])", gj.ShapeError, r"concatenate: .*\(3, 4\), \(4,\)"),
    ("np.concatenate([s,s])", gj.ShapeError, r"concatenate: zero-dimensional"),
    ("np.concatenate([x],axis=3)", gj.AxisError, r"concatenate: axis=3"),
    ("np.stack([x,v])", gj.ShapeError, r"stack: .*\(3, 4\) and \(4,\)"),
    ("np.squeeze(x,0)", gj.ShapeError, r"squeeze: axis -2 of shape \(3, 4\) has length 3"),
    ("np.broadcast_to(x,(2,4))", gj.ShapeError, r"broadcast_to: .*\(3, 4\).*\(2, 4\)"),
    ("np.matmul(x,x)", gj.ShapeError, r"matmul: shapes \(3, 4\) and \(3, 4\)"),
    ("x @ 2.0", gj.ShapeError, r"matmul: a zero-dimensional"),
    ("np.dot(x,A)", gj.ShapeError, r"\(3, 4\) and \(3, 3\)"),
    ("np.einsum('ij,ij',x,A)", gj.ShapeError, r"einsum: letter 'j' has lengths 4 and 3"),
    ("np.tensordot(x,A,axes=1)", gj.ShapeError, r"tensordot: shapes \(3, 4\) and \(3, 3\)"),
    ("np.linalg.solve(x,v)", gj.ShapeError, r"solve: .*\(3, 4\) are not square"),
    ("np.linalg.inv(v)", gj.ShapeError, r"inv: .*\(4,\) are not square"),
    ("np.split(x,3,axis=1)", gj.ShapeError, r"split: length 4 is not divisible into 3"),
    ("np.max(x[:0])", gj.ShapeError, r"max: shape \(0, 4\) has no entries"),
    ("np.argmin(x[:0],axis=0)", gj.ShapeError, r"argmin: shape \(0, 4\)"),
    ("np.cross(x,x)", gj.ShapeError, r"cross: .*length 3, found 4"),
    ("np.pad(v,-3)", gj.ShapeError, r"pad: pad_width=\(-3, -3\) crops more"),
    ("np.pad(v,-1,mode='mean')", gj.ArgumentError, r"pad: .*only 'constant'.*not 'mean'"),
    ("np.linalg.norm(x,5)", gj.ArgumentError, r"norm: ord=5 is no norm of a matrix; use 'fro', 'nuc'"),
    ("np.linalg.svd(x)", gj.DispatchError, r"svd: full_matrices=True .*\(3, 4\).*full_matrices=False"),
    ("np.linalg.qr(x.T,'complete')", gj.DispatchError, r"qr: mode='complete' .*\(4, 3\)"),
    ("np.linalg.qr(A,'raw')", gj.DispatchError, r"qr: mode='raw'"),
    ("np.linalg.eigh(A,'M')", gj.ArgumentError, r"eigh: UPLO='M'"),
    ("np.linalg.svd(v)", gj.ShapeError, r"svd: .*\(4,\) holds no matrices"),
    ("np.linalg.lstsq(A,v)", gj.ShapeError, r"lstsq: shapes \(3, 3\) and \(4,\)"),
    ("np.linalg.pinv(A,rcond=v)", gj.DispatchError, r"pinv: rcond="),
    ("np.cov(t)", gj.ShapeError, r"cov: .*\(2, 3, 4\)"),
    ("np.cov(x,aweights=[1.0,2.0])", gj.ShapeError, r"cov: weights of shapes \[\(2,\)\] for 4 observations"),
    ("np.nanquantile(v,1.5)", gj.ArgumentError, r"nanquantile: q must be from 0 to 1"),
    ("np.nanquantile(v,0.5,method='lower')", gj.DispatchError, r"nanquantile: method='lower'"),
    ("np.nanquantile(v,[[0.5]])", gj.ShapeError, r"nanquantile: q of shape \(1, 1\)"),
    ("np.correlate(v,x)", gj.ShapeError, r"correlate: .*\(4,\) and \(3, 4\)"),
    ("np.digitize(v,x)", gj.ShapeError, r"digitize: .*\(3, 4\)"),
    ("np.vander(x)", gj.ShapeError, r"vander: .*\(3, 4\)"),
    ("np.fft.fft(v,0)", gj.ShapeError, r"fft: 0 points along axis -1"),
    ("np.fft.fft(v,norm='none')", gj.ArgumentError, r"fft: norm='none'"),
    ("np.fft.fftn(x,(2,),(0,1))", gj.ShapeError, r"fftn: s=\(2,\)"),
    ("np.diff(x,-1)", gj.ArgumentError, r"diff: n=-1"),
    ("np.where(x>0,x)", gj.ArgumentTypeError, r"where: give both x and y"),
    ("np.cumulative_sum(x)", gj.ArgumentError, r"cumulative_sum: axis is needed"),
    ("x + t[:,:2]", ValueError, r"\(3,4\)|\(3, 4\)|broadcast"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[row[0] for row in ERRORS])
def test_a_wrong_argument_is_named_with_the_shape_or_axis_found(call, error, message):
    f = Called(call)
    with pytest.raises(error, match=message):
        gj.jvp(f, f.args, f.tangents)


@pytest.mark.parametrize("limit", [np.max, np.min])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_the_extremes_of_nothing_are_the_initial_value_in_the_right_shape(limit, axis, keepdims):
    def f(x):
        return limit(x[:, :0], axis=axis, keepdims=keepdims, initial=1.5)

    x = np.ones((2, 3))
    jacobian, y = gj.jacrev(f, with_value=True)(x)
    np.testing.assert_array_equal(y, f(x), strict=True)
    assert jacobian.shape == (*np.shape(y), 2, 3)
    assert not jacobian.any()
