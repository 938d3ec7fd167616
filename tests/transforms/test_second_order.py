"""hvp, ggn_vp, hessian_diagonal and laplacian against the whole Hessian, and without ever holding it."""

import tracemalloc
import weakref

import numpy as np
import pytest

import gpujac as gj
from gpujac.errors import GpujacError
from gpujac.transforms import second_order
from tests.transforms import helpers as h

X = np.array([0.3, 1.2, -0.4, 0.7])
V = np.array([1.0, -2.0, 0.5, 3.0])
CHUNKS = ["auto", None, 1, 2, 3, 9]


def curved(x):
    return (np.sin(x) * x[0]).sum() + np.prod(x) + (x**3).sum()


def field(x):
    """Several outputs, one of them without curvature."""
    return {"a": np.outer(np.sin(x), x) * x[0], "b": (x.sum() ** 3, 2 * x[:2])}


@pytest.mark.parametrize(("name", "f", "args"), h.SAMPLES, ids=h.IDS)
def test_products_of_trees_are_those_of_the_hessian(name, f, args, rng):
    loss = h.scalar_of(f)
    every = tuple(range(len(args)))
    H = h.matrix_of(gj.hessian(loss, every)(*args), args, args)
    tangents = h.random_like(args, rng)
    found, y = gj.hvp(loss, args, tangents, with_value=True)
    np.testing.assert_allclose(h.vector(found), H @ h.vector(tangents), rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(y, loss(*args))
    assert type(found) is tuple
    h.assert_owned(found, args, tangents)
    diagonal = gj.hessian_diagonal(loss, every)(*args)
    np.testing.assert_allclose(h.vector(diagonal), np.diagonal(H), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(gj.laplacian(loss, every)(*args), np.trace(H), rtol=1e-10, atol=1e-10)
    h.assert_owned(diagonal, args)


@pytest.mark.parametrize(("name", "model", "args"), h.SAMPLES, ids=h.IDS)
def test_gauss_newton_products_of_trees(name, model, args, rng):
    weights = [np.cos(np.arange(np.size(y)) + 1.0).reshape(np.shape(y)) for y in h.leaves(model(*args))]

    def loss(z):
        return sum((w * z**2 + z**3 / 5).sum() for w, z in zip(weights, h.leaves(z))) + h.leaves(z)[0].sum() ** 2

    every = tuple(range(len(args)))
    y = model(*args)
    J = h.matrix_of(gj.jacrev(model, every)(*args), y, args)
    H = h.matrix_of((gj.hessian(loss)(y),), (y,), (y,))
    tangents = h.random_like(args, rng)
    found, value = gj.ggn_vp(model, loss, args, tangents, with_value=True)
    np.testing.assert_allclose(h.vector(found), J.T @ (H @ (J @ h.vector(tangents))), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(value, loss(y), rtol=1e-14)
    h.assert_owned(found, args, tangents)


def test_gauss_newton_is_the_hessian_of_a_linear_model(rng):
    A = rng.standard_normal((3, 4))
    loss = lambda z: np.exp(z).sum()
    (found,) = gj.ggn_vp(lambda x: A @ x, loss, (X,), (V,))
    np.testing.assert_allclose(found, gj.hvp(lambda x: loss(A @ x), (X,), (V,))[0], rtol=1e-13)


def test_the_model_runs_once_and_the_loss_once():
    calls = []
    model = lambda x: (calls.append("model"), np.sin(x))[1]
    loss = lambda z: (calls.append("loss"), (z**2).sum())[1]
    gj.ggn_vp(model, loss, (X,), (V,))
    assert calls == ["model", "loss"]
    calls.clear()
    gj.hvp(lambda x: loss(model(x)), (X,), (V,))
    assert calls == ["model", "loss"]
    calls.clear()
    gj.hessian_diagonal(lambda x: loss(model(x)), chunk_size=1)(X)
    assert calls == ["model", "loss"]


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_diagonals_in_chunks_of_any_size(chunk_size):
    H = gj.hessian(curved)(X)
    np.testing.assert_allclose(gj.hessian_diagonal(curved, chunk_size=chunk_size)(X), np.diagonal(H), rtol=1e-13)
    np.testing.assert_allclose(gj.laplacian(curved, chunk_size=chunk_size)(X), np.trace(H), rtol=1e-13)
    two = lambda p, q: (p["u"] * q[0] ** 2).sum() + (p["u"] ** 3).sum() * q[1]
    p, q = {"u": X[:3].reshape(3, 1)}, (X, 2.0)
    D = gj.hessian_diagonal(two, argnums=(1, 0), chunk_size=chunk_size)(p, ((X[:3].reshape(3, 1)), 2.0))
    np.testing.assert_allclose(D[1]["u"], 12 * p["u"], rtol=1e-13)
    np.testing.assert_allclose(D[0][0], 2 * p["u"], rtol=1e-13)
    assert float(D[0][1]) == 0.0
    assert q[1] == 2.0


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_any_output_has_its_diagonals(chunk_size):
    H = gj.hessian(field)(X)
    D = gj.hessian_diagonal(field, chunk_size=chunk_size)(X)
    L = gj.laplacian(field, chunk_size=chunk_size)(X)
    for whole, diagonal, trace in zip(h.leaves(H), h.leaves(D), h.leaves(L), strict=True):
        np.testing.assert_allclose(diagonal, np.diagonal(whole, axis1=-2, axis2=-1), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(trace, np.trace(whole, axis1=-2, axis2=-1), rtol=1e-12, atol=1e-14)
    h.assert_owned((D, L), X)


def test_nesting_of_outputs_and_arguments():
    f = lambda p, s: {"out": p["w"] ** 2 * s**3}
    p, s = {"w": np.ones((2, 3))}, 2.0
    D = gj.hessian_diagonal(f, (0, 1))(p, s)
    assert D["out"][0]["w"].shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(D["out"][1], np.full((2, 3), 12.0))
    np.testing.assert_array_equal(gj.laplacian(f, (0, 1))(p, s)["out"], np.full((2, 3), 16.0 + 12.0))
    np.testing.assert_array_equal(gj.hessian_diagonal(f)(p, s)["out"]["w"].sum((2, 3)), np.full((2, 3), 16.0))
    (only,) = gj.hessian_diagonal(lambda x: (x**2).sum(), (0,))(X)
    np.testing.assert_array_equal(only, 2 * np.ones(4))


def test_aux_and_values():
    f = lambda x, k: (k * curved(x), {"aux": x * 2, "name": "n"})
    for transform, result in ((gj.hessian_diagonal, np.diagonal(gj.hessian(curved)(X))),
                              (gj.laplacian, np.trace(gj.hessian(curved)(X)))):  # fmt: skip
        found, aux = transform(f, has_aux=True)(X, k=2.0)
        np.testing.assert_allclose(found, 2 * result, rtol=1e-13)
        np.testing.assert_array_equal(aux["aux"], 2 * X)
        assert aux["name"] == "n"
        found, (y, aux) = transform(f, has_aux=True, with_value=True)(X, k=2.0)
        np.testing.assert_allclose(y, 2 * curved(X), rtol=1e-14)
        found, y = transform(curved, with_value=True)(X)
        np.testing.assert_array_equal(y, curved(X))
        assert not gj.is_traced(y)
        many = lambda x: (field(x), x)
        found, (y, aux) = transform(many, has_aux=True, with_value=True)(X)
        h.assert_close(y, field(X))
        np.testing.assert_array_equal(aux, X)
    g = lambda x: (curved(x), "aux")
    product = gj.hvp(curved, (X,), (V,))[0]
    found, aux = gj.hvp(g, (X,), (V,), has_aux=True)
    np.testing.assert_array_equal(found[0], product)
    assert aux == "aux"
    found, (y, aux) = gj.hvp(g, (X,), (V,), has_aux=True, with_value=True)
    assert (float(y), aux) == (float(curved(X)), "aux")
    model = lambda x: (np.sin(x), x)
    found, (y, aux) = gj.ggn_vp(model, lambda z: (z**2).sum(), (X,), (V,), has_aux=True, with_value=True)
    np.testing.assert_allclose(y, (np.sin(X) ** 2).sum(), rtol=1e-14)
    np.testing.assert_array_equal(aux, X)


def test_under_vmap_and_differentiated_again():
    rows = np.stack([X, 2 * X, -X])
    H = np.stack([gj.hessian(curved)(x) for x in rows])
    diagonals = np.stack([np.diagonal(m) for m in H])
    np.testing.assert_allclose(gj.vmap(gj.hessian_diagonal(curved))(rows), diagonals, rtol=1e-12)
    np.testing.assert_allclose(gj.vmap(gj.hessian_diagonal(curved, chunk_size=3))(rows), diagonals, rtol=1e-12)
    np.testing.assert_allclose(gj.vmap(gj.laplacian(curved), chunk_size=2)(rows), diagonals.sum(1), rtol=1e-12)
    np.testing.assert_allclose(gj.vmap(lambda x: gj.hvp(curved, (x,), (V,))[0])(rows), H @ V, rtol=1e-12)
    np.testing.assert_allclose(gj.vmap(lambda v: gj.hvp(curved, (X,), (v,))[0])(np.eye(4)), H[0], rtol=1e-12)
    L = gj.vmap(gj.laplacian(field))(rows)["a"]
    np.testing.assert_allclose(L[2], gj.laplacian(field)(-X)["a"], rtol=1e-12)
    model, loss = np.sin, lambda z: (z**4).sum()
    products = gj.vmap(lambda x: gj.ggn_vp(model, loss, (x,), (V,))[0])(rows)
    np.testing.assert_allclose(products, np.cos(rows) ** 2 * 12 * np.sin(rows) ** 2 * V, rtol=1e-12)

    third = gj.jacfwd(gj.hessian(curved))(X)
    J = np.stack([third[i, i] for i in range(4)])
    for transform in (gj.jacrev, gj.jacfwd):
        np.testing.assert_allclose(transform(gj.hessian_diagonal(curved))(X), J, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(transform(gj.laplacian(curved))(X), J.sum(0), rtol=1e-11, atol=1e-12)
        found = transform(lambda x: gj.hvp(curved, (x,), (V,))[0])(X)
        np.testing.assert_allclose(found, np.tensordot(V, third, 1), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(gj.grad(lambda x: gj.laplacian(field)(x)["b"][0])(X), np.full(4, 24.0), rtol=1e-12)
    bilaplacian = gj.laplacian(gj.laplacian(lambda x: (x**4).sum() + (x[0] * x[1]) ** 2))
    np.testing.assert_allclose(bilaplacian(X), 24.0 * 4 + 8.0, rtol=1e-12)


def test_values_may_decide():
    f = lambda x: (x**3).sum() if x[0] > 0 else (x**2).sum()
    for sign, wanted in ((1, 6 * X), (-1, 2 * np.ones(4))):
        np.testing.assert_allclose(gj.hessian_diagonal(f)(sign * X), wanted, rtol=1e-13)
    g = lambda x: np.stack([f(x), f(-x)])
    np.testing.assert_allclose(gj.laplacian(g)(X), [6 * X.sum(), 8.0], rtol=1e-13)


def test_harmonic_functions_and_waves():
    rng_points = np.linspace(-1, 1, 6).reshape(3, 2)
    harmonic = lambda p: np.exp(p[0]) * np.sin(p[1])
    np.testing.assert_allclose(gj.vmap(gj.laplacian(harmonic))(rng_points), np.zeros(3), atol=1e-14)
    k = np.array([1.5, -2.0])
    wave = lambda p: np.stack([np.sin(k @ p), np.cos(k @ p)])
    found = gj.vmap(gj.laplacian(wave))(rng_points)
    np.testing.assert_allclose(found, -(k @ k) * np.stack([wave(p) for p in rng_points]), rtol=1e-12, atol=1e-13)


def test_dtypes_follow_the_arguments():
    x = X.astype(np.float32)
    assert gj.hessian_diagonal(lambda x: (x**3).sum())(x).dtype == np.float32
    assert gj.laplacian(lambda x: (x**3).sum())(x).dtype == np.float32
    assert gj.laplacian(lambda x: x**3)(x).dtype == np.float32
    assert gj.hvp(lambda x: (x**3).sum(), (x,), (V,))[0].dtype == np.float32
    mixed = gj.hessian_diagonal(lambda x, y: (x**3 * y**2).sum(), (0, 1))(x, X)
    assert (mixed[0].dtype, mixed[1].dtype) == (np.float32, np.float64)
    assert gj.hessian_diagonal(lambda x: x**3)(2.0) == 12.0
    assert gj.laplacian(lambda x: x**3)(2.0) == 12.0


def test_no_curvature_and_nothing_at_all():
    np.testing.assert_array_equal(gj.hessian_diagonal(lambda x: x.sum())(X), np.zeros(4))
    np.testing.assert_array_equal(gj.laplacian(lambda x: 1.0)(X), 0.0)
    np.testing.assert_array_equal(gj.laplacian(lambda x: x)(X), np.zeros(4))
    assert gj.hessian_diagonal(lambda x: x.sum())(np.zeros(0)).shape == (0,)
    assert float(gj.laplacian(lambda x: x.sum())(np.zeros((0, 2)))) == 0.0
    assert gj.hessian_diagonal(lambda x: x)(np.zeros((0, 2))).shape == (0, 2, 0, 2)
    np.testing.assert_array_equal(gj.hvp(lambda x: x.sum(), (X,), (V,))[0], np.zeros(4))


def peak_bytes(call):
    call()
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_the_whole_matrix_is_never_held():
    n = 1000
    x = np.linspace(0.0, 1.0, n)
    coupled = lambda x: np.sin(np.cumsum(x)).sum() + (x @ x) ** 2
    whole = n * n * 8
    assert peak_bytes(lambda: gj.hessian_diagonal(coupled, chunk_size=8)(x)) < whole / 8
    assert peak_bytes(lambda: gj.laplacian(coupled, chunk_size=8)(x)) < whole / 8
    assert peak_bytes(lambda: gj.hessian_diagonal(coupled, memory=whole // 8)(x)) < whole / 4
    assert peak_bytes(lambda: gj.hessian(coupled)(x)) > whole


@pytest.mark.parametrize("f", [curved, field], ids=["scalar", "tree"])
@pytest.mark.parametrize("transform", [gj.hessian_diagonal, gj.laplacian])
def test_a_chunk_that_runs_out_of_memory_is_halved(monkeypatch, transform, f):
    wanted = transform(f)(X)
    refused, tried = {1}, []

    def refusing(make, rows_of):
        def g(*args, **kwargs):
            tried.append(rows_of(*args))
            if len(tried) in refused:
                raise MemoryError
            return make(*args, **kwargs)

        return g

    rows = lambda program, seeds, *rest: max(s.rows for s in seeds if s is not None)
    monkeypatch.setattr(second_order, "push", refusing(second_order.push, rows))
    mapped = second_order.vmap
    monkeypatch.setattr(second_order, "vmap", lambda f, **kw: refusing(mapped(f, **kw), lambda *ts: ts[0].shape[0]))
    h.assert_close(transform(f, chunk_size=4)(X), wanted, 1e-14)
    assert tried == [4, 2, 2]
    tried.clear()
    refused = {2}  # what the first chunk gave stays
    h.assert_close(transform(f, chunk_size=2)(X), wanted, 1e-14)
    assert tried == [2, 2, 1, 1]
    tried.clear()
    refused = {1, 2}
    with pytest.raises(MemoryError) as caught:
        transform(f, chunk_size=2)(X)
    assert "begins at 0 of 4; chunks of 2 down to 1 were tried" in caught.value.__notes__[0]


def test_a_sum_of_functions_of_single_entries_takes_one_pass_without_rows():
    n = 3000
    x = np.linspace(0.0, 1.0, n)
    apart = lambda x: (np.sin(x) * x**2).sum()
    assert peak_bytes(lambda: gj.hessian_diagonal(apart)(x)) < 100 * n * 8
    wanted = (2 - x**2) * np.sin(x) + 4 * x * np.cos(x)
    np.testing.assert_allclose(gj.hessian_diagonal(apart)(x), wanted, rtol=1e-11, atol=1e-13)


# ---------------------------------------------------------------- errors

REFUSED = [
    (lambda: gj.hvp(1, (X,), (V,)), gj.ArgumentTypeError, "hvp: the first argument must be a function"),
    (lambda: gj.hvp(curved, X, V), gj.ArgumentTypeError, "hvp: primals must be a tuple"),
    (lambda: gj.hvp(curved, (), ()), gj.ArgumentError, "hvp: the primals hold no array"),
    (lambda: gj.hvp(curved, (X,), (V[:2],)), gj.ShapeError, r"hvp: tangents\[0\] has shape \(2,\)"),
    (lambda: gj.hvp(curved, (X,), (V, V)), gj.StructureError, "hvp: 2 tangents for 1 primals"),
    (lambda: gj.hvp(np.sin, (X,), (V,)), gj.ShapeError, r"hvp: the function must return a scalar.*\(4,\)"),
    (lambda: gj.hvp(field, (X,), (V,)), gj.StructureError, "hvp: the function must return one scalar"),
    (lambda: gj.hvp(lambda x: 1, (X,), (V,)), gj.DTypeError, "hvp: the output has dtype int64"),
    (lambda: gj.hvp(lambda x: (x * 1j).sum(), (X,), (V,)), gj.DTypeError, "hvp: output is complex128"),
    (lambda: gj.hvp(curved, (X + 0j,), (V,)), gj.DTypeError, r"hvp: args\[0\] is complex128"),
    (lambda: gj.hvp(lambda n: n * 1.0, (3,), (1.0,)), gj.DTypeError, r"hvp: args\[0\] has dtype int64"),
    (lambda: gj.hvp(curved, (X,), (V,), has_aux=True), gj.StructureError, "has_aux=True"),
    (lambda: gj.ggn_vp(np.sin, 2, (X,), (V,)), gj.ArgumentTypeError, "ggn_vp: the first argument must be a function"),
    (lambda: gj.ggn_vp(np.sin, np.cos, (X,), (V,)), gj.ShapeError,
     r"ggn_vp: the loss \(second argument\) must return a scalar"),
    (lambda: gj.ggn_vp(np.sin, lambda z: (z, z), (X,), (V,)), gj.StructureError,
     r"ggn_vp: the loss \(second argument\) must return one scalar"),
    (lambda: gj.ggn_vp(lambda x: x * 1j, np.sum, (X,), (V,)), gj.DTypeError, "ggn_vp: output is complex128"),
    (lambda: gj.ggn_vp(lambda x: 3, np.sum, (X,), (V,)), gj.DTypeError, "ggn_vp: output has dtype int64"),
    (lambda: gj.laplacian(curved)(X * 1j), gj.DTypeError, r"laplacian: args\[0\] is complex128"),
    (lambda: gj.laplacian(lambda x: x * 1j)(X), gj.DTypeError, "laplacian: output is complex128"),
    (lambda: gj.laplacian(lambda x: (x * 1j).sum())(X), gj.DTypeError, "laplacian: output is complex128"),
    (lambda: gj.laplacian(lambda x: {"n": 3})(X), gj.DTypeError, r"laplacian: output\['n'\] has dtype int64"),
    (lambda: gj.hessian_diagonal(curved, chunk_size=0), gj.ArgumentError, "hessian_diagonal: chunk_size=0"),
    (lambda: gj.hessian_diagonal(curved, argnums=()), gj.ArgumentError, "hessian_diagonal: argnums"),
    (lambda: gj.hessian_diagonal(curved, 1)(X), gj.ArgnumsRangeError, "hessian_diagonal: argnums=1"),
    (lambda: gj.hessian_diagonal(curved, memory="x"), GpujacError, "hessian_diagonal: memory"),
    (lambda: gj.laplacian(None), gj.ArgumentTypeError, "laplacian: the first argument must be a function"),
]


@pytest.mark.parametrize(("call", "error", "text"), REFUSED)
def test_what_has_no_second_derivative_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_the_first_run_of_a_vector_function_is_over_when_the_second_begins():
    """Its residuals are gone, and an error of the second run has no context of ours."""
    kept, alive = [], []

    def f(x):
        if kept:
            alive.append(kept[0]() is not None)
        y = np.sin(x)
        if not kept:
            kept.append(weakref.ref(gj.value(y)))
        return np.cos(y) * x

    gj.hessian_diagonal(f)(np.arange(3.0))
    assert alive
    assert not any(alive)
    runs = []

    def failing(x):
        runs.append(x)
        if len(runs) > 1:
            raise KeyError("mine")
        return x * 2

    with pytest.raises(KeyError) as caught:
        gj.hessian_diagonal(failing)(np.arange(3.0))
    assert caught.value.__context__ is None


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_numbers_from_keys_are_the_same_in_all_runs(chunk_size):
    key = gj.random.key(0)
    noise = gj.random.normal(key, (3,))
    f = lambda x: gj.random.normal(key, (3,)) * x**2
    x = np.arange(1.0, 4.0)
    found, y = gj.hessian_diagonal(f, chunk_size=chunk_size, with_value=True)(x)
    np.testing.assert_allclose(found, np.diag(2 * noise))
    np.testing.assert_allclose(y, noise * x**2)
    np.testing.assert_allclose(gj.laplacian(f, chunk_size=chunk_size)(x), 2 * noise)


@pytest.mark.parametrize("transform", [gj.hessian_diagonal, gj.laplacian])
def test_arguments_without_arrays_are_refused(transform):
    with pytest.raises(gj.ArgumentError, match="arguments hold no array: there is nothing to differentiate"):
        transform(lambda p: 3.0)({})
