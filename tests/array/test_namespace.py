"""`x.__array_namespace__()` and `gpujac.numpy`: the same rules behind every way in."""

import array_api_strict as strict
import numpy as np
import pytest
import scipy.special

import gpujac as gj
import gpujac.numpy as gnp
import gpujac.scipy.special as gsp
from gpujac.array.table import LINALG, SCIPY, TABLE
from tests.array import calls

# The functions of the array API standard 2024.12 that take arrays.
STANDARD = """
abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_invert bitwise_or
bitwise_right_shift bitwise_xor ceil clip conj copysign cos cosh divide equal exp expm1 floor floor_divide greater
greater_equal hypot imag isfinite isinf isnan less less_equal log log1p log2 log10 logaddexp logical_and logical_not
logical_or logical_xor maximum minimum multiply negative nextafter not_equal positive pow real reciprocal remainder
round sign signbit sin sinh square sqrt subtract tan tanh trunc cumulative_prod cumulative_sum max mean min prod std sum
var all any diff argmax argmin count_nonzero nonzero searchsorted where take take_along_axis broadcast_arrays
broadcast_to concat expand_dims flip moveaxis permute_dims repeat reshape roll squeeze stack tile unstack matmul
matrix_transpose tensordot vecdot astype can_cast result_type empty_like full_like ones_like zeros_like tril triu
meshgrid linspace asarray
""".split()
CREATION = "arange asarray empty eye full linspace ones zeros".split()
CONSTANTS = "e inf nan newaxis pi".split()
DTYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64 complex128".split()
ISSUE = """
cbrt fmax fmin sinc logsumexp split pad swapaxes diagonal trace cumsum dot outer einsum ptp ravel vstack
hstack concatenate transpose
""".split()


def namespaces():
    """The namespaces of a traced NumPy array and of a traced array-api-strict array."""
    found = []
    gj.jvp(lambda x: (found.append(x.__array_namespace__()), x)[1], (np.ones(2),), (np.ones(2),))
    x = strict.ones(2)
    gj.jvp(lambda x: (found.append(x.__array_namespace__(api_version="2024.12")), x)[1], (x,), (x,))
    return found


OVER_NUMPY, OVER_STRICT = namespaces()


@pytest.mark.parametrize("xp", [OVER_NUMPY, OVER_STRICT, gnp], ids=["numpy", "strict", "gpujac.numpy"])
def test_a_namespace_has_every_name_of_the_standard(xp):
    missing = [n for n in (*STANDARD, *CREATION, *CONSTANTS, *DTYPES, "isdtype", "finfo", "iinfo", "linalg")
               if not hasattr(xp, n)]  # fmt: skip
    assert missing == []


def test_the_table_has_a_rule_for_every_function_of_the_standard_and_of_the_first_release():
    assert [n for n in STANDARD if n not in TABLE] == []
    assert [n for n in ISSUE if n not in {**TABLE, **SCIPY}] == []
    assert {"solve", "inv", "norm", "vector_norm", "matrix_norm"} <= LINALG.keys()


def test_our_numpy_has_every_public_name_of_numpy():
    public = [n for n in dir(np) if not n.startswith("_")]
    assert [n for n in public if not hasattr(gnp, n)] == []
    assert set(public) <= set(gnp.__all__)
    for name in "random float64 pi newaxis inf dtype ndarray errstate sin add".split():
        assert getattr(gnp, name) is getattr(np, name)
    for part in ("linalg", "fft"):
        theirs, ours = getattr(np, part), getattr(gnp, part)
        assert [n for n in dir(theirs) if not n.startswith("_") and not hasattr(ours, n)] == []
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        gnp.nothing  # noqa: B018 (the access is the test)


def test_our_special_functions_are_those_of_scipy():
    public = [n for n in dir(scipy.special) if not n.startswith("_")]
    assert [n for n in public if not hasattr(gsp, n)] == []
    x = np.array([0.3, -1.0])
    np.testing.assert_allclose(gj.jacrev(gsp.expit)(x), np.diag(scipy.special.expit(x) * scipy.special.expit(-x)))
    np.testing.assert_allclose(gj.grad(gsp.logsumexp)(x), scipy.special.softmax(x))
    np.testing.assert_allclose(gj.grad(lambda x: gsp.logsumexp([x[0], 1.0, x[1]]))(x),
                               scipy.special.softmax([0.3, 1.0, -1.0])[[0, 2]])  # fmt: skip
    y = gj.jvp(lambda x: gsp.logsumexp(x, axis=0, keepdims=True), (x,), (x,))[0]
    np.testing.assert_allclose(y, scipy.special.logsumexp(x, axis=0, keepdims=True))
    np.testing.assert_array_equal(gsp.logsumexp([1.0, 2.0], b=[1, 2]), scipy.special.logsumexp([1.0, 2.0], b=[1, 2]))
    with pytest.raises(gj.DispatchError, match=r"gammainc"):
        gj.grad(lambda x: gsp.gammainc(x, 1.0))(0.5)
    with pytest.raises(gj.DispatchError, match=r"multigammaln.*gpujac\.value"):
        gj.jvp(lambda x: gsp.multigammaln(x, 2), (x,), (x,))


