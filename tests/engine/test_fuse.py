"""Fused sweeps give what unfused ones give, in fewer launches.

Most tests fuse on NumPy, where a chain is run by its interpreter; the counts are made on the emulated
device, where it is a generated kernel.
"""

import math
from functools import partial

import numpy as np
import pytest

import gpujac as gj
from gpujac import trees
from gpujac.backends.host import Host
from gpujac.engine import fuse as fusing
from gpujac.program.ir import Apply, Chained, Gather, Input, Partial, Pick, Program, Scale
from gpujac.transforms import plans
from gpujac.transforms.hot import Hot
from gpujac.transforms.plans import fuses, planned, transposed
from gpujac.transforms.sweep import pull, push
from gpujac.transforms.vjp import Linearized
from tests import device, fuzz
from tests.transforms import helpers as h
from tests.zoo import ZOO
from tests.zoo.checks import Case

RNG = np.random.default_rng(3)
W, V = RNG.normal(size=(6, 5)), RNG.normal(size=(4, 6))
M = RNG.normal(size=(5, 5))
X = np.linspace(-1.0, 1.5, 5)
INDEX = np.array([0, 3, 3, 1, -1, 0])


@pytest.fixture
def fused_numpy(monkeypatch):
    """NumPy's backend asks for fused sweeps."""
    monkeypatch.setattr(Host, "fuses", True)


def chain(x, length=10):
    y = W @ x
    for _ in range(length):
        y = np.sin(y) * 1.1 + 0.3
    return V @ y


def network(x):
    return np.tanh(V @ np.tanh(W @ np.tanh(M @ x)))


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


def masks(x):
    y = np.where(x > 0, np.sqrt(np.where(x > 0, x, 1.0)), np.exp(x)) * np.abs(x - 0.1)
    return np.maximum(y, 0.2 * x) * np.clip(x, -0.5, 0.5)


def odd_masks(x):
    y = np.where(np.array([1, 0, 2, 0, 1], np.uint8), np.sin(x) * x, 0.0) * 2.0
    y = np.where(np.array([0, 1, 1, 0, 1]), y, x * 3.0) + np.where(np.arange(5) * 0.5, x, y)
    return np.where(True, y * x, 1.0) + np.where(np.array([[True], [False]]), y, x * 2.0)


def guarded(x):
    return np.where(x > 0, np.sqrt(x * x * (x > 0)), 2.0 * x) * np.sin(x) * 3.0


def broadcasts(x):
    outer = np.exp(0.1 * x[:, None] * x[None, :]) * x + x[:, None]
    return (outer * outer).sum(axis=0) * x + (outer * 2.0).mean(axis=-1)


def turned(x):
    a = np.outer(np.sin(x), x) * 1.5
    return (a * a.T + a.T.sum(axis=1)) * 0.5


def rows(x):
    a = np.cos(x[:, None] * M)
    return (a * a * x).sum(axis=1), (a / 2.0).sum()


def writes(x):
    d = np.zeros_like(x)
    d[1:-1] = x[2:] * 2.0 - np.sin(x[:-2]) * x[1:-1]
    d[0] = x[1] * x[0]
    d[-1] = np.exp(x[-1]) * 0.5
    return d * d


def takes(x):
    return np.sin(x[INDEX]) * x[INDEX] * 0.3 + W @ x


def residual(x):
    y = x
    for k in range(6):
        y = np.tanh(M @ y) * 0.5 + y * (k + 2.0)
    return y


def complex_inside(x):
    z = np.exp(1j * x) * (x + 2j) * np.conj(1.0 + 1j * x * x)
    return np.real(z * z) + np.imag(z) * np.abs(z)


def many(x):
    y = np.sin(x)
    return {"a": y * x * 2.0, "b": (np.cos(y).sum(), x * 3.0), "c": np.ones(2)}


def single(x):
    x = x.astype(np.float32)
    return (np.sin(x) * x * np.float32(2.0)).astype(np.float64) * X


