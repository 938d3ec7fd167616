"""Planned sweeps give what interpreted ones give, in memory that is settled once and used again."""

import threading
import tracemalloc

import numpy as np
import pytest

import gpujac as gj
from gpujac.engine import plan as planning
from gpujac.engine import reuse
from gpujac.engine.memory import lifetimes
from gpujac.engine.plan import settle, unplannable
from gpujac.engine.replay import Pool, Replay
from gpujac.program.simplify import simplified
from gpujac.transforms import planned
from gpujac.transforms.sweep import pull, push
from gpujac.transforms.transposing import transposed
from gpujac.transforms.vjp import Linearized
from tests import fuzz
from tests.transforms import helpers as h

RNG = np.random.default_rng(5)
M = RNG.normal(size=(12, 12))
X = RNG.normal(size=(6, 12))
INDEX = np.array([3, 0, 3, 11, -1, 0])


@pytest.fixture(autouse=True)
def empty():
    """Nothing is kept from other tests, or for them."""
    reuse.forget()
    yield
    reuse.forget()


@pytest.fixture
def every_size(monkeypatch):
    """Small programs are planned too."""
    monkeypatch.setattr(planned, "pays", lambda program, rows: True)


def linearized(f, *xs):
    return Linearized("test", f, xs, {}, tuple(range(len(xs))), False, check=False)


def everything(program, replaced):
    """The plan of all live entries."""
    assert unplannable(program) is None
    live = program.live()
    entries = [i for i in range(program.inputs, len(program.entries)) if live[i]]
    wanted = list(dict.fromkeys([v for v in program.outputs if v is not None]))
    return settle(program, list(range(program.inputs)), entries, wanted, replaced)


def seeds_of(program, rows):
    inputs = program.entries[: program.inputs]
    turns = [1j * RNG.normal() if np.dtype(e.dtype).kind == "c" else 0 for e in inputs]
    return [(RNG.normal(size=(rows, *e.shape)) + z).astype(e.dtype) for e, z in zip(inputs, turns, strict=True)]


def replayed(program, seeds, replaced, rows=3):
    """The outputs of a planned sweep whose memory holds NaN before."""
    plan = everything(program, replaced)
    pool = Pool(plan, rows + 1)
    for array in pool.arrays(rows):
        if array is not None and array.base is not None and array.flags.writeable:
            array.fill(np.nan if array.dtype.kind in "fc" else 1)
    replay = Replay(program, pool)
    for v, out in replay.given(rows).items():
        out[...] = seeds[v]
    targets = {
        v: np.full((rows, *program.entries[v].shape), np.nan, program.entries[v].dtype) for v in plan.outputs
    }
    found = replay.run(rows, targets if replaced else {})
    for v, slot in plan.outputs.items():
        assert not (replaced and slot in plan.own) or found[v] is targets[v]
    return [None if v is None else found[v].copy() for v in program.outputs]


def check_like_interpreted(program):
    seeds = seeds_of(program, 3)
    wanted = push(program, list(seeds))
    for replaced in (False, True):
        for found, want in zip(replayed(program, seeds, replaced), wanted, strict=True):
            assert (found is None) == (want is None)
            if want is not None:
                h.assert_close(found, want, 1e-13)


def both_directions(f, *xs):
    """The programs of both directions, as recorded and as simplified."""
    program = linearized(f, *xs).program
    for one in (program, simplified(program)):
        if unplannable(one) is None:
            yield one
            yield transposed(one)


def rolls(x):
    for _ in range(2):
        x = x + 0.1 * (np.roll(x, 1, 0) + np.roll(x, (-1, 2), (0, 1)) - 2 * x) * x
    return np.roll(x, 0, 1)


def writes(x):
    y = np.zeros_like(x)
    y[1:] = x[:-1] * x[1:]
    y[0] = np.sin(x[1])
    z = y * 2.0
    z[:, 2] = y[:, 0]
    return z[::-1] + np.pad(x[1:-1], ((1, 1), (0, 0)))


