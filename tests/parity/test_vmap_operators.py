"""vmap of NumPy's functions (O1 to O24): each equals a loop, with many axes, two levels, and chunks."""

import numpy as np
import pytest

import gpujac as gj
import gpujac.numpy as gnp
from tests.parity import lanes as ln
from tests.parity import networks as nn
from tests.parity import parity

V, M = np.array([0.3, 0.7, -0.5, 0.9]), np.linspace(-0.9, 0.8, 12).reshape(3, 4)
P = np.abs(V) + 0.1
Z = V + 1j * P

UNARY = """abs arccos arcsin arctan ceil cos cosh exp expm1 floor isfinite isinf isnan negative reciprocal rint sign
    sin sinh square tan tanh trunc positive logical_not degrees radians arcsinh sinc fabs exp2""".split()
OF_POSITIVE = "log log10 log1p log2 sqrt cbrt arctanh".split()


@parity("O1")
@pytest.mark.parametrize("name", UNARY + OF_POSITIVE)
def test_elementwise_functions(name):
    x = P / 2 if name in OF_POSITIVE else V
    ln.check_lanes(getattr(np, name), x)

    def in_place(x):
        y = x * 1.0
        return getattr(np, name)(y, out=y)

    if getattr(np, name)(x).dtype == x.dtype and isinstance(getattr(np, name), np.ufunc):
        ln.check_lanes(in_place, x)


@parity("O2")
def test_copies_per_example():
    ln.check_lanes(lambda x: x.copy() + gnp.ascontiguousarray(x.T[::-1]).T, M)
    ln.check_lanes(lambda x: np.copy(x, order="F"), M)


@parity("O3")
def test_clip():
    ln.check_lanes(lambda x: np.clip(x, -0.2, 0.4), M)
    ln.check_lanes(lambda x, low: np.clip(x, low, None), V, V[::-1].copy())
    ln.check_lanes(lambda x, low, high: np.clip(x, low, high), V, V - 0.1, V + 0.05)
    ln.check_lanes(lambda x: np.minimum(x, 0.1) + np.maximum(0.2, x), M)


@parity("O4")
def test_copies_into_buffers():
    def into_mapped(x, y):
        x[...] = y
        return x

    ln.check_lanes(into_mapped, V, V[::-1].copy())

    def into_shared(x):
        buffer = gnp.zeros(4)
        buffer[...] = x
        return buffer

    ln.check_lanes(into_shared, V)  # torch refuses this; here the buffer becomes mapped
    plain = np.zeros(4)
    with pytest.raises(gj.MutationError, match="copyto would write"):
        gj.vmap(lambda x: np.copyto(plain, x))(np.stack([V, V]))


BINARY = [np.add, np.subtract, np.multiply, np.divide, np.power, np.arctan2, np.maximum, np.hypot]


@parity("O5")
@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.__name__)
def test_two_operands(op):
    ln.check_lanes(op, P, P[::-1].copy())
    ln.check_lanes(op, P, np.abs(M))  # ranks differ: a mapped axis never meets an axis of the example
    ln.check_lanes(op, np.array(1.5), np.abs(M))
    ln.check_lanes(lambda x: op(x, 2.0), P)
    ln.check_lanes(lambda x: op(2.0, x), P)


@parity("O5")
@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.__name__)
def test_promotion_is_that_of_the_example(op):
    narrow, wide = P.astype(np.float32), np.array(1.5)
    one = op(narrow[0], 2.0).dtype
    assert gj.vmap(lambda x: op(x, 2.0))(narrow).dtype == one == np.float32
    assert gj.vmap(lambda x, y: op(x, y), (0, None))(narrow, wide).dtype == op(narrow[0], wide).dtype
    assert gj.vmap(op)(narrow, P).dtype == np.float64
    assert gj.vmap(lambda x: op(x, np.float32(2)))(P).dtype == np.float64


@parity("O7")
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_negative_log_likelihood(reduction):
    target = np.array([1, 0, 3])
    f = lambda z, t: nn.nll(nn.log_softmax(z), t, reduction)
    ln.check_lanes(f, M, target)


@parity("O8")
def test_adaptive_average_pooling():
    x = np.linspace(-1, 1, 60).reshape(2, 5, 6)
    ln.check_lanes(lambda x: nn.adaptive_avg_pool2d(x, (2, 3)), x)
    ln.check_lanes(lambda x: nn.adaptive_avg_pool2d(x, (3, 4)), x)


