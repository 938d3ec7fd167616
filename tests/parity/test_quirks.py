"""Where torch.func errs, and what happens here instead (Q1 to Q17)."""

import numpy as np
import pytest

import gpujac as gj
from tests.parity import parity
from tests.transforms import helpers as h

X = np.array([0.3, -1.2, 2.0])
B = np.arange(6.0).reshape(2, 3)


@parity("Q1")
def test_dicts_match_by_key():
    batch = {"a": B, "b": B.T + 10}
    f = lambda d: {"p": d["a"] * 1, "q": d["b"] + d["a"]}
    want = {"p": B, "q": B + B + 10}
    h.assert_close(gj.vmap(f, in_dims=({"b": 1, "a": 0},))(batch), want)
    out = gj.vmap(f, ({"b": 1, "a": 0},), {"q": 1, "p": 0})(batch)
    h.assert_close(out, {"p": want["p"], "q": want["q"].T})
    _y, pullback = gj.vjp(lambda p: {"u": p["a"] * 2, "v": p["b"] * 3}, {"a": X, "b": X})
    (found,) = pullback({"v": X, "u": np.ones(3)})
    np.testing.assert_array_equal(found["a"], [2, 2, 2])
    np.testing.assert_array_equal(found["b"], 3 * X)
    _, dy = gj.jvp(lambda p: p["a"] + 0 * p["b"], ({"a": X, "b": X},), ({"b": X, "a": np.ones(3)},))
    np.testing.assert_array_equal(dy, [1, 1, 1])
    _, lin = gj.linearize(lambda p: p["a"] + 0 * p["b"], {"a": X, "b": X})
    np.testing.assert_array_equal(lin({"b": X, "a": np.ones(3)}), [1, 1, 1])


@parity("Q2", "Q3")
@pytest.mark.parametrize("size", [1, 2, 5])
def test_chunks_with_unmapped_outputs_and_no_lanes(size):
    f = lambda x: (x * 2, "label", X)
    y, label, shared = gj.vmap(f, out_dims=(0, None, None), chunk_size=size)(B)
    np.testing.assert_array_equal(y, 2 * B)
    assert label == "label"
    np.testing.assert_array_equal(shared, X)
    for d in (0, 1, -1):
        found = gj.vmap(lambda x: np.outer(x, x), out_dims=d, chunk_size=size)(np.zeros((0, 3)))
        assert found.shape == np.moveaxis(np.zeros((0, 3, 3)), 0, d).shape


@parity("Q4", "Q5")
@pytest.mark.parametrize("size", [None, 1, 2, "auto"])
@pytest.mark.parametrize("jac", [gj.jacrev, gj.jacfwd, gj.jacobian])
def test_empty_inputs_and_outputs(jac, size):
    assert jac(lambda x: x[:0], chunk_size=size)(X).shape == (0, 3)
    assert jac(lambda x: np.sin(x), chunk_size=size)(np.zeros(0)).shape == (0, 0)
    constant = jac(lambda x: np.ones(2), chunk_size=size)(np.zeros((0, 4)))
    assert constant.shape == (2, 0, 4)
    J, aux = jac(lambda x: (x.sum(), x.shape), has_aux=True, chunk_size=size)(np.zeros(0))
    assert (J.shape, aux) == ((0,), (0,))
    mixed = jac(lambda x: (x[:0], x.sum()), chunk_size=size)(X)
    assert mixed[0].shape == (0, 3)
    np.testing.assert_array_equal(mixed[1], np.ones(3))


@parity("Q6")
@pytest.mark.parametrize("d", [0, 1, 2, -1, -2, -3])
def test_unmapped_outputs_at_any_axis(d):
    shared = np.arange(8.0).reshape(4, 2)
    found = gj.vmap(lambda x: shared, out_dims=d)(X)
    np.testing.assert_array_equal(found, np.stack([shared] * 3, d))
    found += 1.0  # an array of its own
    np.testing.assert_array_equal(shared, np.arange(8.0).reshape(4, 2))


@parity("Q7")
@pytest.mark.parametrize("jac", [gj.jacrev, gj.jacfwd])
@pytest.mark.parametrize("size", [1, 2, None])
def test_preallocation_with_a_captured_mapped_value(jac, size):
    lanes = lambda c: jac(lambda x: np.sin(x) * c.sum(), chunk_size=size, assembly="preallocate")(X)
    found = gj.vmap(lanes)(B)
    np.testing.assert_allclose(found, np.stack([np.diag(np.cos(X)) * c.sum() for c in B]), atol=1e-14)


@parity("Q9")
def test_integer_and_boolean_scalars_have_no_gradient():
    for f in (lambda x: 3, lambda x: True, lambda x: np.argmax(x), lambda x: (x > 0).all()):
        for transform in (gj.grad, gj.value_and_grad, gj.grad_and_value):
            with pytest.raises(gj.DTypeError, match=f"^{transform.__name__}: .*has no derivative"):
                transform(f)(X)


