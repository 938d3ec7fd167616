"""Jacobians of complex functions: complex derivatives of holomorphic ones, real blocks of any."""

import numpy as np
import pytest

import gpujac as gj
from tests.transforms import helpers as h

Z = np.array([1 + 2j, -0.5 + 0.3j, 0.2 - 1j])
TRANSFORMS = [gj.jacrev, gj.jacfwd, gj.jacobian]
every_transform = pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: t.__name__)


def pairs(tree):
    """Complex leaves as real ones with (re, im) in a last axis."""
    def split(x):
        x = np.asarray(x)
        return np.stack([x.real, x.imag], -1) if np.iscomplexobj(x) else x

    return h.optree.tree_map(split, tree)


def joined(tree, like):
    """The inverse of `pairs`."""
    def join(x, old):
        return x[..., 0] + 1j * x[..., 1] if np.iscomplexobj(old) else x

    return h.optree.tree_map(join, tree, like)


def differences(f, *args):
    """The matrix of real derivatives by central differences."""
    return h.difference_matrix(lambda *real: pairs(f(*joined(real, args))), *pairs(args))


FUNCTIONS = [
    ("conj", lambda z: np.conj(z) * z[0], (Z,)),
    ("abs", lambda z: abs(z) + z.real, (Z,)),
    ("holomorphic", lambda z: np.exp(z) * z**2, (Z,)),
    ("real to complex", lambda x: np.exp(1j * x) * x[::-1], (np.array([0.3, -1.2]),)),
    ("complex to real", lambda z: (z * np.conj(z)).real + z.imag**3, (Z,)),
    ("trees", lambda p, s: {"a": p["z"] * s, "b": (p["x"] * abs(s), p["z"].sum() ** 2)},
     ({"z": Z, "x": np.array([1.0, 2.0])}, np.array(0.3 - 2j))),
    ("0-d", lambda z: z * np.conj(z) + z, (np.array(0.4 + 1.5j),)),
    ("matrix", lambda z: z.reshape(1, 3) @ np.array([[1j, 2.0], [0.5, -1j], [3.0, 1 + 1j]]) * z[1], (Z,)),
    ("linalg", lambda z: np.linalg.solve(np.diag(z) + 1j, np.conj(z)), (Z,)),
    ("constant", lambda z: np.array([1j, 2.0]), (Z,)),
]  # fmt: skip
every_function = pytest.mark.parametrize(("f", "args"), [case[1:] for case in FUNCTIONS], ids=[c[0] for c in FUNCTIONS])


@every_function
@every_transform
@pytest.mark.parametrize("chunk_size", ["auto", None, 1, 2])
def test_blocks_are_the_real_derivatives(transform, f, args, chunk_size):
    every = tuple(range(len(args)))
    J = transform(f, every, complex_blocks=True, chunk_size=chunk_size)(*args)
    y = f(*args)
    np.testing.assert_allclose(h.matrix_of(J, pairs(y), pairs(args)), differences(f, *args), atol=1e-6)
    for out, row in zip(h.leaves(y), _rows(J, len(h.leaves(y)))):
        for x, block in zip(h.leaves(args), row):
            two = lambda a: (2,) if np.iscomplexobj(a) else ()
            assert block.shape == (*np.shape(out), *two(out), *np.shape(x), *two(x))
            assert block.dtype == np.float64
    h.assert_owned(J, args)


def _rows(J, m):
    blocks = h.leaves(J)
    n = len(blocks) // m
    return [blocks[i * n : (i + 1) * n] for i in range(m)]