def guarded(x):
    y = np.where(x > 0, np.sqrt(np.where(x > 0, x, 0.0)), 2 * x)
    return np.cumsum(y, axis=1) @ M + np.flip(np.cumsum(np.flip(y, 1), 1), 1)


FAMILIES = {
    "products": lambda x: np.tanh(x @ M) @ M.T * x + np.einsum("ij,kj->ik", x, x) @ x,
    "sums and spreads": lambda x: x * x.sum(axis=1, keepdims=True) - x.mean() * np.exp(x).sum(axis=0),
    "moves": lambda x: np.concatenate([x.T.reshape(4, 18), np.stack([x[0, :9], x[1, 3:]]).reshape(1, 18)]).ravel() * 2,
    "reads": lambda x: x[:, INDEX] * x[:, ::2] + np.take(x, INDEX, axis=1)[:, ::-1] * np.sin(x[:, :6]),
    "rolls": rolls,
    "writes": writes,
    "guarded": guarded,
    "complex": lambda x: np.real((x + 1j * x * x) * np.conj(np.exp(1j * x)) @ M) + np.imag(1j * x),
    "casts": lambda x: (x.astype(np.float32) @ M.astype(np.float32)).astype(np.float64) * x,
    "shared": lambda x: (x * 2, x * 2 + x, x.T, x),
}


@pytest.mark.filterwarnings("ignore:.*complex:RuntimeWarning")
@pytest.mark.parametrize("name", FAMILIES)
def test_steps_of_every_family_give_what_the_interpreter_gives(name):
    point = np.where(X > 1.5, 0.0, X)  # the slope of sqrt at 0 is infinite
    programs = list(both_directions(FAMILIES[name], point))
    assert programs
    for program in programs:
        check_like_interpreted(program)


@pytest.mark.parametrize("seed", range(12))
def test_steps_of_random_programs_give_what_the_interpreter_gives(seed):
    program = fuzz.Program(seed)
    for one in both_directions(program.f, *program.inputs):
        check_like_interpreted(one)


@pytest.mark.parametrize("seed", range(20, 32))
def test_the_transposed_program_pushes_what_the_program_pulls(seed):
    random = fuzz.Program(seed)
    program = linearized(random.f, *random.inputs).program
    seeds = [RNG.normal(size=(2, *(() if v is None else program.entries[v].shape))) for v in program.outputs]
    pulled = pull(program, [(v, s) for v, s in zip(program.outputs, seeds, strict=True) if v is not None])
    for found, want in zip(push(transposed(program), list(seeds)), pulled, strict=True):
        assert (found is None) == (want is None)
        if want is not None:
            h.assert_close(found, want, 1e-12)


def test_slots_that_share_a_block_are_never_live_at_once():
    for name in ("rolls", "products", "writes"):
        for program in both_directions(FAMILIES[name], X):
            plan = everything(program, False)
            begins, ends = lifetimes(plan.slots, plan.steps, plan.given.values(), plan.outputs.values())
            slots = sorted(begins)
            for a in slots:
                for b in slots:
                    if a < b and plan.places[a] == plan.places[b]:
                        assert ends[a] < begins[b] or ends[b] < begins[a]


def test_a_chain_of_elementwise_entries_runs_in_place():
    plan = everything(linearized(lambda x: np.sin(np.exp(np.tanh(x)) * 2.0), X).program, False)
    assert plan.blocks == (X.nbytes,)


def test_a_view_holds_no_memory():
    plan = everything(linearized(lambda x: x.T[1:, ::2].reshape(11, 3, 1), X).program, False)
    assert plan.blocks == (X.nbytes,)
    assert not plan.steps


def coupled(x):
    """Dense rows from the first product on."""
    y = M @ x
    for _ in range(3):
        y = y + 0.1 * np.roll(y, 1) * y - 0.2 * np.roll(y, -1)
    return np.cumsum(y) * x


POINT = RNG.normal(size=12)
every_transform = pytest.mark.parametrize("transform", [gj.jacrev, gj.jacfwd], ids=["jacrev", "jacfwd"])