def norms(x):
    y = np.exp(0.3 * x) - 1.1
    return y / np.sqrt((y * y).sum() + 0.1) * np.linalg.norm(x)


def cumulated(x):
    return np.cumsum(np.sin(x) * x * 2.0)[::-1] * np.roll(x, 2) * 0.5


def long_sum(x):
    y = x
    for i in range(12):
        y = np.sin(y) + x if i % 3 else np.cumsum(y) * 0.1
    return y


FUNCTIONS = [
    chain, network, softmax, masks, odd_masks, guarded, broadcasts, turned, rows, writes, takes, residual,
    complex_inside, many, single, norms, cumulated, long_sum,
]  # fmt: skip
ROUNDED = {single: 1e-6}  # what runs in float32 inside
every_function = pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)


def linear_of(f, *args):
    return Linearized("vjp", f, args, {}, None, False, check=True, keep=True)


def chained(program):
    return [e for e in program.entries if type(e) is Chained]


def both_ways(monkeypatch, call):
    """The result of a call without and with fused sweeps."""
    monkeypatch.setattr(Host, "fuses", False)
    plain = call()
    monkeypatch.setattr(Host, "fuses", True)
    return plain, call()


# ---------------------------------------------------------------- fused equals unfused


@every_function
@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd])
@pytest.mark.parametrize("chunk_size", [None, 1, 2, "auto"])
def test_jacobians_are_the_same(monkeypatch, f, transform, chunk_size):
    plain, found = both_ways(monkeypatch, lambda: transform(f, chunk_size=chunk_size)(X))
    h.assert_close(found, plain, ROUNDED.get(f, 1e-12))


@every_function
def test_pullbacks_and_linear_maps_are_the_same_each_time(monkeypatch, f):
    y = f(X)
    ct, t = h.random_like(y, np.random.default_rng(0)), np.random.default_rng(1).normal(size=5)

    def call():
        pullback, linear = gj.vjp(f, X)[1], gj.linearize(f, X)[1]
        return [(pullback(ct), linear(t)) for _ in range(2)]

    plain, found = both_ways(monkeypatch, call)
    h.assert_close(found, plain, ROUNDED.get(f, 1e-12))
    h.assert_same_bits(found[0], found[1])


@every_function
def test_each_function_has_something_to_fuse_in_both_directions(f):
    linear = linear_of(f, X)
    counts = [len(chained(planned(linear.program, forward))) for forward in (True, False)]
    assert min(counts) >= (0 if f is network else 1)


@pytest.mark.parametrize("entry", ZOO, ids=lambda e: e.name)
def test_the_zoo_has_the_same_jacobians(monkeypatch, entry):
    case = Case(entry)
    everything = tuple(range(len(case.selected)))
    for transform in (gj.jacrev, gj.jacfwd):
        plain, found = both_ways(monkeypatch, lambda t=transform: t(case.g, everything)(*case.selected))
        h.assert_close(found, plain, 1e-10)


NESTED = {
    "vmap of jacrev": lambda f: gj.vmap(gj.jacrev(f)),
    "vmap of jacfwd": lambda f: gj.vmap(gj.jacfwd(f), 1, -1),
    "vmap of vmap of jacrev": lambda f: lambda x: gj.vmap(gj.vmap(gj.jacrev(f)))(np.stack([x, 2 * x])),
    "jacrev of vmap": lambda f: gj.jacrev(gj.vmap(f)),
    "jacfwd of vmap": lambda f: gj.jacfwd(gj.vmap(f, 1, -1)),
    "vmap of hessian": lambda f: gj.vmap(gj.hessian(f)),
    "jacrev of jacfwd": lambda f: gj.vmap(gj.jacrev(gj.jacfwd(f))),
    "jvp of jacrev": lambda f: lambda x: gj.jvp(gj.jacrev(gj.vmap(f)), (x,), (np.cos(x),)),
    "jacrev of a pullback": lambda f: gj.jacrev(lambda x: gj.vjp(gj.vmap(f), x)[1](gj.vmap(f)(x))),
    "vmap of a pullback": lambda f: gj.vmap(lambda x: gj.vjp(f, x)[1](f(x))),
    "vmap of chunks": lambda f: gj.vmap(gj.jacrev(f, chunk_size=2)),
}
POINTS = np.linspace(-0.8, 0.9, 25).reshape(5, 5)


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("f", [chain, masks, broadcasts, writes, takes, rows], ids=lambda f: f.__name__)
def test_nested_transforms_are_the_same(monkeypatch, name, f):
    plain, found = both_ways(monkeypatch, lambda: NESTED[name](f)(POINTS))
    h.assert_close(found, plain, 1e-11)