@parity("Q10")
def test_a_gather_by_a_mapped_index_without_axes():
    table = np.arange(12.0).reshape(4, 3)
    index = np.array([2, 0, 1])
    take = lambda t, i: np.take(t, i, axis=1)
    found = gj.vmap(take, (None, 0))(table, index)
    np.testing.assert_array_equal(found, np.stack([take(table, i) for i in index]))
    assert found.shape == (3, 4)
    kept = lambda t, i: np.take(t, np.reshape(i, (1,)), axis=1)
    assert gj.vmap(kept, (None, 0))(table, index).shape == (3, 4, 1)
    np.testing.assert_array_equal(gj.vmap(lambda t, i: t[i], (None, 0))(table, index), table[index])


@parity("Q11")
def test_complex_arguments_that_are_not_selected():
    z = X + 1j
    for jac in (gj.jacrev, gj.jacfwd, gj.jacobian):
        np.testing.assert_allclose(jac(lambda x, z: (x * z).imag)(X, z), np.eye(3))
    np.testing.assert_allclose(gj.hessian(lambda x, z: (x * x * z).real.sum())(X, z), 2 * np.diag(X))
    np.testing.assert_allclose(gj.jacrev(lambda x, z: (x * z).real)(X, z), np.diag(X))


@parity("Q12")
def test_one_class_for_leaves_that_are_no_arrays():
    f = lambda p: p[0].sum()
    p = (X, "text")
    for call in (lambda: gj.grad(f)(p), lambda: gj.jacrev(f)(p), lambda: gj.jacfwd(f)(p), lambda: gj.hessian(f)(p),
                 lambda: gj.vjp(f, p), lambda: gj.jvp(f, (p,), (p,)), lambda: gj.linearize(f, p)):  # fmt: skip
        with pytest.raises(gj.ArgumentTypeError, match=r"args\[0\]\[1\] is a str"):
            call()


@parity("Q13")
@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.hessian, gj.vmap])
def test_chunk_sizes_are_checked_at_the_door(transform):
    for wrong in (True, 1.5, "3", (1,)):
        with pytest.raises(gj.ArgumentTypeError, match="chunk_size"):
            transform(np.sin, chunk_size=wrong)
    for wrong in (0, -1):
        with pytest.raises(gj.ArgumentError, match="chunk_size"):
            transform(np.sin, chunk_size=wrong)


@parity("Q14")
@pytest.mark.parametrize("jac", [gj.jacrev, gj.jacfwd])
@pytest.mark.parametrize("size", [None, 1, 2])
def test_no_nan_beside_an_infinite_slope(jac, size):
    J = jac(np.sqrt, chunk_size=size)(np.array([0.0, 4.0]))
    np.testing.assert_array_equal(J, [[np.inf, 0], [0, 0.25]])
    lanes = gj.vmap(jac(np.sqrt, chunk_size=size))(np.array([[0.0, 4.0], [1.0, 0.0]]))
    assert not np.isnan(lanes).any()


@parity("Q15")
@pytest.mark.parametrize("assembly", ["stack", "preallocate"])
@pytest.mark.parametrize("jac", [gj.jacrev, gj.jacfwd])
def test_blocks_own_their_memory(jac, assembly):
    J = jac(lambda x: (x * 2, x.sum(), np.outer(x, x)), chunk_size=2, assembly=assembly)(X)
    for block in J:
        assert h.owner_bytes(block) == block.nbytes
        assert block.flags.c_contiguous
    h.assert_owned(J, X)


@parity("Q16")
def test_tangents_of_another_width():
    narrow = X.astype(np.float32)
    for x, t in ((narrow, X), (X, narrow)):
        _, dy = gj.jvp(np.sin, (x,), (t,))
        _, lin = gj.linearize(np.sin, x)
        assert dy.dtype == lin(t).dtype == x.dtype
        np.testing.assert_allclose(lin(t), dy, rtol=1e-7)


@parity("Q17")
def test_messages_name_the_function_that_was_called():
    for name in ("grad", "value_and_grad", "grad_and_value", "jacrev", "jacfwd", "jacobian", "hessian"):
        with pytest.raises(gj.StructureError, match=f"^{name}: "):
            getattr(gj, name)(lambda x: None)(X)
    for name, call in {"vjp": lambda: gj.vjp(lambda x: None, X), "jvp": lambda: gj.jvp(lambda x: None, (X,), (X,)),
                       "linearize": lambda: gj.linearize(lambda x: None, X)}.items():  # fmt: skip
        with pytest.raises(gj.StructureError, match=f"^{name}: "):
            call()
