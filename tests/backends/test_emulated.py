"""The emulated GPU: CuPy's own arrays and dispatch over host memory, with honest counts."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpujac as gj
from tests import device

if device.MISSING:
    pytest.skip(device.MISSING, allow_module_level=True)

import cupy as cp

from gpujac.backends import choose
from gpujac.backends import emulated as em

X = np.arange(6.0).reshape(2, 3)


def layouts():
    """The same entries lying in memory in different ways."""
    wide = np.zeros((4, 6))
    wide[::2, ::2] = X
    return {
        "C": X.copy(), "F": np.asfortranarray(X), "step": wide[::2, ::2], "negative": X[::-1].copy()[::-1],
        "transposed": X.T.copy().T, "broadcast": np.broadcast_to(X[0], (2, 3)), "0-d": np.array(2.0),
        "empty": np.zeros((0, 3)), "float32": X.astype("f4"), "complex": X + 1j, "bool": X > 2,
    }  # fmt: skip


@pytest.mark.parametrize("name", layouts())
def test_an_emulated_array_is_a_cupy_array_over_the_same_memory(name):
    a = layouts()[name]
    x = em.wrap(a)
    assert isinstance(x, cp.ndarray)
    assert (x.shape, x.dtype, x.strides) == (a.shape, a.dtype, a.strides)
    assert np.array_equal(em.host(x), a)
    if a.size and a.flags.writeable:
        em.host(x)[...] = 7
        assert np.array_equal(a, np.full_like(a, 7))


def test_views_are_cupys_own_and_share_memory():
    x = em.array(X)
    for view in (x.T, x[1], x[:, ::2], x[..., None], x.reshape(3, 2), cp.moveaxis(x, 0, 1), x[::-1]):
        assert type(view) is em.EmulatedArray
        assert np.may_share_memory(em.host(view), em.host(x))
        assert view.base is not None
    assert x.base is None
    assert np.array_equal(em.host(x[::-1, 1:]), X[::-1, 1:])


@pytest.mark.parametrize("f", [
    lambda x: x + x, lambda x: 2.0 / (x + 1), lambda x: -x, lambda x: x**2, lambda x: x == x, lambda x: x < 2,
    lambda x: abs(x - 3), lambda x: x % 2, lambda x: x // 2, lambda x: x @ x.T, lambda x: x.sum(), lambda x: x.sum(0),
    lambda x: x.max(axis=1), lambda x: x.mean(), lambda x: x[[1, 0, 1]], lambda x: x[x > 2], lambda x: x.astype("f4"),
    lambda x: x.ravel(), lambda x: x.T.reshape(6), lambda x: x.argmax(), lambda x: x.cumsum(axis=1), lambda x: x.copy(),
    lambda x: x.take(np.array([0, -1]), 1), lambda x: x.clip(1, 3), lambda x: x.var(), lambda x: x.conj(),
    np.sin, np.cumsum, lambda x: np.concatenate([x, x]), lambda x: np.where(x > 1, x, 0), lambda x: np.add(x, 1.0),
    lambda x: np.linalg.norm(x), lambda x: np.stack([x, x]), lambda x: np.roll(x, 1), lambda x: np.add.reduce(x),
    lambda x: np.broadcast_to(x, (2, 2, 3)), lambda x: x + np.float64(2), lambda x: np.float64(2) * x,
])  # fmt: skip
def test_operations_give_numpys_numbers_as_arrays(f):
    wanted, found = f(X), f(em.array(X))
    assert type(found) is em.EmulatedArray  # 0-d results too
    np.testing.assert_allclose(em.host(found), wanted)
    assert found.dtype == np.asarray(wanted).dtype


def test_writes_reach_the_array_and_its_views():
    x = em.array(X)
    row = x[0]
    x[0, 1] = 5
    x[1] = em.array([7.0, 8.0, 9.0])
    x[x > 8] = 0
    x += 1
    x *= em.array([1.0, 2.0, 3.0])
    assert em.host(x).tolist() == [[1, 12, 9], [8, 18, 3]]
    assert em.host(row).tolist() == [1, 12, 9]


def test_what_cupy_refuses_is_refused():
    x = em.array(X)
    for call in (
        lambda: x + X,  # NumPy arrays do not mix
        lambda: X + x,
        lambda: cp.add(x, X),
        lambda: np.asarray(x),
        lambda: x.sum(axis=0, where=True),
        lambda: em.BACKEND.xp.var(x, correction=1),
        lambda: em.BACKEND.xp.logaddexp(x + 1j, x),  # CuPy has no complex loop
        lambda: em.BACKEND.xp.where([True], x, x),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(AttributeError):
        em.BACKEND.xp.vecdot  # noqa: B018 (that the name is absent is the claim)
    with pytest.raises(gj.BackendError, match="no CPU version"):
        cp.ElementwiseKernel("T x", "T y", "y = x", "own")(x)
    with pytest.raises(gj.BackendError, match="object"):
        em.wrap(np.array([None]))


def test_counts_of_launches_allocations_uploads_and_syncs():
    with em.counting() as n:
        x = em.array(X)
    assert (n.launches, n.allocations, n.uploads, n.syncs) == (0, 1, 1, 0)
    with em.counting() as n:
        y = (x + 1).T[0]
    assert (n.launches, n.allocations, n.syncs, n.by_name) == (1, 1, 0, {"add": 1})
    assert n.bytes == 2 * X.nbytes
    with em.counting() as n:
        y.reshape(2, 1), y[::-1], x.ravel(), x.T
    assert (n.launches, n.allocations) == (0, 0)
    with em.counting() as n:
        x.T.ravel()
    assert (n.launches, n.allocations) == (1, 1)
    one = x[0, 0]
    for read in (float, bool, int, repr, lambda one: one.get(), lambda one: one.item(), lambda one: one.tolist(),
                 em.BACKEND.xp.asnumpy, lambda one: x[x > 1]):  # fmt: skip
        with em.counting() as n:
            read(one)
        assert n.syncs == 1
    with em.counting() as outer, em.counting() as inner:
        x * x
    assert outer.launches == inner.launches == 1


def test_memory_comes_back_when_arrays_are_dropped():
    with em.memory_limit(3 * X.nbytes):
        x = em.array(X)
        for _ in range(5):
            x = x + 1
        with pytest.raises(MemoryError):
            [x + i for i in range(3)]
    assert float(x[0, 0]) == 5


def test_out_of_memory_in_a_transform_leaves_nothing_open():
    x = em.array(np.ones(100))
    f = lambda x: np.tanh(x) * x
    with em.memory_limit(2000), pytest.raises(MemoryError, match="Out of memory"):
        gj.jacrev(f)(x)
    assert gj.jacrev(f)(x).shape == (100, 100)


@pytest.mark.parametrize("assembly", ["auto", "preallocate"])
def test_a_chunk_that_does_not_fit_is_halved(assembly):
    x = em.array(np.linspace(0.1, 1.0, 200))
    matrix = em.array(np.sin(np.arange(40_000.0)).reshape(200, 200))
    g = lambda x: np.tanh(matrix @ np.sin(matrix @ x))
    plans = []
    expected = em.host(gj.jacrev(g)(x))
    row_bytes = 200 * 8
    with em.memory_limit(int(3.5 * 200 * row_bytes)):  # the result, the residuals and half a result
        J = gj.jacrev(g, assembly=assembly, chunk_size=200, report=plans.append)(x)
    assert plans[-1].chunk_size < 200
    np.testing.assert_allclose(em.host(J), expected, atol=1e-12)


def test_the_sweep_of_a_checkpoint_is_fused_where_one_sweep_pays(monkeypatch):
    f = lambda x: np.tanh(np.sin(x) * x + 1.0) * np.exp(x)
    plain = np.linspace(0.1, 1.0, 50)
    x, again = em.array(plain), gj.checkpoint(f)
    loss = lambda x: again(x).sum()
    with em.counting() as one_by_one:
        gj.grad(loss)(x)
    monkeypatch.setattr("gpujac.control.again.pays_for_one_sweep", lambda program, leaves: True)
    with em.counting() as fused:
        found = gj.grad(loss)(x)
    assert fused.launches < one_by_one.launches
    np.testing.assert_allclose(em.host(found), gj.grad(lambda x: f(x).sum())(plain), rtol=1e-13)
    np.testing.assert_allclose(em.host(gj.jacrev(again, chunk_size=20)(x)), gj.jacrev(f)(plain), rtol=1e-13)


def test_emulated_arrays_copy_and_pickle():
    x = em.array(X)
    for y in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert type(y) is em.EmulatedArray
        assert np.array_equal(em.host(y), X)
        assert not np.may_share_memory(em.host(y), em.host(x))


@given(st.lists(st.sampled_from([0, 1, 2, -1]), min_size=1, max_size=6))
def test_last_writer_names_the_last_of_equal_indices(index):
    be = em.BACKEND
    found = em.host(be.last_writer(em.array(np.array(index)), 4))
    wanted = np.full(4, -1)
    for i, target in enumerate(index):
        wanted[target] = i
    assert found.tolist() == wanted.tolist()
    assert found.dtype == np.intp


SYSTEMS = [((3, 3), (3,)), ((3, 3), (3, 2)), ((4, 3, 3), (3, 2)), ((3, 3), (4, 3, 2)), ((4, 1, 3, 3), (2, 3, 2))]


@pytest.mark.parametrize("shapes", SYSTEMS)
def test_solve_broadcasts_batch_axes_as_numpy_does(shapes, rng):
    a, b = (rng.standard_normal(s) for s in shapes)
    a = a + 4 * np.eye(3)
    np.testing.assert_allclose(em.host(em.BACKEND.solve(em.array(a), em.array(b))), np.linalg.solve(a, b), rtol=1e-12)


def test_the_setting_chooses_the_emulated_backend():
    with gj.settings.override(backend="emulated"):
        assert choose.device() is em.BACKEND
    assert choose.device().name == "cupy"
    assert choose.backend_of(em.array(X)) is em.BACKEND
    assert choose.backend_of(em.array(X)[0]) is em.BACKEND