@pytest.mark.parametrize("call", [c for c in calls.all_calls() if c.startswith("np.")])
def test_every_way_in_gives_the_same_value_and_derivative(call):
    names = calls.operands_of(call)
    args = tuple(calls.OPERANDS[n] for n in names)
    code = compile(call, call, "eval")
    results = []
    for namespace in (np, gnp, OVER_NUMPY):

        def f(*args, namespace=namespace):
            return eval(code, {"np": namespace, **dict(zip(names, args, strict=True))})

        results.append(gj.jvp(f, args, tuple(np.cos(a) for a in args)))
    for y, dy in results[1:]:
        np.testing.assert_array_equal(y, results[0][0])
        np.testing.assert_array_equal(dy, results[0][1])


@pytest.mark.parametrize("call", [c for c in calls.all_calls() if c.startswith("np.")])
def test_plain_arrays_get_numpys_own_answer(call):
    names = calls.operands_of(call)
    scope = dict(calls.OPERANDS)
    want = eval(call, {"np": np, **scope})
    for namespace in (gnp, OVER_NUMPY):
        got = eval(call, {"np": namespace, **{n: scope[n] for n in names}, **scope})
        assert type(got) is type(want)
        np.testing.assert_array_equal(got, want)


def test_functions_that_numpy_never_asks_us_about_work_in_ours():
    x = np.array([0.3, 0.7])

    def f(x):
        y = gnp.array([[x[0], 1.0], [2.0, x[1] ** 2]])
        z = gnp.asarray([x, x * 2]) + gnp.array(x, ndmin=2) + gnp.full((2, 2), x[0])
        return gnp.sum([y, z], axis=0) + gnp.asarray(x) + gnp.linspace(x[0], x[1], 2)

    def plain(x):
        y = np.array([[x[0], 1.0], [2.0, x[1] ** 2]])
        z = np.asarray([x, x * 2]) + np.array(x, ndmin=2) + np.full((2, 2), x[0])
        return np.sum([y, z], axis=0) + np.asarray(x) + np.linspace(x[0], x[1], 2)

    y, dy = gj.jvp(f, (x,), (x,))
    np.testing.assert_allclose(y, plain(x), rtol=1e-15)
    np.testing.assert_allclose(dy, (plain(x * (1 + 1e-6)) - plain(x * (1 - 1e-6))) / 2e-6, rtol=1e-8)
    np.testing.assert_allclose(f(x), plain(x))


def test_joining_by_index_works_in_ours():
    x = np.array([0.3, 0.7])
    for key in (lambda np, x: np.r_[x, 1.0, 0:3, x[0]], lambda np, x: np.c_[x, x * 2, [1.0, 2.0]],
                lambda np, x: np.r_[1:3, 0.5], lambda np, x: np.c_[np.outer(x, x), x]):  # fmt: skip
        y, dy = gj.jvp(lambda x, key=key: key(gnp, x) * x[0], (x,), (x,))
        np.testing.assert_array_equal(y, key(np, x) * x[0])
        h = 1e-6
        moved = [key(np, x * (1 + s)) * x[0] * (1 + s) for s in (h, -h)]
        np.testing.assert_allclose(dy, (moved[0] - moved[1]) / (2 * h), rtol=1e-8)
    with pytest.raises(gj.DispatchError, match="axis strings"):
        gj.grad(lambda x: gnp.r_["0", x])(x)


def test_a_ragged_list_of_traced_arrays_names_the_shapes():
    with pytest.raises(gj.ShapeError, match=r"\(\), \(2,\)"):
        gj.grad(lambda x: gnp.array([x, x[0]]))(np.ones(2))


@pytest.mark.parametrize("call", ["frompyfunc", "geomspace", "asfortranarray", "require", "fromiter"])
def test_a_function_without_a_rule_refuses_traced_arguments_by_name(call):
    args = (1, 1) if call == "frompyfunc" else ()
    with pytest.raises(gj.DispatchError, match=rf"numpy\.{call} is not supported.*gpujac\.value"):
        gj.grad(lambda x: getattr(gnp, call)(x, *args))(np.ones(2))