def test_a_captured_tracer_of_an_outer_transform_is_differentiated(monkeypatch):
    def f(w):
        J = gj.jacrev(lambda x: np.sin(x * w) * w * 2.0 + x)(X)
        return (J * J).sum()

    plain, found = both_ways(monkeypatch, lambda: gj.jacfwd(f)(X))
    np.testing.assert_allclose(found, plain, atol=1e-12)
    np.testing.assert_allclose(found, h.difference_matrix(f, X)[0], atol=1e-6)


def test_a_fused_linear_map_can_be_transposed_and_differentiated(fused_numpy):
    def by_a_number(x):
        return np.where(True, np.sin(x) * x, 0.0) * 2.0

    for f in (masks, guarded, takes, by_a_number):
        y, linear = gj.linearize(f, X)
        ct = np.cos(y)
        (found,) = gj.linear_transpose(linear, X)(ct)
        np.testing.assert_allclose(found, gj.vjp(f, X)[1](ct)[0], atol=1e-13)
        np.testing.assert_allclose(gj.jvp(linear, (X,), (X,))[1], linear(X), atol=1e-13)


def test_holomorphic_jacobians_are_the_same(monkeypatch):
    z = X + 1j * X[::-1]

    def f(z):
        return (np.exp(z * 0.3) * z * (2 + 1j)) @ (W.T + 1j) * np.sin(z.sum())

    for transform in (gj.jacrev, gj.jacfwd):
        plain, found = both_ways(monkeypatch, lambda t=transform: t(f, holomorphic=True)(z))
        h.assert_close(found, plain, 1e-12)


def test_complex_pullbacks_are_the_same(monkeypatch):
    z = X + 1j * X[::-1]

    def f(z):
        return np.conj(z) * z * z * 1j + np.real(z) * np.imag(z * z) * np.abs(z)

    ct = np.exp(1j * X)
    plain, found = both_ways(monkeypatch, lambda: gj.vjp(f, z)[1](ct))
    h.assert_close(found, plain, 1e-12)


@pytest.mark.parametrize(
    "first", [5000, *(pytest.param(n, marks=pytest.mark.slow) for n in range(5020, 6000, 20))]
)
def test_random_programs_pass_every_check_with_fused_sweeps(fused_numpy, first):
    assert sum(fuzz.run(seed) for seed in range(first, first + 20)) >= 16, "too few are smooth enough to check"


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_results_share_no_memory(fused_numpy, chunk_size):
    def f(x):
        y = np.sin(x) * x * 2.0
        return y, y, y[:, None] * x * 3.0, x, np.cumsum(y)

    for transform in (gj.jacrev, gj.jacfwd):
        blocks = transform(f, chunk_size=chunk_size)(X)
        for i, a in enumerate(blocks):
            h.assert_owned(a, X, *blocks[:i])
    pullback = gj.vjp(f, X)[1]
    cts = tuple(np.ones(np.shape(y)) for y in f(X))
    h.assert_owned(pullback(cts), X, *cts)
    h.assert_owned(gj.linearize(lambda x: (x, x * 1.0, f(x)[0]), X)[1](X), X)


