"""checkpoint: the values and derivatives of the function itself, under every transform and policy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpujac as gj
from gpujac.control import checkpoint_name, names
from tests.transforms import helpers as h

X = np.array([0.1, 0.3, -0.5, 0.7])
ROWS = np.stack([X, 2 * X, -X])
W = np.sin(np.arange(16.0)).reshape(4, 4) / 2
POLICIES = {
    "default": None,
    "nothing": "nothing",
    "matmuls": "matmuls",
    "everything": "everything",
    "names": names("z", "absent"),
    "a callable": lambda operation, name: operation in ("tanh", "exp"),
}
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


def block(x):
    y = np.tanh(W @ x)
    z = checkpoint_name(np.sin(y) * x, "z")
    return np.where(x > 0.2, z * z, y) + W @ np.exp(z * 0.1)


def in_place(x):
    y = np.zeros_like(x)
    y[1:] = x[:-1] ** 2
    y[0] += np.cumsum(x)[2]
    return y * np.sort(x)


def branching(x):
    if x[0] > x[1]:
        return x * 2
    return np.stack([np.sin(x[i]) * x[i - 1] for i in range(4)]) / np.linalg.norm(x)


FUNCTIONS = [block, in_place, branching]
every_function = pytest.mark.parametrize("f", FUNCTIONS)
TRANSFORMS = {
    "value": lambda f: f,
    "grad": lambda f: gj.grad(lambda x: f(x).sum()),
    "value_and_grad": lambda f: gj.value_and_grad(lambda x: (f(x) ** 2).sum()),
    "vjp": lambda f: lambda x: gj.vjp(f, x)[1](x)[0],
    "jvp": lambda f: lambda x: gj.jvp(f, (x,), (x * x,)),
    "linearize": lambda f: lambda x: gj.linearize(f, x)[1](x * x),
    "jacrev": lambda f: gj.jacrev(f),
    "jacrev in chunks": lambda f: gj.jacrev(f, chunk_size=3),
    "jacrev row by row": lambda f: gj.jacrev(f, chunk_size=1),
    "jacfwd": lambda f: gj.jacfwd(f),
    "jacfwd in chunks": lambda f: gj.jacfwd(f, chunk_size=3),
    "hessian": lambda f: gj.hessian(f),
    "hessian in chunks": lambda f: gj.hessian(f, chunk_size=2, inner_chunk_size=3),
    "jacrev of jacfwd": lambda f: gj.jacrev(gj.jacfwd(f)),
    "grad of jvp": lambda f: gj.grad(lambda x: gj.jvp(f, (x,), (x * x,))[1].sum()),
    "jvp of grad": lambda f: lambda x: gj.jvp(gj.grad(lambda x: (f(x) ** 2).sum()), (x,), (x,)),
}
every_transform = pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)


def assert_same(found, expected):
    a, b = h.leaves(found), h.leaves(expected)
    assert [np.shape(x) for x in a] == [np.shape(x) for x in b]
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12)


@every_policy
@every_transform
def test_every_transform_gives_what_it_gives_without(transform, policy):
    assert_same(transform(gj.checkpoint(block, policy=policy))(X), transform(block)(X))


@every_function
@every_transform
def test_writes_and_branches_are_done_again(transform, f):
    assert_same(transform(gj.checkpoint(f))(X), transform(f)(X))


@every_policy
@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.hessian])
def test_vmap_inside_and_outside(transform, policy):
    g = gj.checkpoint(block, policy=policy)
    assert_same(gj.vmap(transform(g))(ROWS), gj.vmap(transform(block))(ROWS))
    assert_same(transform(gj.vmap(g))(ROWS), transform(gj.vmap(block))(ROWS))
    both = [gj.vmap(k, in_dims=1, out_dims=1) for k in (g, block)]
    assert_same(transform(both[0])(ROWS.T), transform(both[1])(ROWS.T))
    assert_same(gj.vmap(transform(g), chunk_size=2)(ROWS), gj.vmap(transform(block))(ROWS))


def test_vmap_of_vmap_and_an_empty_batch():
    g = gj.checkpoint(block, policy="matmuls")
    grad = lambda f: gj.grad(lambda x: f(x).sum())
    cube = np.stack([ROWS, ROWS + 0.1])
    assert_same(gj.vmap(gj.vmap(grad(g)))(cube), gj.vmap(gj.vmap(grad(block)))(cube))
    assert_same(gj.vmap(grad(g))(ROWS[:0]), gj.vmap(grad(block))(ROWS[:0]))


@every_policy
def test_what_lanes_share_gets_the_sum_of_their_cotangents(policy):
    def loss(wrap):
        def total(w, x):
            return gj.vmap(wrap(lambda row: np.tanh(w @ row) * w[0]))(x).sum()

        return total

    ours, plain = loss(lambda f: gj.checkpoint(f, policy=policy)), loss(lambda f: f)
    for argnums in (0, 1, (0, 1)):
        assert_same(gj.grad(ours, argnums)(W, ROWS), gj.grad(plain, argnums)(W, ROWS))
    assert_same(gj.hessian(ours)(W, ROWS), gj.hessian(plain)(W, ROWS))


@every_policy
@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.hessian])
@pytest.mark.parametrize("argnums", [0, 1, (0, 1)])
def test_captured_traced_values_and_what_is_made_of_them(transform, argnums, policy):
    def outer(wrap):
        def f(x, w):
            u = w * 2

            def layer(y):
                return np.tanh((u + w) @ y) * w[0] + x

            again = wrap(layer)
            return again(again(x))

        return f

    ours, plain = outer(lambda f: gj.checkpoint(f, policy=policy)), outer(lambda f: f)
    assert_same(transform(ours, argnums)(X, W), transform(plain, argnums)(X, W))


def test_a_function_without_arguments_that_captures_all():
    f = lambda x: gj.checkpoint(lambda: np.sin(x) * x)()
    assert_same(gj.jacrev(f)(X), gj.jacrev(lambda x: np.sin(x) * x)(X))


@every_policy
@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.hessian])
def test_checkpoints_nest(transform, policy):
    inner = gj.checkpoint(block, policy=policy)
    nested = gj.checkpoint(lambda x: inner(np.sin(x)) * x, policy=policy)
    plain = lambda x: block(np.sin(x)) * x
    assert_same(transform(nested)(X), transform(plain)(X))
    assert_same(gj.vmap(transform(nested))(ROWS), gj.vmap(transform(plain))(ROWS))


@every_policy
@pytest.mark.parametrize("inner", [gj.jacfwd, gj.jacrev])
def test_transforms_inside(inner, policy):
    f = lambda x: inner(block)(x).sum(0) * gj.vmap(lambda a: np.sin(a * x))(x).sum(0)
    assert_same(gj.jacrev(gj.checkpoint(f, policy=policy))(X), gj.jacrev(f)(X))
    assert_same(gj.jacfwd(gj.checkpoint(f, policy=policy))(X), gj.jacfwd(f)(X))


def test_third_order():
    third = lambda f: gj.jacrev(gj.jacfwd(gj.jacrev(f)))
    assert_same(third(gj.checkpoint(block, policy="matmuls"))(X), third(block)(X))


def test_trees_keyword_arguments_and_other_things_pass():
    def f(p, x, count, *, mode, scale=2.0):
        assert mode == "sum"
        assert isinstance(count, int)
        return {"y": np.tanh(p["w"] @ x) * scale, "all": (p["b"] * count, None)}, "kept"

    p = {"w": W, "b": X}

    def loss(f):
        def total(p, x):
            out, word = f(p, x, 3, mode="sum", scale=1.5)
            assert word == "kept"
            assert out["all"][1] is None
            return out["y"] @ out["all"][0], out

        return total

    ours, plain = (gj.value_and_grad(loss(g), (0, 1), has_aux=True) for g in (gj.checkpoint(f), f))
    assert_same(ours(p, X), plain(p, X))


def test_integers_and_masks_go_in_and_out():
    table = np.array([3, 1, 0, 2])

    def f(x, index, mask):
        order = np.argsort(x)
        return np.where(mask, x[index], x[order]) * x[np.argmax(x)], index + 1, x > 0

    def loss(f):
        def total(x):
            y, moved, positive = f(x, table, X > 0)
            return (y * np.where(positive, 2.0, 1.0))[moved[2]]

        return total

    assert_same(gj.grad(loss(gj.checkpoint(f)))(X), gj.grad(loss(f))(X))


def test_a_mask_that_is_written_into_counts_as_written():
    def f(x):
        mask = x > 0
        y = np.where(mask, x * x, x)
        mask[0] = False
        return y + np.where(mask, np.sin(x), 0.0)

    assert_same(gj.jacrev(gj.checkpoint(f))(X), gj.jacrev(f)(X))


def test_a_work_buffer_is_read_as_it_was():
    def f(x):
        buffer, total = np.ones(4), x * 0
        for k in range(3):
            buffer[:] = k + 1.0
            total = total + np.sin(x * buffer)
        return total

    assert_same(gj.jacrev(gj.checkpoint(f))(X), gj.jacrev(f)(X))


def test_stop_gradient_inside_stops():
    f = lambda x: np.sin(x) * gj.stop_gradient(x * x)
    for transform in (gj.jacrev, gj.jacfwd, gj.hessian):
        assert_same(transform(gj.checkpoint(f))(X), transform(f)(X))


def test_the_function_runs_once_whatever_it_draws():
    calls = []
    generator = np.random.default_rng(1)

    def f(x):
        calls.append(1)
        return np.sin(x) * generator.standard_normal(4)

    J = gj.jacrev(gj.checkpoint(f), chunk_size=1)(X)
    assert len(calls) == 1
    noise = np.random.default_rng(1).standard_normal(4)
    assert_same(J, np.diag(np.cos(X) * noise))


def test_singular_slopes_stay_masked():
    f = lambda x: np.where(x > 0, np.sqrt(np.where(x > 0, x, 0.0)), 0.0)
    z = np.array([0.0, 1.0, -1.0, 4.0])
    assert_same(gj.jacrev(gj.checkpoint(f, policy=lambda *_: True))(z), gj.jacrev(f)(z))


def test_complex_functions():
    f = lambda z: np.exp(z * 1j) * np.conj(z).real
    z = X + 1j * X[::-1]
    ours, plain = (gj.vjp(g, z)[1](z * 2j)[0] for g in (gj.checkpoint(f), f))
    assert_same(ours, plain)
    square = lambda z: np.sin(z) * z
    assert_same(gj.jacrev(gj.checkpoint(square), holomorphic=True)(z), gj.jacrev(square, holomorphic=True)(z))


@given(st.sampled_from(["float32", "float64"]), st.integers(0, 3), st.integers(1, 3))
def test_shapes_and_dtypes(dtype, rows, columns):
    x = np.linspace(0.1, 1.0, rows * columns).reshape(rows, columns).astype(dtype)
    f = lambda x: np.tanh(x.T @ x) + np.float32(2) * x.sum()
    ours, plain = (gj.jacrev(g)(x) for g in (gj.checkpoint(f, policy="matmuls"), f))
    assert ours.dtype == plain.dtype == dtype
    np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)


def test_outputs_that_are_constants_or_arguments():
    f = lambda x: (x, np.ones(2), np.zeros_like(x), 3.0, x * 1)

    def loss(f):
        def total(x):
            same, ones, zeros, number, y = f(x)
            zeros[0] = x[1]
            return (same * y).sum() + ones.sum() * number + zeros.sum()

        return total

    assert_same(gj.grad(loss(gj.checkpoint(f)))(X), gj.grad(loss(f))(X))


VALUES = {
    "plain": lambda g: g(X.copy()),
    "beside a transform": lambda g: gj.value_and_grad(lambda t: g(X.copy()) * t)(1.0)[0],
    "value_and_grad": lambda g: gj.value_and_grad(g)(X.copy())[0],
    "vjp": lambda g: gj.vjp(g, X.copy())[0],
    "jvp": lambda g: gj.jvp(g, (X.copy(),), (X,))[0],
    "linearize": lambda g: gj.linearize(g, X.copy())[0],
    "jacfwd": lambda g: gj.jacfwd(g, with_value=True)(X.copy())[1],
    "hessian": lambda g: gj.hessian(g, with_value=True)(X.copy())[1],
    "vmap": lambda g: gj.vmap(g)(np.stack([X, X]))[0],
    "vmap by a loop": lambda g: gj.vmap(g, method="loop")(np.stack([X, X]))[0],
    "vmap of grad": lambda g: gj.vmap(gj.value_and_grad(g))(np.stack([X, X]))[0][1],
    "grad of vmap": lambda g: gj.value_and_grad(lambda x: gj.vmap(g)(x)[0])(np.stack([X, X]))[0],
}
every_mode = pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
each_way = pytest.mark.parametrize("policy", [None, "matmuls", "everything"])  # a tape, one that keeps, none


@each_way
@every_mode
def test_a_result_is_no_view_of_an_argument_or_of_what_f_captured(value, policy):
    table = X + 1

    def loss(x):
        part, same, other, held = gj.checkpoint(lambda v: (v[:2], v, v, table), policy=policy)(x)
        part[0], held[1] = 5.0, 7.0
        same += 1
        return (x * x).sum() + part[0] + 2 * same.sum() + 3 * other.sum() + table.sum() + held.sum()

    wanted = (X * X).sum() + 5 + 2 * (X + 1).sum() + 3 * X.sum() + (X + 1).sum() + (X + 1).sum() + 7 - X[1] - 1
    np.testing.assert_allclose(value(loss), wanted)
    assert_same(table, X + 1)


@each_way
@every_mode
def test_a_write_into_an_argument_stays_inside(value, policy):
    numbers = np.array([3, 1])

    def f(p, n, *, scale):
        p["x"][0] = 1.0
        p["x"] *= 2
        n += 1
        scale[...] = 9.0
        return p["x"] * n.sum() + scale

    def loss(x):
        scale = np.asarray(4.0)
        y = gj.checkpoint(f, policy=policy)({"x": x}, numbers, scale=scale)
        return y.sum() + (x * x).sum() + scale

    x = np.array([1.0, *X[1:]])
    np.testing.assert_allclose(value(loss), (2 * x * 6 + 9).sum() + (X * X).sum() + 4)
    assert_same(numbers, np.array([3, 1]))


@each_way
def test_derivatives_of_a_function_that_writes_into_its_argument(policy):
    def f(x):
        x[0] = x[1] * x[2]
        return x * x

    def plain(x):
        x = x.copy()
        return f(x)

    ours = lambda x: gj.checkpoint(f, policy=policy)(x) * x
    for transform in (gj.jacrev, gj.jacfwd, gj.hessian, gj.jacobian):
        assert_same(transform(ours)(X), transform(lambda x: plain(x) * x)(X))
        assert_same(gj.vmap(transform(ours))(ROWS), gj.vmap(transform(lambda x: plain(x) * x))(ROWS))


def test_an_unknown_policy_is_refused_when_built():
    with pytest.raises(gj.ArgumentError, match="policy='all'; choose \"nothing\", \"matmuls\" or \"everything\""):
        gj.checkpoint(block, policy="all")
    with pytest.raises(gj.ArgumentTypeError, match="policy=3 is a int"):
        gj.checkpoint(block, policy=3)
    with pytest.raises(gj.ArgumentTypeError, match="the first argument must be a function"):
        gj.checkpoint(X)
    with pytest.raises(gj.ArgumentTypeError, match="names: 3 is a int"):
        names("a", 3)
    with pytest.raises(gj.ArgumentTypeError, match="checkpoint_name: name=3"):
        checkpoint_name(X, 3)


def test_a_name_changes_nothing():
    f = lambda x: np.sin(checkpoint_name(x, "x")) * x
    plain = lambda x: np.sin(x) * x
    assert checkpoint_name(X, "x") is X
    for transform in (gj.jacrev, gj.jacfwd, gj.hessian, gj.vmap):
        assert_same(transform(f)(X), transform(plain)(X))


def test_a_leaked_value_says_so():
    kept = []

    def f(x):
        kept.append(x * 2)
        return x

    gj.grad(lambda x: gj.checkpoint(f)(x).sum())(X)
    with pytest.raises(gj.LeakedTracerError, match="checkpoint of f"):
        kept[0] + 1


def test_an_error_leaves_no_level_open():
    def f(x):
        raise KeyError("user")

    with pytest.raises(KeyError):
        gj.grad(gj.checkpoint(f))(1.0)
    assert_same(gj.jacrev(gj.checkpoint(block))(X), gj.jacrev(block)(X))


def test_linear_transpose_runs_the_function_itself():
    f = lambda x: W @ x[::-1]
    ours, plain = (gj.linear_transpose(g, X)(X)[0] for g in (gj.checkpoint(f), f))
    assert_same(ours, plain)


COMPOSITES = {
    "interp": lambda x: np.interp(x * 1.5, np.array([0.0, 2.0, 9.0]), np.array([0.0, 3.0, 4.0])),
    "interp of a traced table": lambda x: np.interp(x, np.array([-9.0, 0.0, 2.0, 9.0]), np.append(x.ravel()[:3], 1.0)),
    "quantile": lambda x: np.quantile(x * 2, 0.3) * x,
    "a traced quantile": lambda x: np.quantile(x * 2, 0.5 + x.ravel()[:1] / 30) * x.sum(),
}


@pytest.mark.parametrize("f", COMPOSITES.values(), ids=COMPOSITES)
@pytest.mark.parametrize(("shape", "layout"), [((2, 2), "C"), ((2, 3), "F"), ((1, 4), "strided")])
@pytest.mark.parametrize("saves", [lambda op, name: True, lambda op, name: op in ("interp", "quantile")])
def test_an_operation_with_a_decomposition_may_be_saved(f, shape, layout, saves, rng):
    x = rng.standard_normal((shape[0], 2 * shape[1]))[:, ::2]
    x = x if layout == "strided" else np.array(x, order=layout)
    again = lambda x: np.sum(np.cos(gj.checkpoint(f, policy=saves)(x)))
    plain = lambda x: np.sum(np.cos(f(x)))
    wanted = h.difference_matrix(plain, x).reshape(shape)
    np.testing.assert_allclose(gj.grad(plain)(x), wanted, atol=1e-7)
    for found in (gj.grad(again)(x), gj.vmap(gj.grad(again))(x[None])[0]):
        assert_same(found, gj.grad(plain)(x))
    assert_same(gj.hvp(again, (x,), (x,)), gj.hvp(plain, (x,), (x,)))