@parity("O9")
def test_matrix_products():
    B3 = np.linspace(-1, 1, 24).reshape(2, 3, 4)
    ln.check_lanes(np.matmul, M, M.T.copy())
    ln.check_lanes(np.matmul, B3, np.swapaxes(B3, 1, 2).copy())
    ln.check_lanes(np.matmul, M, V)
    ln.check_lanes(np.dot, V, V[::-1].copy())
    ln.check_lanes(np.vdot, V, V[::-1].copy())
    ln.check_lanes(lambda a, b: np.einsum("ij,kj->ik", a, b), M, M + 1)
    ln.check_lanes(np.outer, V, P)
    two = lambda x: np.stack([x, x])
    for f, a, b in ((np.matmul, M, M), (np.matmul, M, V[:3]), (np.dot, V, V[:3]), (np.vecdot, V, V[:3])):
        with pytest.raises(gj.ShapeError, match=r"\d"):
            gj.vmap(f)(two(a), two(b))


@parity("O10")
def test_joining():
    ln.check_lanes(lambda x, y: np.concatenate([x, y]), M, M[:1])
    ln.check_lanes(lambda x, y: np.concatenate([x, y], axis=-1), M, M[:, :0])
    ln.check_lanes(lambda x, y: np.stack([x, y], axis=1), M, -M)
    ln.check_lanes(lambda x, y: np.vstack([x, y]), V, -V)


@parity("O11")
def test_complex_numbers():
    for f in (np.conj, np.real, np.imag, np.abs, np.angle, lambda z: z.real + 1j * z.imag, lambda z: z.conj() * z):
        ln.check_lanes(f, Z)
    ln.check_lanes(lambda re, im: re + 1j * im, V, P)
    ln.check_lanes(lambda z: np.stack([z.real, z.imag], -1), Z)
    ln.check_lanes(np.conj, V)


@parity("O13")
def test_splitting():
    ln.check_lanes(lambda x: tuple(np.split(x, 2, axis=1)), M)
    ln.check_lanes(lambda x: list(np.array_split(x, 3, axis=-1)), M)
    ln.check_lanes(lambda x: tuple(np.split(x, [1, 1, 3], axis=1)), M)
    ln.check_lanes(lambda x: tuple(np.unstack(x, axis=1)), M)
    ln.check_lanes(lambda x: list(x), M)  # iteration goes over the example's first axis


@parity("O14")
@pytest.mark.parametrize("name", "equal not_equal less less_equal greater greater_equal".split())
def test_comparisons(name):
    op = getattr(np, name)
    ln.check_lanes(op, np.round(V, 1), np.round(V[::-1], 1).copy())
    ln.check_lanes(lambda x: op(x, 0.3), V)
    ln.check_lanes(lambda x: op(0.3, x), V)


@parity("O15")
def test_cross_with_three_lanes():
    a, b = np.linspace(-1, 1, 6).reshape(2, 3), np.linspace(1, 2, 6).reshape(2, 3) ** 2
    ln.check_lanes(np.cross, a, b, size=3)
    ln.check_lanes(np.cross, a[0], b[0], size=3)


STRUCTURE = {
    "diagonal": lambda x: np.diagonal(x, 1),
    "broadcast_to": lambda x: np.broadcast_to(x, (2, 3, 4)),
    "narrow": lambda x: x[:, 1:3],
    "select": lambda x: x[:, -2],
    "slices": lambda x: x[::-2, 1::2],
    "squeeze": lambda x: np.squeeze(x[:, :1, None]),
    "squeeze axis": lambda x: np.squeeze(x[None], axis=0),
    "expand_dims": lambda x: np.expand_dims(x, (0, -1)),
    "moveaxis": lambda x: np.moveaxis(x[None], 0, -1),
    "swapaxes": lambda x: np.swapaxes(x, 0, -1),
    "T": lambda x: x.T,
    "transpose": lambda x: np.transpose(x[..., None], (2, 0, 1)),
    "mT": lambda x: x.mT,
    "windows": lambda x: np.stack([x[:, i : i + 2] for i in range(3)]),
    "reshape": lambda x: np.reshape(x, (2, -1)),
    "reshape like": lambda x: x.reshape(np.zeros((4, 3)).shape),
    "ravel": lambda x: x.ravel(),
    "flip": lambda x: np.flip(x, 0) + np.rot90(x, 2),
    "atleast_3d": np.atleast_3d,
}