def plan_of(transform, f, *xs, **options):
    seen = []
    transform(f, report=seen.append, **options)(*xs)
    return seen[0]


@every_transform
@pytest.mark.parametrize("assembly", ["auto", "stack", "preallocate"])
@pytest.mark.parametrize("chunk_size", [2, 3, 5, 11])
def test_planned_jacobians_equal_interpreted_ones(transform, assembly, chunk_size, monkeypatch, every_size):
    f = lambda x, y: (coupled(x) * y[0], {"a": x[:4] * y, "b": (M[:4] @ x) * y + 1})
    xs = (POINT, POINT[:4] + 1)
    options = {"chunk_size": chunk_size, "assembly": assembly}
    J = transform(f, (0, 1), **options)(*xs)
    assert plan_of(transform, f, *xs, argnums=(0, 1), **options).sweep == "planned"
    h.assert_owned(J, *xs)
    monkeypatch.setattr(planned, "pays", lambda program, rows: False)
    want = transform(f, (0, 1), **options)(*xs)
    h.assert_close(J, want, 1e-13)


@every_transform
def test_the_report_says_what_ran_and_why(transform, every_size):
    assert plan_of(transform, coupled, POINT, chunk_size=4).sweep == "planned"
    assert "one" not in plan_of(transform, coupled, POINT, chunk_size=4).sweep
    assert plan_of(transform, coupled, POINT, chunk_size=1).sweep.startswith("interpreted: chunks of 2 to")
    assert plan_of(transform, np.sin, POINT, chunk_size=4).sweep == "interpreted: it is elementwise"
    assert plan_of(transform, gj.checkpoint(coupled), POINT, chunk_size=4).sweep.startswith("interpreted: variable")


@every_transform
def test_small_programs_are_interpreted(transform):
    assert plan_of(transform, coupled, POINT, chunk_size=4).sweep == "interpreted: it is small"


@every_transform
def test_under_another_transform_sweeps_are_interpreted(transform, every_size):
    seen = []
    J = transform(coupled, chunk_size=4, report=seen.append)
    want = np.stack([transform(coupled, chunk_size=4)(x) for x in (POINT, 2 * POINT)])
    h.assert_close(gj.vmap(J)(np.stack([POINT, 2 * POINT])), want, 1e-12)
    assert {plan.sweep for plan in seen} == {"interpreted"}


def counted(monkeypatch):
    """Plans and pools made from here on."""
    made = {"plans": 0, "pools": 0}

    def settling(*args):
        made["plans"] += 1
        return settle(*args)

    def pooled(*args):
        made["pools"] += 1
        return Pool(*args)

    monkeypatch.setattr(planned, "settle", settling)
    monkeypatch.setattr(reuse, "Pool", pooled)
    return made


@every_transform
def test_a_second_point_takes_the_same_plan_and_memory(transform, monkeypatch, every_size):
    made = counted(monkeypatch)
    J = transform(coupled, chunk_size=5)
    first = J(POINT)
    before = dict(made)
    assert before["plans"] >= 1
    second = J(2 * POINT)
    assert made == before
    h.assert_same_bits(J(POINT), first)
    reuse.forget()
    h.assert_same_bits(J(2 * POINT), second)
    assert made["plans"] > before["plans"]


def test_another_index_array_or_shape_or_kind_of_coefficient_makes_a_plan_of_its_own(every_size):
    def key(f, x):
        return reuse.key_of(linearized(f, x).program)

    read = lambda index: lambda x: np.cumsum(np.sin(x)[index])
    assert key(read(INDEX), POINT) == key(read(INDEX.copy()), 2 * POINT)
    assert key(read(INDEX), POINT) != key(read(INDEX[::-1].copy()), POINT)
    assert key(read(INDEX), POINT) != key(read(INDEX[:5]), POINT)
    assert key(np.cumsum, POINT) != key(np.cumsum, POINT[:5])
    root = lambda x: np.cumsum(np.sqrt(x))
    assert key(root, np.abs(POINT)) == key(root, np.abs(POINT) + 1)
    assert key(root, np.abs(POINT)) != key(root, np.zeros(12))  # its slopes are infinite


