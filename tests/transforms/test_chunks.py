"""Chunks: every chunk size and both assemblies give the same Jacobian, and own their memory."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpujac as gj
from gpujac.transforms import chunking
from gpujac.transforms.progress import progress_bar
from gpujac.transforms.vjp import Linearized
from tests.transforms import helpers as h

X = np.linspace(0.2, 1.4, 7)
W = np.linspace(-1, 1, 35).reshape(5, 7)
TRANSFORMS = [gj.jacrev, gj.jacfwd]
every_transform = pytest.mark.parametrize("transform", TRANSFORMS, ids=["jacrev", "jacfwd"])


def several(x):
    """Outputs of sizes 5, 1, 0, 6, 7: any chunk straddles some of them."""
    y = np.tanh(W @ x)
    return {"a": y, "b": (x * x).sum(), "c": x[:0], "d": np.stack([x[::3], x[1::3][:1] * x[2::2]]), "e": x * 2}


def pointwise(x):
    return np.sin(x) * np.exp(x)


def mixing(x):
    return np.cumsum(np.sin(W.T @ (W @ x))) * x


FUNCTIONS = [several, pointwise, mixing, lambda x: x, lambda x: x[::2] * x[0]]


@every_transform
@pytest.mark.parametrize("f", FUNCTIONS)
def test_every_chunk_size_gives_the_same(transform, f):
    whole = transform(f, chunk_size=None)(X)
    for chunk_size in (1, 2, 3, 4, 5, 6, 7, 11, 18, 19, 20, 1000, "auto", np.int64(3)):
        h.assert_close(transform(f, chunk_size=chunk_size)(X), whole, 1e-14)


@every_transform
@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3, 5, 6, 13, 1000, "auto"])
def test_both_assemblies_are_equal_bit_for_bit(transform, f, chunk_size):
    made = [transform(f, chunk_size=chunk_size, assembly=assembly)(X) for assembly in ("stack", "preallocate", "auto")]
    h.assert_same_bits(made[0], made[1])
    h.assert_same_bits(made[0], made[2])


@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    chunk_size=st.integers(1, 12),
    transform=st.sampled_from(TRANSFORMS),
    wide=st.booleans(),
)
def test_any_split_of_outputs_and_inputs(sizes, chunk_size, transform, wide):
    xs = [np.linspace(1.0, 2.0, n) for n in sizes]

    def f(xs):
        total = sum((np.sin(x).sum() for x in xs), 0.0)
        return [x * total for x in xs] if wide else [total, *[x[::-1] for x in xs]]

    whole = transform(f, chunk_size=None)(xs)
    stacked = transform(f, chunk_size=chunk_size, assembly="stack")(xs)
    h.assert_close(stacked, whole, 1e-14)
    h.assert_same_bits(stacked, transform(f, chunk_size=chunk_size, assembly="preallocate")(xs))
    h.assert_owned((whole, stacked), xs)


@every_transform
@pytest.mark.parametrize("assembly", ["stack", "preallocate"])
@pytest.mark.parametrize("chunk_size", [None, 1, 3, 8])
def test_no_block_pins_the_memory_of_another(transform, assembly, chunk_size):
    def f(x, y):
        return several(x)["a"], x * y, (x.sum(), y)

    J = h.leaves(transform(f, (0, 1), chunk_size=chunk_size, assembly=assembly)(X, X + 1))
    for i, block in enumerate(J):
        assert h.owner_bytes(block) == block.nbytes  # at most a reshaped view of exactly its own entries
        assert not any(np.may_share_memory(block, other) for other in J[i + 1 :])


@every_transform
@pytest.mark.parametrize("assembly", ["stack", "preallocate"])
@pytest.mark.parametrize("chunk_size", [None, 1, 3])
def test_results_share_nothing_with_inputs_or_constants(transform, assembly, chunk_size):
    x, constant = X.copy(), W.copy()
    for f in (lambda x: constant @ x, lambda x: x * constant[0], lambda x: x, lambda x: constant):
        J = transform(f, chunk_size=chunk_size, assembly=assembly)(x)
        h.assert_owned(J, x, constant)
        J[...] = np.nan
    np.testing.assert_array_equal(constant, W)
    np.testing.assert_array_equal(x, X)


@every_transform
@pytest.mark.parametrize("assembly", ["stack", "preallocate"])
@pytest.mark.parametrize("chunk_size", [None, 1, 30])
def test_a_large_constant_is_never_the_result(transform, assembly, chunk_size):
    constant = (
        np.linspace(-1.0, 1.0, 90 * 90).reshape(90, 90).copy()
    )  # owns its memory, too large to be copied when read
    for f in (lambda x: constant @ x, lambda x: x @ constant, lambda x: np.einsum("ij,j->i", constant.T, x)):
        J = transform(f, chunk_size=chunk_size, assembly=assembly)(np.ones(90))
        h.assert_owned(J, constant)
    J = transform(lambda x, c: c @ x, chunk_size=chunk_size, assembly=assembly)(np.ones(90), constant)
    h.assert_owned(J, constant)


def plan_of(transform, f, *args, **options):
    seen = []
    transform(f, report=seen.append, **options)(*args)
    plan, done = seen
    assert done == plan._replace(peak_bytes=done.peak_bytes)
    return plan


@every_transform
def test_the_report_tells_what_was_chosen(transform):
    rows = 19 if transform is gj.jacrev else 7
    plan = plan_of(transform, several, X, chunk_size=4)
    assert (plan.rows, plan.chunk_size, plan.chunks) == (rows, 4, -(-rows // 4))
    assert plan.mode == ("rev" if transform is gj.jacrev else "fwd")
    assert plan.assembly == "preallocate"
    assert plan_of(transform, several, X, chunk_size=None)[2:5] == (None, 1, "stack")
    assert plan_of(transform, several, X, chunk_size=1000)[2:5] == (None, 1, "stack")
    assert plan_of(transform, several, X, chunk_size=4, assembly="stack").assembly == "stack"
    assert plan.row_bytes >= 7 * 8


@every_transform
def test_auto_takes_one_pass_for_few_rows_and_pointwise_programs(transform):
    assert plan_of(transform, lambda x: np.cumsum(np.sin(x)), np.ones(8)).chunks == 1
    assert plan_of(transform, pointwise, np.ones(2_000)).chunks == 1


def test_auto_depends_on_shapes_only():
    f = lambda x: np.cumsum(np.sin(x))
    first = plan_of(gj.jacrev, f, np.ones(3000))
    ballast = np.ones(4_000_000)
    assert plan_of(gj.jacrev, f, np.zeros(3000)) == first
    assert ballast.size


@every_transform
@pytest.mark.parametrize("memory", [1, 1000, "4kB", "1MiB"])
def test_the_memory_cap_bounds_the_chunk(transform, memory):
    cap = gj.settings.parse_bytes(memory)
    whole = transform(several)(X)
    for chunk_size in ("auto", None, 6):
        plan = plan_of(transform, several, X, chunk_size=chunk_size, memory=memory)
        rows = plan.chunk_size or plan.rows
        assert rows == 1 or rows * plan.row_bytes <= cap
        h.assert_close(transform(several, chunk_size=chunk_size, memory=memory)(X), whole, 1e-14)


def test_the_memory_cap_may_come_from_the_settings():
    with gj.settings.override(memory=1000):
        plan = plan_of(gj.jacrev, several, X)
    assert plan.chunk_size * plan.row_bytes <= 1000
    assert plan_of(gj.jacrev, several, X).chunks == 1


@every_transform
def test_progress_shows_a_bar_on_stderr_and_nothing_else_does(transform, capfd):
    transform(several, chunk_size=3)(X)
    assert capfd.readouterr() == ("", "")
    transform(several, chunk_size=3, progress=True)(X)
    out, err = capfd.readouterr()
    assert out == ""
    chunks = 7 if transform is gj.jacrev else 3
    assert f"{chunks}/{chunks}" in err
    assert transform.__name__ in err


def test_the_hessian_shows_its_outer_chunks_only(capfd):
    gj.hessian(lambda x: (x**3).sum(), chunk_size=2, inner_chunk_size=1, progress=True)(X)
    assert "4/4" in capfd.readouterr().err


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.jacobian])
def test_f_runs_once_whatever_the_chunk_size(transform):
    for chunk_size in (None, 1, 2, 5, "auto"):
        calls = []
        transform(lambda x, calls=calls: (calls.append(1), several(x))[1], chunk_size=chunk_size)(X)
        assert calls == [1]


@every_transform
@pytest.mark.parametrize("assembly", ["stack", "preallocate", "auto"])
@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_a_batched_captured_value_under_an_outer_vmap(transform, assembly, chunk_size):
    scales = np.arange(1.0, 4.0)
    J = gj.vmap(lambda s: transform(lambda x: s * np.cumsum(x), chunk_size=chunk_size, assembly=assembly)(X))(scales)
    expected = scales[:, None, None] * np.tri(7)
    np.testing.assert_allclose(J, expected)
    x_free = gj.vmap(lambda s: transform(lambda x: np.array(3.0) * x, chunk_size=chunk_size, assembly=assembly)(X))
    np.testing.assert_allclose(x_free(scales), np.stack([3 * np.eye(7)] * 3))


@pytest.mark.slow
@settings(max_examples=200)
@given(m=st.integers(0, 40), n=st.integers(0, 40), chunk_size=st.integers(1, 50))
def test_larger_random_chunks(m, n, chunk_size):
    x = np.linspace(0.1, 1.0, n)
    M = np.linspace(-1.0, 1.0, m * n).reshape(m, n)
    f = lambda x: (np.tanh(M @ x), x * x)
    for transform in TRANSFORMS:
        a = transform(f, chunk_size=chunk_size, assembly="stack")(x)
        h.assert_same_bits(a, transform(f, chunk_size=chunk_size, assembly="preallocate")(x))
        h.assert_close(a, transform(f, chunk_size=None)(x), 1e-13)


@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd, gj.hessian, gj.hessian_diagonal])
def test_the_memory_setting_is_read_at_the_call(transform):
    """A transform that was built under one cap follows the next; its own argument wins."""
    sizes = []
    f = lambda x: np.tanh(np.outer(x, x)).sum(0) * x
    x = np.ones(40)
    run = chunking.plan

    def plan(*args):
        sizes.append(run(*args).chunk_size)
        return run(*args)

    def sizes_of(run):
        sizes.clear()
        run(x)
        return list(sizes)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(chunking, "plan", plan)
        before, own = transform(f), transform(f, memory=10**9)
        with gj.settings.override(memory=20_000):
            inside = transform(f)
            assert sizes_of(before) == sizes_of(inside) != sizes_of(own)
            capped = sizes_of(own)
        assert sizes_of(before) == sizes_of(inside) == sizes_of(own) == capped
    with pytest.raises(gj.ArgumentError, match=f"{transform.__name__}: memory='much' is not a size"):
        transform(f, memory="much")


def test_what_no_output_reads_takes_no_memory():
    def alone(x):
        return x * 2.0

    def beside(x):
        z = x
        for _ in range(50):
            z = np.sin(z)
        return x * 2.0

    for reverse in (False, True):
        wanted, found = [chunking.live_bytes(Linearized("show", f, (np.ones(100),), {}, None, False, False).program,
                                             reverse) for f in (alone, beside)]  # fmt: skip
        assert found == wanted == 1600


def test_each_run_has_a_progress_bar_of_its_own():
    """One that shows nothing counts its chunks, too: two threads would write into each other's."""
    options = SimpleNamespace(progress=False, what="jacrev")
    first, second = progress_bar(3, options), progress_bar(4, options)
    first.total = 7
    assert second.total == 0


def test_an_assembly_that_is_no_text_is_refused():
    for assembly in (np.array([1, 2]), ["stack"], None):
        with pytest.raises(gj.ArgumentError, match='choose "auto", "stack" or "preallocate"'):
            gj.jacrev(np.sin, assembly=assembly)