# Over a library that knows the standard alone.
STRICT_CALLS = """
xp.sin(x) xp.exp(x)*2 xp.atan2(x,x+3) xp.maximum(x,-x) xp.sum(x) xp.sum(x,axis=0,keepdims=True)
xp.mean(x,axis=-1) xp.var(x) xp.std(x,axis=0) xp.max(x,axis=1) xp.prod(x,axis=0) xp.cumulative_sum(x,axis=1)
xp.diff(x) xp.reshape(x,(4,)) xp.permute_dims(x,(1,0)) xp.concat([x,xp.ones((1,2))]) xp.concat((x,x),axis=1)
xp.stack([x,x]) xp.stack([x[0,:],xp.zeros(2)],axis=1) xp.broadcast_to(x,(3,2,2)) xp.expand_dims(x,axis=0)
xp.squeeze(x[:1,:],axis=0) xp.flip(x) xp.roll(x,1,axis=0) xp.tile(x,(1,2)) xp.repeat(x,2,axis=1)
xp.moveaxis(x,0,1) xp.matmul(x,x) x@x xp.tensordot(x,x,axes=1) xp.vecdot(x,x) xp.matrix_transpose(x) x.T x.mT
xp.where(x>0,x,xp.zeros_like(x)) xp.clip(x,-0.5,0.5) xp.tril(x) xp.triu(x,k=1) xp.astype(x,xp.float32)
xp.take(x,xp.asarray([1,0,1]),axis=0) x[0,:] x[:,1] x[...,::-1] x[1,0] x[None,0,:]
xp.linalg.solve(x+3*xp.eye(2),x) xp.linalg.inv(x+3*xp.eye(2)) xp.linalg.vector_norm(x) xp.linalg.trace(x)
xp.linalg.diagonal(x) xp.linalg.outer(x[0,:],x[1,:]) xp.unstack(x)[1] xp.pow(x,2) x**2 x*2.0 2.0/(x+3) -x
abs(x) xp.abs(x) x*xp.sign(x) xp.full_like(x,2.0)*x x*xp.linspace(0.0,1.0,2)
x*xp.asarray([[1.0,2.0],[3.0,4.0]]) xp.take_along_axis(x,xp.asarray([[0],[1]]),axis=1) xp.hypot(x,x+2)
xp.logaddexp(x,x) xp.sqrt(xp.abs(x)) xp.meshgrid(x[0,:],x[1,:])[0] xp.add(xp.linspace(0,1,2),x) xp.sinc(x)
xp.cbrt(x+2) xp.sort(x,axis=0) xp.sort(x,descending=True) xp.cumulative_prod(x,axis=1) xp.nan_to_num(x)
x.sum() x.reshape(4)
""".split()


@pytest.mark.parametrize("call", STRICT_CALLS)
def test_a_function_of_a_strict_array_agrees_with_the_same_over_numpy(call):
    x = np.array([[0.3, -0.7], [1.2, 0.4]])
    t = np.array([[1.0, 2.0], [-1.0, 0.5]])

    def f(x):
        return eval(call, {"x": x, "xp": x.__array_namespace__(), "abs": abs})

    want, dwant = gj.jvp(f, (x,), (t,))
    got, dgot = gj.jvp(f, (strict.asarray(x),), (strict.asarray(t),))
    assert type(got) is type(dgot) is type(strict.asarray(x))
    tolerance = 1e-6 if "float32" in call else 1e-13
    np.testing.assert_allclose(np.asarray(got), want, rtol=tolerance)
    np.testing.assert_allclose(np.asarray(dgot), dwant, rtol=tolerance, atol=1e-14)
    pulled = gj.vjp(f, strict.asarray(x))[1](xp_ones(got))[0]
    np.testing.assert_allclose(np.asarray(pulled), gj.vjp(f, x)[1](np.ones_like(want))[0], rtol=tolerance, atol=1e-14)


def xp_ones(y):
    return strict.ones(y.shape, dtype=y.dtype)


def test_plain_arguments_of_the_namespace_go_to_the_library_itself():
    x = strict.asarray([1.0, 2.0])
    assert type(OVER_STRICT.sum(x)) is type(x)
    assert OVER_STRICT.float64 is strict.float64
    assert type(OVER_STRICT.zeros(3)) is type(x)
    assert OVER_NUMPY.zeros is gnp.zeros or type(OVER_NUMPY.zeros(2)) is np.ndarray


def test_buffers_of_the_namespace_receive_traced_writes():
    def f(x):
        xp = x.__array_namespace__()
        y = xp.zeros(3)
        y[0] = x[1]
        y[1:] = x * 2
        return y

    want = np.array([[0, 1], [2, 0], [0, 2]])
    np.testing.assert_array_equal(gj.jacrev(f)(np.ones(2)), want)
    np.testing.assert_array_equal(np.asarray(gj.jacrev(f)(strict.ones(2))), want)
    np.testing.assert_array_equal(np.asarray(gj.jacfwd(f)(strict.ones(2))), want)