# ---------------------------------------------------------------- what fuses, and what does not


def test_a_chain_of_twenty_operations_is_one_entry():
    linear = linear_of(chain, X)
    for forward in (True, False):
        program = planned(linear.program, forward)
        assert [type(e) for e in program.entries] == [Input, Partial, Chained, Partial]
        (entry,) = chained(program)
        tangent_steps = [s for s in entry.op.chain.steps if 0 in s.reads]
        assert len(tangent_steps) == 1, "the coefficients are multiplied with each other first"


def test_a_value_that_two_kernels_need_is_computed_once():
    def f(x):
        y = np.sin(x) * x * 2.0
        return W @ y, np.cumsum(y)

    program = planned(linear_of(f, X).program, True)
    (entry,) = chained(program)
    assert [e.reads for e in program.entries].count((program.entries.index(entry),)) == 2


def test_a_value_that_a_later_kernel_reads_is_one_more_result_of_this_one():
    """A residual connection: the cotangent goes on as it is, and scaled into the product."""
    program = planned(linear_of(residual, X).program, False)
    kernels = chained(program)
    products = [e for e in program.entries if type(e) is Partial]
    assert len(kernels) == len(products) + 1, "one between two products, one at each end"
    assert {len(e.op.chain.outputs) for e in kernels} == {1, 2}
    picks = [e for e in program.entries if type(e) is Pick]
    assert len(picks) == 2 * sum(len(e.op.chain.outputs) == 2 for e in kernels)