def test_an_index_array_that_is_changed_in_place_changes_the_result(every_size):
    index = INDEX.copy()
    J = gj.jacrev(lambda x: np.cumsum(M[:6] @ np.sin(x) * x[index]), chunk_size=4)
    J(POINT)
    index[:] = index[::-1].copy()
    want = gj.jacrev(lambda x: np.cumsum(M[:6] @ np.sin(x) * x[index]), chunk_size=None)(POINT)
    h.assert_close(J(POINT), want, 1e-13)


def test_threads_that_sweep_the_same_program_have_memory_of_their_own(every_size):
    J = gj.jacrev(coupled, chunk_size=4)
    points = [POINT * k for k in range(1, 7)]
    want = [J(x) for x in points]
    found = [None] * len(points)

    def work(k):
        for _ in range(10):
            found[k] = J(points[k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(points))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    h.assert_same_bits(found, want)


def test_memory_is_kept_up_to_the_setting_and_freed_when_asked(every_size):
    J = gj.jacrev(coupled, chunk_size=4)
    J(POINT)
    kept = reuse.kept_bytes()
    assert 0 < kept < 10_000
    J(POINT)
    assert reuse.kept_bytes() == kept
    with gj.settings.override(plan_memory=kept - 1):
        J(POINT)
        assert reuse.kept_bytes() == 0
    with gj.settings.override(plan_memory=None):
        J(POINT)
        assert reuse.kept_bytes() == 0
    J(POINT)
    reuse.forget()
    assert reuse.kept_bytes() == 0


def wide(x):
    y = np.cumsum(x)
    for _ in range(6):
        y = y + 0.1 * np.roll(y, 1) * y
    return y[:8]


def rows_allocated(rows, chunk_size):
    """Bytes beyond the start at the worst moment of replaying `rows` rows, the second time."""
    program = transposed(simplified(linearized(wide, np.linspace(0.1, 0.2, 20_000)).program))
    plan = everything(program, True)
    replay = Replay(program, Pool(plan, chunk_size))
    targets = {v: np.empty((rows, *program.entries[v].shape)) for v in plan.outputs}

    def run():
        for start in range(0, rows, chunk_size):
            stop = min(start + chunk_size, rows)
            for v, out in replay.given(stop - start).items():
                out.fill(v)
            replay.run(stop - start, {v: x[start:stop] for v, x in targets.items()})

    run()
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_chunk_after_the_first_allocates_rows():
    assert rows_allocated(11, 4) < 20_000  # one row has 160 000 bytes; the last chunk has three rows


def test_where_memory_runs_out_the_chunk_is_halved(monkeypatch, every_size):
    want = gj.jacrev(coupled, chunk_size=8)(POINT)
    reuse.forget()

    class Scarce(Pool):
        def __init__(self, plan, rows):
            if rows > 3:
                raise MemoryError
            super().__init__(plan, rows)

    monkeypatch.setattr(reuse, "Pool", Scarce)
    seen = []
    h.assert_close(gj.jacrev(coupled, chunk_size=8, report=seen.append)(POINT), want, 1e-13)
    assert [plan.chunk_size for plan in seen[:3]] == [8, 4, 2]


def test_the_memory_cap_counts_the_memory_of_the_plan(every_size):
    plan = plan_of(gj.jacrev, coupled, POINT, chunk_size=8)
    capped = plan_of(gj.jacrev, coupled, POINT, chunk_size=8, memory=3 * plan.row_bytes)
    assert capped.chunk_size * capped.row_bytes <= 3 * plan.row_bytes


def test_a_traced_or_foreign_coefficient_is_a_reason_against_planning():
    gj.vmap(lambda x: _check_unplannable(linearized(coupled, x).program))(np.stack([POINT]))


def _check_unplannable(program):
    assert "traced" in planning.unplannable(program)
    return 0.0