def test_blocks_of_a_holomorphic_function_are_its_derivative():
    f = lambda z: np.exp(z[:2]) * z[2] ** 2
    d = gj.jacrev(f, holomorphic=True)(Z)
    B = gj.jacrev(f, complex_blocks=True)(Z)
    # d(re, im) / d(re, im) of multiplication by a + ib: [[a, -b], [b, a]]
    np.testing.assert_allclose(B[:, 0, :, 0], d.real, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(B[:, 1, :, 1], d.real, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(B[:, 1, :, 0], d.imag, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(B[:, 0, :, 1], -d.imag, rtol=1e-13, atol=1e-14)


@every_function
def test_blocks_are_what_vjp_and_jvp_apply(f, args, rng):
    every = tuple(range(len(args)))
    y = f(*args)
    matrix = h.matrix_of(gj.jacfwd(f, every, complex_blocks=True)(*args), pairs(y), pairs(args))
    t, ct = h.random_like(args, rng), h.random_like(y, rng)
    dy = gj.jvp(f, args, t)[1]
    np.testing.assert_allclose(matrix @ h.vector(pairs(t)), h.vector(pairs(dy)), rtol=1e-11, atol=1e-12)
    back = gj.vjp(f, *args)[1](ct)
    # the adjoint under Re<a, b>: on pairs it is the plain transpose
    np.testing.assert_allclose(h.vector(pairs(ct)) @ matrix, h.vector(pairs(back)), rtol=1e-11, atol=1e-12)


def test_values_aux_and_argnums_as_ever():
    f = lambda z, k=1.0: (k * abs(z), {"z": z, "n": "text"})
    J, (y, aux) = gj.jacrev(f, complex_blocks=True, has_aux=True, with_value=True)(Z, k=2.0)
    np.testing.assert_array_equal(y, 2 * abs(Z))
    np.testing.assert_array_equal(aux["z"], Z)
    assert aux["n"] == "text"
    assert aux["z"].dtype == Z.dtype
    same, aux = gj.jacfwd(f, complex_blocks=True, has_aux=True)(Z, k=2.0)
    np.testing.assert_allclose(same, J, rtol=1e-14)
    J, y = gj.jacobian(np.conj, complex_blocks=True, with_value=True)(Z)
    np.testing.assert_array_equal(y, np.conj(Z))
    assert y.dtype == Z.dtype
    both = gj.jacrev(lambda z, x: z * x, argnums=(1, 0), complex_blocks=True)(Z, np.ones(3))
    assert [b.shape for b in both] == [(3, 2, 3), (3, 2, 3, 2)]
    negative = gj.jacrev(lambda z, x: z * x, argnums=-1, complex_blocks=True)(Z, np.ones(3))
    np.testing.assert_array_equal(negative, both[0])


def test_functions_of_reals_are_left_alone():
    x = np.array([0.3, 1.7])
    f = lambda x: np.sin(x) * x[0]
    h.assert_same_bits(gj.jacrev(f, complex_blocks=True)(x), gj.jacrev(f)(x))
    h.assert_same_bits(gj.hessian(f, complex_blocks=True)(x), gj.hessian(f)(x))


def test_single_precision_stays_single():
    z = Z.astype(np.complex64)
    for transform in TRANSFORMS:
        assert transform(lambda z: abs(z) * z, complex_blocks=True)(z).dtype == np.float32
    assert gj.jacrev(lambda x: x * 1j, complex_blocks=True)(np.float32(2)).dtype == np.float32
    assert gj.hessian(lambda z: (abs(z) ** 2).sum(), complex_blocks=True)(z).dtype == np.float32


def test_python_numbers():
    np.testing.assert_array_equal(gj.jacrev(lambda z: z * z.conj(), complex_blocks=True)(1 + 2j), [[2, 4], [0, 0]])
    np.testing.assert_array_equal(gj.jacfwd(lambda z: z * 1j, complex_blocks=True)(1 + 2j), [[0, -1], [1, 0]])


def test_hessian_in_blocks():
    f = lambda z: (abs(z) ** 4).sum() + (z[0] * np.conj(z[1]) ** 2).real
    H = gj.hessian(f, complex_blocks=True)(Z)
    assert H.shape == (3, 2, 3, 2)
    flat = H.reshape(6, 6)
    np.testing.assert_allclose(flat, flat.T, atol=1e-12)
    g = lambda z: gj.jacrev(f, complex_blocks=True)(z)
    wanted = h.difference_matrix(lambda p: g(p[..., 0] + 1j * p[..., 1]), pairs(Z))
    np.testing.assert_allclose(flat, wanted, atol=1e-5)
    H, (y, aux) = gj.hessian(lambda z: (f(z), z), complex_blocks=True, has_aux=True, with_value=True, chunk_size=2)(Z)
    np.testing.assert_allclose(H.reshape(6, 6), flat, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(y, f(Z), rtol=1e-14)
    np.testing.assert_array_equal(aux, Z)
    tree = gj.hessian(lambda p: {"o": p["z"] * p["x"]}, complex_blocks=True)({"z": Z[:2], "x": np.ones(2)})
    assert tree["o"]["z"]["x"].shape == (2, 2, 2, 2, 2)
    assert tree["o"]["x"]["x"].shape == (2, 2, 2, 2)


def test_under_vmap_and_differentiated_again():
    f = lambda z: abs(z) ** 2 * z
    rows = np.stack([Z, 1j * Z])
    wanted = np.stack([gj.jacrev(f, complex_blocks=True)(z) for z in rows])
    for transform in TRANSFORMS:
        np.testing.assert_allclose(gj.vmap(transform(f, complex_blocks=True))(rows), wanted, rtol=1e-13, atol=1e-13)
    twice = gj.jacrev(lambda z: gj.jacfwd(f, complex_blocks=True)(z), complex_blocks=True)(Z)
    np.testing.assert_allclose(twice, gj.hessian(f, complex_blocks=True)(Z), rtol=1e-12, atol=1e-12)


def test_user_code_runs_once_and_may_branch():
    calls = []

    def f(z):
        calls.append(1)
        return z * z if abs(z[0]) > 1 else np.conj(z)

    J = gj.jacfwd(f, complex_blocks=True, chunk_size=1)(Z)
    assert len(calls) == 1
    np.testing.assert_allclose(J, gj.jacrev(lambda z: z * z, complex_blocks=True)(Z), rtol=1e-14)


# ---------------------------------------------------------------- holomorphic=True

HOLOMORPHIC = [
    ("polynomial", lambda z: z**3 - 2j * z, lambda z: 3 * z**2 - 2j),
    ("exp", np.exp, np.exp),
    ("log", np.log, lambda z: 1 / z),
    ("sqrt", np.sqrt, lambda z: 0.5 / np.sqrt(z)),
    ("sin", np.sin, np.cos),
    ("tanh", np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    ("quotient", lambda z: (z + 1j) / (z - 2), lambda z: 1 / (z - 2) - (z + 1j) / (z - 2) ** 2),
]
every_holomorphic = pytest.mark.parametrize(("f", "df"), [c[1:] for c in HOLOMORPHIC], ids=[c[0] for c in HOLOMORPHIC])


@every_holomorphic
def test_holomorphic_derivatives_in_every_transform(f, df):
    diagonal = np.diag(df(Z))
    for transform in TRANSFORMS:
        for chunk_size in (None, 1, 2):
            found = transform(f, holomorphic=True, chunk_size=chunk_size)(Z)
            np.testing.assert_allclose(found, diagonal, rtol=1e-13, atol=1e-14)
    found = gj.grad(lambda z: f(z).sum(), holomorphic=True)(Z)
    np.testing.assert_allclose(found, df(Z), rtol=1e-13)
    step = 1e-6
    np.testing.assert_allclose(df(Z), (f(Z + step) - f(Z - step)) / (2 * step), rtol=1e-8)
    np.testing.assert_allclose(df(Z), (f(Z + 1j * step) - f(Z - 1j * step)) / (2j * step), rtol=1e-8)


@every_holomorphic
def test_second_derivatives_of_holomorphic_functions(f, df):
    step = 1e-6
    second = (df(Z + step) - df(Z - step)) / (2 * step)
    H = gj.hessian(lambda z: f(z).sum(), holomorphic=True)(Z)
    np.testing.assert_allclose(H, np.diag(second), rtol=1e-7, atol=1e-8)
    whole = gj.hessian(f, holomorphic=True, chunk_size=2, inner_chunk_size=1)(Z)
    assert whole.shape == (3, 3, 3)
    np.testing.assert_allclose(whole.sum(0), H, rtol=1e-12, atol=1e-13)


def test_holomorphic_trees_and_single_precision():
    f = lambda p, w: {"a": p["z"] * w, "b": (p["z"] ** 2).sum()}
    p, w = {"z": Z.astype(np.complex64)}, np.complex64(2j)
    for transform in TRANSFORMS:
        J = transform(f, (0, 1), holomorphic=True)(p, w)
        np.testing.assert_allclose(J["a"][0]["z"], 2j * np.eye(3), rtol=1e-6)
        np.testing.assert_allclose(J["a"][1], p["z"], rtol=1e-6)
        np.testing.assert_allclose(J["b"][0]["z"], 2 * p["z"], rtol=1e-6)
        assert all(leaf.dtype == np.complex64 for leaf in h.leaves(J))


# ---------------------------------------------------------------- errors

X = np.array([1.0, 2.0])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: gj.jacrev(np.conj)(Z), r"jacrev: args\[0\] is complex128.*holomorphic=True.*complex_blocks=True"),
        (lambda: gj.jacfwd(lambda x: x * 1j)(X), r"jacfwd: output is complex128; .* ambiguous"),
        (lambda: gj.hessian(lambda z: abs(z).sum())(Z), r"hessian: args\[0\] is complex128"),
        (lambda: gj.jacrev(lambda z, x: z * x, (0, 1), holomorphic=True)(Z, np.ones(3)),
         r"args\[1\] is float64, but holomorphic=True needs complex inputs and outputs throughout"),
        (lambda: gj.jacfwd(abs, holomorphic=True)(Z), "output is float64, but holomorphic=True"),
        (lambda: gj.hessian(lambda p: (p["z"] * p["x"]).sum(), holomorphic=True)({"z": Z, "x": np.ones(3)}),
         r"hessian: args\[0\]\['x'\] is float64, but holomorphic=True"),
    ],
)  # fmt: skip
def test_what_is_ambiguous_or_mixed_is_refused(call, text):
    with pytest.raises(gj.DTypeError, match=text):
        call()


@pytest.mark.parametrize("transform", [*TRANSFORMS, gj.hessian])
def test_the_two_readings_exclude_each_other(transform):
    with pytest.raises(gj.ArgumentError, match=f"{transform.__name__}: holomorphic=True and complex_blocks=True"):
        transform(np.sin, holomorphic=True, complex_blocks=True)
    with pytest.raises(gj.ArgumentTypeError, match="first argument must be a function"):
        transform(1.0, complex_blocks=True)


def test_other_errors_keep_their_words():
    with pytest.raises(gj.StructureError, match=r"jacrev: with has_aux=True the function must return a tuple"):
        gj.jacrev(np.conj, complex_blocks=True, has_aux=True)(Z)
    with pytest.raises(gj.DTypeError, match=r"jacrev: args\[0\] has dtype int64"):
        gj.jacrev(np.sin, complex_blocks=True)(np.arange(3))
    with pytest.raises(gj.ArgnumsRangeError, match="jacfwd: argnums=2"):
        gj.jacfwd(np.conj, argnums=2, complex_blocks=True)(Z)
    with pytest.raises(gj.DTypeError, match="output has dtype int64"):
        gj.jacrev(lambda z: np.arange(3), complex_blocks=True)(Z)


@pytest.mark.parametrize("transform", [*TRANSFORMS, gj.hessian])
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"chunk_size": 0}, gj.ArgumentError), ({"argnums": 1.5}, gj.ArgumentTypeError),
        ({"argnums": "0"}, gj.ArgumentTypeError), ({"argnums": ()}, gj.ArgumentError),
        ({"memory": "xx"}, gj.ArgumentError), ({"assembly": "pile"}, gj.ArgumentError),
    ],
    ids=str,
)  # fmt: skip
def test_options_are_checked_when_built(transform, options, error):
    with pytest.raises(error, match=f"{transform.__name__}: {next(iter(options))}"):
        transform(np.abs, complex_blocks=True, **options)