def test_a_value_that_a_view_reads_before_the_end_of_the_kernel_is_no_result_of_it():
    def f(x):
        v = np.sin(x) * x
        w = np.broadcast_to(v, (2, 5))
        return v * 2.0 * np.cos(x), w * 3.0

    program = planned(linear_of(f, X).program, True)
    found = push(program, [np.cos(X)])
    for a, b in zip(found, gj.jvp(f, (X,), (np.cos(X),))[1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-14)


def test_writes_into_one_array_are_merged_before():
    def f(x):
        d = np.zeros_like(x)
        for i in range(5):
            d[i] = np.sin(x[i]) * x[i]
        return d

    linear = linear_of(f, X)
    assert any(getattr(e, "op", None) is not None and e.op.name == "set_slice" for e in linear.program.entries)
    for forward in (True, False):
        entries = planned(linear.program, forward).entries
        names = [e.op.name for e in entries if type(e) in (Apply, Gather)]
        assert not {"set_slice", "clear"} & set(names)
        assert len([n for n in names if n in ("place", "pad")]) <= 1


def test_results_of_a_kernel_that_nothing_reaches_are_left_out():
    def f(x, y):
        a = x * 2.0 * y
        return a * np.sin(y) + y * 3.0, np.cumsum(a)

    program = planned(linear_of(f, X, X + 1.0).program, True)
    assert any(len(e.op.chain.outputs) > 1 for e in chained(program))
    t = np.cos(X)
    for given_ts in ((t, None), (None, t), (t, t)):
        found = push(program, list(given_ts))
        zeros = [np.zeros(5) if v is None else v for v in given_ts]
        wanted = gj.jvp(f, (X, X + 1.0), tuple(zeros))[1]
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(np.zeros(5) if a is None else a, b, atol=1e-14)


def test_a_sum_ends_a_group_and_repeating_axes_costs_nothing():
    def f(x):
        a = np.exp(x[:, None] * M) * 2.0
        return (a * a).sum(axis=1)

    forward = planned(linear_of(f, X).program, True)
    assert [type(e) for e in forward.entries] == [Input, Chained]
    assert forward.entries[1].op.chain.axes == (-1,)
    reverse = planned(linear_of(f, X).program, False)
    assert [type(e) for e in reverse.entries] == [Input, Chained]


def test_one_kernel_reads_few_arrays_and_fewer_tangents():
    def f(x):
        y = x
        for _ in range(50):
            y = np.sin(y) * np.cos(y)
        return y

    def g(x):
        parts = [np.cumsum(x * (k + 2.0)) for k in range(20)]
        return sum(p * p for p in parts)

    for function in (f, g):
        for forward in (True, False):
            groups = chained(planned(linear_of(function, X).program, forward))
            assert len(groups) > 1
            for entry in groups:
                assert len(entry.op.chain.inputs) + len(entry.op.chain.outputs) <= fusing._MOST_ARRAYS
                assert len(entry.reads) <= fusing._MOST_TANGENTS


def test_a_long_value_is_not_computed_again_for_each_of_many_copies(fused_numpy):
    def f(x):
        y = np.sin(x) * x * 2.0
        return (y[:, None] * np.ones(200)) * 3.0 * np.ones((5, 200))

    program = planned(linear_of(f, X).program, True)
    assert len(chained(program)) == 2
    np.testing.assert_allclose(gj.jacfwd(f)(X), gj.jacfwd(f, chunk_size=1)(X))


def test_a_single_operation_stays_what_it_is():
    program = planned(linear_of(lambda x: V @ np.sin(W @ x), X).program, False)
    assert [type(e) for e in program.entries] == [Input, Partial, Scale, Partial]


def test_other_float_widths_stay_unfused():
    def f(x):
        return np.sin(x) * x * np.float16(2.0)

    linear = linear_of(f, X.astype(np.float16))
    assert chained(planned(linear.program, True)) == []


def test_the_identity_stays_a_diagonal_through_a_chain():
    program = planned(linear_of(masks, X).program, False)
    (out,) = push(program, [Hot(5, 0, 0, 5, None, (5,), X.dtype, X)])
    assert type(out) is Hot
    np.testing.assert_allclose(np.diag(out.values), gj.jacfwd(masks)(X), atol=1e-14)


def test_numbers_alone_make_a_diagonal_of_all_its_entries():
    program = planned(linear_of(lambda x: -(x * 2.0) * 3.0, X).program, True)
    (out,) = push(program, [Hot(5, 0, 0, 5, None, (5,), X.dtype, X)])
    np.testing.assert_array_equal(out.values, np.full(5, -6.0))


def test_a_part_of_the_identity_stays_a_diagonal_too():
    def f(x):
        return np.sin(x) * (x * 3.0).reshape(5) * np.exp(x).sum()

    def diagonal(x):
        return np.sin(x[None, :] * M[:3]) * x * 2.0 * M[0]

    for function in (f, diagonal):
        y = function(X)
        program = planned(linear_of(lambda a, g=function: g(X) * a * a * 2.0, np.ones(y.shape)).program, True)
        hot = Hot(4, 1, 2, 3, None, y.shape, y.dtype, X)
        (out,) = push(program, [hot])
        assert type(out) is Hot
        np.testing.assert_allclose(out.dense(), push(program, [hot.dense()])[0], atol=1e-14)


# ---------------------------------------------------------------- plans


@every_function
def test_the_transposed_program_pushes_what_the_program_pulls(f):
    program = linear_of(f, X).program
    back = transposed(program)
    cts = [h.random_like(program_output(program, v), np.random.default_rng(1)) for v in program.outputs]
    wanted = pull(program, [(v, ct) for v, ct in zip(program.outputs, cts, strict=True) if v is not None])
    found = push(back, cts)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        h.assert_close(a, b, 1e-12)


def program_output(program, v):
    return np.zeros(()) if v is None else np.zeros(program.entries[v].shape, program.entries[v].dtype)


def test_only_traces_that_batch_leave_a_sweep_fused(fused_numpy):
    seen = []

    def f(x):
        seen.append(fuses([x]))
        return x

    f(X)
    gj.vmap(f)(X)
    gj.vmap(gj.vmap(f))(POINTS)
    gj.jvp(f, (X,), (X,))
    gj.vmap(gj.grad(lambda x: f(x).sum()))(POINTS)
    gj.grad(lambda x: gj.vmap(f)(x).sum())(X)
    assert seen == [True, True, True, False, False, False]
    assert fuses([]) is False


def test_numpy_does_not_fuse_by_itself():
    assert not fuses([X, 1.0, np.float32(2.0)])
    assert linear_of(chain, X).plan(True) is None


def test_a_pullback_makes_its_plan_once_and_a_gradient_makes_none(fused_numpy, monkeypatch):
    made = []
    original = fusing.fuse
    monkeypatch.setattr("gpujac.transforms.plans.fuse", lambda *args: made.append(1) or original(*args))
    pullback = gj.vjp(chain, X)[1]
    for _ in range(3):
        pullback(np.ones(4))
    assert made == [1]
    gj.grad(lambda x: chain(x).sum())(X)
    gj.jacrev(lambda x: chain(x).sum())(X)
    assert made == [1]
    gj.jacrev(chain, chunk_size=1)(X)
    assert made == [1, 1]


def test_a_fused_program_of_chains_alone_counts_as_pointwise(fused_numpy):
    plans = []
    gj.jacrev(masks, report=plans.append)(np.linspace(-1.0, 1.0, 5000))
    assert plans[0].chunks == 1
    assert plans[0].mode == "rev"


def test_mapped_axes_of_coefficients_count_in_the_choice_of_chunks(fused_numpy):
    plans = []
    gj.vmap(gj.jacrev(lambda x: np.cumsum(np.sin(x) * x * 2.0), report=plans.append))(np.ones((4000, 64)))
    alone = []
    gj.jacrev(lambda x: np.cumsum(np.sin(x) * x * 2.0), report=alone.append)(np.ones(64))
    assert plans[0].chunk_size < (alone[0].chunk_size or 64)


# ---------------------------------------------------------------- counted on the emulated device

needs_cupy = pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "needs CuPy")
if not device.MISSING:
    from gpujac.backends.counts import counting