@parity("O16")
@pytest.mark.parametrize("name", list(STRUCTURE))
def test_structure(name):
    ln.check_lanes(STRUCTURE[name], M)


@parity("O16")
def test_structure_without_axes():
    for f in (lambda x: x.T, np.transpose, lambda x: np.expand_dims(x, 0), lambda x: x.reshape(1, 1), np.squeeze,
              lambda x: np.broadcast_to(x, (2,)), lambda x: x[None, ...], np.ravel):  # fmt: skip
        ln.check_lanes(f, np.array(0.5))
    ln.check_lanes(np.squeeze, np.ones((1, 1)), size=1)  # the one lane stays
    with pytest.raises(ValueError, match=r"axis|squeeze"):
        gj.vmap(lambda x: np.squeeze(x, 0))(M)


@parity("O17")
def test_filling_in_place():
    def filled(x, v):
        y = x * 1.0
        y.fill(0.0)
        y[1] = v
        y[2:] = 7.0
        return y + x

    ln.check_lanes(filled, V, np.array(2.0))


@parity("O18", "O22", "O23")
def test_dtypes_asked_and_changed():
    assert gj.vmap(lambda x: np.iscomplexobj(x), out_dims=None)(np.stack([Z, Z])) is True
    assert gj.vmap(lambda x: np.issubdtype(x.dtype, np.floating), out_dims=None)(M) is True
    seen = []
    gj.vmap(lambda x, y: (seen.append(np.result_type(x, y)), x)[1])(M.astype(np.float32), M)
    assert seen == [np.float64]
    for dtype in (np.float32, np.complex128, np.int64, bool):
        ln.check_lanes(lambda x, dtype=dtype: x.astype(dtype), M)
    assert gj.vmap(lambda x: np.astype(x, np.float32))(M).dtype == np.float32


@parity("O19")
def test_buffers_like_the_argument():
    shapes = []

    def f(x):
        a, b, c = np.zeros_like(x), np.empty_like(x), np.ones_like(x, shape=(2,))
        shapes.extend([a.shape, b.shape, c.shape])
        a[0], b[...], c[1] = x[1], x, x[0]
        return a, b, c

    ln.check_lanes(f, V)
    assert set(shapes) == {(4,), (2,)}


@parity("O20")
def test_moving_and_repeating():
    ln.check_lanes(lambda x: np.roll(x, 2), M)
    ln.check_lanes(lambda x: np.roll(x, (1, -1), (0, 1)), M)
    ln.check_lanes(lambda x: np.repeat(x, 2, axis=0), M)
    ln.check_lanes(lambda x: np.tile(x, (2, 1)), M)
    ln.check_lanes(np.trace, M[:, :3])
    ln.check_lanes(lambda i: gnp.take(np.eye(4), i, axis=0), np.array([2, 0, 3]))


@parity("O20")
def test_determinants():
    S = np.array([[2.0, 0.3, 0.1], [0.0, 1.5, -0.4], [0.2, 0.1, -1.0]])
    ln.check_lanes(lambda x: tuple(np.linalg.slogdet(x)), S, tolerance=1e-12)
    ln.check_lanes(np.linalg.det, S, tolerance=1e-12)


@parity("O21")
def test_reductions():
    for axis in (None, 0, 1, -1, (0, 1)):
        for f in (np.sum, np.mean, np.max, np.prod, np.std):
            ln.check_lanes(lambda x, f=f, axis=axis: f(x, axis=axis), M)
        ln.check_lanes(lambda x, axis=axis: np.sum(x, axis=axis, keepdims=True), M)
    for axis in (None, 0, -1):
        ln.check_lanes(lambda x, axis=axis: np.argmax(x, axis=axis), M)
    ln.check_lanes(np.sum, np.array(2.0))


@parity("O24")
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"padding": 1}, {"dilation": 2}, {"groups": 2},
                                     {"stride": 2, "padding": 2, "groups": 2}])  # fmt: skip
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolutions(axes, options, rng):
    groups = options.get("groups", 1)
    x = rng.standard_normal((4, *(5, 6, 5)[:axes]))
    w = rng.standard_normal((2, 4 // groups, *(2, 3, 2)[:axes]))
    b = rng.standard_normal(2)
    ln.check_lanes(lambda x, w, b: nn.conv(x, w, b, **options), x, w, b, size=2, tolerance=1e-12)
    if not options:
        ln.check_lanes(lambda x, w: nn.conv(x, w), x, w, size=2, tolerance=1e-12)