SIZES = {"W1": (48, 32), "W2": (56, 48), "W3": (24, 56)}


def per_chunk(f, transform, x, rows, chunk=8):
    """Launches, waits and uploads of one more chunk, and the launches by name."""
    J = partial(transform, f)
    J(chunk_size=chunk)(x)  # coefficients of constants, compiled kernels
    counts = []
    for size in (chunk, rows):
        with counting() as n:
            J(chunk_size=size, assembly="preallocate")(x)
        counts.append(n)
    extra = math.ceil(rows / chunk) - 1
    many_chunks, one = counts
    names = {k: (v - one.by_name.get(k, 0)) / extra for k, v in many_chunks.by_name.items()}
    return (
        (many_chunks.launches - one.launches) / extra, many_chunks.syncs,
        (many_chunks.uploads - one.uploads) / extra, {k: v for k, v in names.items() if v},
    )  # fmt: skip


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    return {k: device.array(rng.normal(size=s) / 3) for k, s in SIZES.items()}


@needs_cupy
@pytest.mark.parametrize(("transform", "rows"), [(gj.jacrev, 24), (gj.jacfwd, 32)])
def test_the_three_layer_network_takes_at_most_eight_launches_per_chunk(weights, transform, rows):
    def network(x):
        y = x
        for k in ("W1", "W2", "W3"):
            y = np.tanh(weights[k] @ y)
        return y

    x = device.array(np.linspace(-1.0, 1.0, 32))
    launches, syncs, uploads, names = per_chunk(network, transform, x, rows)
    assert launches <= 8, names
    assert (syncs, uploads) == (0, 0)


@needs_cupy
@pytest.mark.parametrize(("transform", "rows"), [(gj.jacrev, 56), (gj.jacfwd, 32)])
def test_a_chain_of_twenty_operations_is_one_launch_per_chunk(weights, transform, rows):
    def f(x):
        y = weights["W1"] @ x
        for _ in range(10):
            y = np.sin(y) * 1.1
        return weights["W2"] @ y

    x = device.array(np.linspace(-1.0, 1.0, 32))
    launches, syncs, uploads, names = per_chunk(f, transform, x, rows)
    assert sum(v for k, v in names.items() if k.startswith("chain_")) == 1, names
    assert launches <= 3, names  # the chain, one product, one write into the Jacobian
    assert (syncs, uploads) == (0, 0)


@needs_cupy
@pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd])
def test_numbers_alone_stay_on_the_device(transform):
    found = transform(lambda x: -(x * 2.0) * 3.0)(device.array(X))
    assert type(found) is device.TYPE
    np.testing.assert_array_equal(device.host(found), -6.0 * np.eye(5))


@needs_cupy
def test_a_gradient_of_large_arrays_is_fused_and_one_of_small_ones_is_not(monkeypatch):
    def f(x):
        y = x
        for _ in range(10):
            y = np.sin(y) * 1.1
        return y.sum()

    x = device.array(np.linspace(-1.0, 1.0, 1000))
    xs = device.array(np.linspace(-1.0, 1.0, 1000).reshape(10, 100))
    counts = {}
    for name, limit in (("small", plans._SINGLE_BYTES), ("large", 8000)):
        monkeypatch.setattr(plans, "_SINGLE_BYTES", limit)
        for transform, at in ((gj.grad(f), x), (gj.vmap(gj.grad(f)), xs), (gj.jacrev(f), x)):
            transform(at)
            with counting() as n:
                found = transform(at)
            counts.setdefault(name, []).append(sum(v for k, v in n.by_name.items() if k.startswith("chain_")))
            slope = gj.jvp(f, (device.host(at).ravel(),), (np.ones(1000),))[1]
            np.testing.assert_allclose(device.host(found).sum(), slope, rtol=1e-12)
    assert counts == {"small": [0, 0, 0], "large": [1, 1, 1]}


@needs_cupy
def test_a_diagonal_is_written_out_once_for_all_that_read_it():
    x = device.array(np.linspace(-1.0, 1.0, 32))
    for transform in (gj.jacrev, gj.jacfwd):
        launches, syncs, uploads, names = per_chunk(softmax, transform, x, 32)
        assert names["zeros"] == names["ones"] == 1, names
        assert launches <= 8, names
        assert (syncs, uploads) == (0, 0)


@needs_cupy
def test_indices_go_to_the_device_once_and_not_per_chunk(weights):
    def f(x):
        y = np.sin(x[INDEX]) * x[INDEX] * 2.0
        return weights["W1"][:, :6] @ y

    x = device.array(np.linspace(-1.0, 1.0, 32))
    for transform, rows in ((gj.jacrev, 48), (gj.jacfwd, 32)):
        _, syncs, uploads, names = per_chunk(f, transform, x, rows)
        assert (syncs, uploads) == (0, 0), names


@needs_cupy
@pytest.mark.parametrize("f", [chain, masks, broadcasts, rows, writes], ids=lambda f: f.__name__)
def test_the_emulated_device_gives_what_numpy_gives(monkeypatch, f):
    constants = {k: device.array(v) for k, v in (("W", W), ("V", V), ("M", M))}
    wanted = {t: t(f)(X) for t in (gj.jacrev, gj.jacfwd)}
    for name, value in constants.items():
        monkeypatch.setitem(globals(), name, value)
    for transform, plain in wanted.items():
        found = transform(f, chunk_size=2)(device.array(X))
        for a, b in zip(h.leaves(found), h.leaves(plain), strict=True):
            np.testing.assert_allclose(device.host(a), b, atol=1e-12)


@needs_cupy
def test_a_python_number_as_the_point_leaves_the_arrays_on_the_device():
    x = device.array(X)

    def f(a):
        return np.cumsum(np.sin(x * a) * a * 2.0)[INDEX] * x[0]

    _, linear = gj.linearize(f, 0.5)
    linear(1.0)
    with counting() as n:
        slope = linear(1.0)
    assert (n.syncs, n.uploads) == (0, 0)
    found = device.host(slope)
    host_x = X
    wanted = gj.jvp(lambda a: np.cumsum(np.sin(host_x * a) * a * 2.0)[INDEX] * host_x[0], (0.5,), (1.0,))[1]
    np.testing.assert_allclose(found, wanted, atol=1e-13)


@needs_cupy
def test_vmap_of_a_fused_jacobian_is_as_many_launches_for_any_number_of_lanes(weights):
    def f(x):
        y = weights["W1"] @ x
        return weights["W2"] @ (np.sin(y) * y * 2.0)

    counts = []
    for lanes in (2, 5):
        xs = device.array(np.linspace(-1.0, 1.0, lanes * 32).reshape(lanes, 32))
        gj.vmap(gj.jacrev(f))(xs)
        with counting() as n:
            gj.vmap(gj.jacrev(f))(xs)
        counts.append(n)
    assert counts[0].launches == counts[1].launches
    assert sum(v for k, v in counts[0].by_name.items() if k.startswith("chain_")) == 1
    assert counts[0].syncs == 0


@needs_cupy
def test_without_kernels_the_same_sweeps_run_plainly(weights):
    x = device.array(np.linspace(-1.0, 1.0, 32))

    def f(x):
        y = weights["W1"] @ x
        return weights["W2"] @ (np.sin(y) * y * 2.0)

    fused = gj.jacrev(f)(x)
    with gj.settings.override(kernels="off"), counting() as n:
        plain = gj.jacrev(f)(x)
    assert not [k for k in n.by_name if k.startswith("chain_")]
    np.testing.assert_allclose(device.host(fused), device.host(plain), atol=1e-13)
    pullback = gj.vjp(f, x)[1]
    ct = device.array(np.ones(56))
    with_kernels = pullback(ct)[0]
    with gj.settings.override(kernels="off"), counting() as n:  # a plan that was made before
        without = pullback(ct)[0]
    assert not [k for k in n.by_name if k.startswith("chain_")]
    np.testing.assert_allclose(device.host(with_kernels), device.host(without), atol=1e-13)


def test_program_entries_that_stay_keep_what_they_hold():
    program = linear_of(takes, X).program
    copy = planned(program, True)
    assert isinstance(copy, Program)
    kept = [e for e in copy.entries if type(e) is Partial]
    assert {id(x) for e in kept for x in e.operands if x is not None} <= {
        id(x) for e in program.entries if type(e) is Partial for x in e.operands
    }


@pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("f", [
    lambda v, c: v * c * v.sum(), lambda v, c: (v * c) / v.sum(), lambda v, c: (v * c)[:, None] * v[None],
    lambda v, c: (v * c, v.sum() * c), lambda v, c: np.nansum(v * v * c) * v,
])  # fmt: skip
def test_a_coefficient_that_is_not_finite_stays_in_its_rows(f, bad):
    """One missing value, or one that overflowed, must not reach the rows that do not read it."""
    x, c = np.array([0.5, 1.0, 2.0]), np.array([bad, 1.0, 2.0])
    one = lambda transform, x, c: trees.flatten(transform(lambda v: f(v, c))(x))[0]
    for transform in (gj.jacrev, gj.jacfwd):
        with np.errstate(all="ignore"):
            wanted = one(partial(transform, chunk_size=1), x, c)  # one row at a time: nothing to mix with
        found = one(transform, device.array(x), device.array(c))
        for a, b in zip(found, wanted, strict=True):
            rows = np.isfinite(b)
            np.testing.assert_allclose(device.host(a)[rows], b[rows], rtol=1e-12)
