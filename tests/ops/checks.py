"""One check per rule of an op: each takes a case, a dtype and a library, and raises if it is wrong.

Values come from NumPy, derivatives from differences or complex steps in double precision, batches
from a Python loop. The rule mutation runs these same functions.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import gpujac as gj
from gpujac.core.aval import aval_of, kind
from gpujac.core.op import Joint, Linear, Pointwise
from gpujac.core.pattern import Pattern
from gpujac.ops.linalg import LinearSolve
from tests import device
from tests import oracles as orc
from tests.device import host
from tests.ops.catalogue import Case, Library
from tests.tolerances import tolerance


class Run:
    """A case in one dtype and library: operands, the functions of the traced ones, tolerances."""

    def __init__(self, case: Case, dtype: str, library: Library) -> None:
        self.case, self.dtype, self.library = case, dtype, library
        self.operands = case.draw(dtype)
        self.rng = np.random.default_rng(5)
        self.backend = device.NAME if library.name == "cupy" else "numpy"
        self.tol = tolerance(dtype, "float32" if case.name == "cast" else dtype, backend=self.backend)
        self.primals = tuple(self.operands[p] for p in case.positions)
        wide = {"f": np.float64, "c": np.complex128}
        self.wide = tuple(np.asarray(x, wide.get(x.dtype.kind)) for x in self.primals)

    def f(self, *xs: Any) -> Any:
        """The call as a function of the operands that carry a tangent."""
        operands = [self.library.array(x) for x in self.operands]
        for p, x in zip(self.case.positions, xs, strict=True):
            operands[p] = x
        return self.case.call(self.library.xp, *operands)

    def oracle(self, *xs: Any) -> Any:
        """NumPy's answer as a function of the same operands."""
        operands = list(self.operands)
        for p, x in zip(self.case.positions, xs, strict=True):
            operands[p] = x
        return np.asarray(self.case.reference(*operands))

    def arrays(self, xs: Any) -> tuple:
        """Plain operands as arrays of the library."""
        return tuple(self.library.array(x) for x in xs)

    def tangents(self) -> tuple:
        """Random tangents of the primals."""
        return orc.random_like(self.rng, self.primals)

    def derivative(self, ts: tuple) -> np.ndarray:
        """The tangent of the result, without the library."""
        wide = tuple(np.asarray(t, x.dtype) for t, x in zip(ts, self.wide, strict=True))
        analytic = self.case.sample.complex_ok and all(x.dtype.kind == "f" for x in self.wide)
        if analytic and self.case.op is not None:
            return orc.complex_step(self.oracle, self.wide, wide)
        return orc.central_difference(self.oracle, self.wide, wide)

    def same_type(self, found: Any, wanted: Any, what: str) -> None:
        """Fails unless the result is an array of the library in the dtype of `wanted`."""
        assert isinstance(found, self.library.type), f"{what}: {type(found)}"
        name, other = (str(x.dtype).rpartition(".")[2] for x in (found, wanted))
        assert name == other, f"{what}: dtype {name}, wanted {other}"


def back(x: Any) -> np.ndarray:
    """An array of any library as NumPy's."""
    return host(x)


def is_flat(run: Run) -> bool:
    """Whether the case has no derivative to speak of."""
    op = run.case.op
    return not run.primals or (op is not None and getattr(op, "flat", False))


def check_value(run: Run) -> None:
    """The result and its dtype are NumPy's."""
    found = run.case.run(run.library, run.operands)
    wanted = run.case.reference(*run.operands)
    orc.close(back(found), np.asarray(wanted), run.tol.same, "value")
    if run.case.name not in ("cast", "last_writer"):
        run.same_type(found, np.asarray(wanted), "value")


def check_infer(run: Run) -> None:
    """What `infer` foretells is what `evaluate` gives."""
    op = run.case.op
    if op is None:
        return
    other = isinstance(op, Pointwise) or op.flat or "c" in run.case.kinds
    if run.library.name == "strict" and other:
        return  # promotion and new dtypes are NumPy's there; a recording asks the namespace itself
    operands = run.arrays(run.operands)
    found = aval_of(run.case.op(*operands))
    assert run.case.op.infer(*(aval_of(x) for x in operands)) == found


def check_jvp(run: Run) -> None:
    """Tangents of all operands together and of each alone agree with the oracle."""
    if is_flat(run):
        return _check_zero_derivative(run)
    everything = run.tangents()
    y, dy = gj.jvp(run.f, run.arrays(run.primals), run.arrays(everything))
    orc.close(back(y), run.oracle(*run.primals), run.tol.same, "primal")
    orc.close(back(dy), run.derivative(everything), run.tol.step, "tangent")
    run.same_type(dy, y, "tangent")
    for p in range(len(run.primals) if len(run.primals) > 1 else 0):
        dy = gj.jvp(lambda x, p=p: _with(run, p, x), *_alone(run, p, everything))[1]
        ts = tuple(t if q == p else np.zeros_like(t) for q, t in enumerate(everything))
        orc.close(back(dy), run.derivative(ts), run.tol.step, f"tangent of operand {p} alone")
        run.same_type(dy, y, f"tangent of operand {p} alone")


def _with(run: Run, p: int, x: Any) -> Any:
    xs = list(run.arrays(run.primals))
    xs[p] = x
    return run.f(*xs)


def _alone(run: Run, p: int, ts: tuple) -> tuple:
    return (run.library.array(run.primals[p]),), (run.library.array(ts[p]),)


def _check_zero_derivative(run: Run) -> None:
    if not run.primals:
        return
    seen = []

    def f(*xs: Any) -> Any:
        y = run.f(*xs)
        seen.append(gj.is_traced(y))
        return y

    dy = gj.jvp(f, run.arrays(run.primals), run.arrays(run.tangents()))[1]
    assert not np.any(back(dy))
    assert seen == [False], "a result without derivative is untraced"


def check_linearize(run: Run) -> None:
    """The recorded linear program gives the tangent that jvp gives, and its value."""
    if is_flat(run):
        return
    ts = run.tangents()
    y, linear = gj.linearize(run.f, *run.arrays(run.primals))
    wanted = gj.jvp(run.f, run.arrays(run.primals), run.arrays(ts))
    orc.close(back(y), back(wanted[0]), run.tol.same, "value")
    orc.close(back(linear(*run.arrays(ts))), back(wanted[1]), run.tol.same, "tangent")


def check_vjp(run: Run) -> None:
    """⟨vjp(ct), t⟩ = ⟨ct, jvp(t)⟩ entry by entry of ct, dtypes and shapes those of the primals."""
    if is_flat(run):
        return
    y, pullback = gj.vjp(run.f, *run.arrays(run.primals))
    for _ in range(2):
        ts, ct = run.tangents(), orc.random_like(run.rng, back(y))
        cts = pullback(run.library.array(ct))
        for found, x in zip(cts, run.primals, strict=True):
            run.same_type(found, x, "cotangent")
            assert tuple(found.shape) == x.shape
        wanted = orc.inner(ct, run.derivative(ts))
        scale = 1.0 + np.abs(ct).sum() + abs(wanted)
        error = abs(orc.inner(tuple(map(back, cts)), ts) - wanted)
        assert error <= run.tol.step * scale, f"inner products differ by {error:.2e}"


def check_transpose(run: Run) -> None:
    """⟨T(ct), x⟩ = ⟨ct, op(x)⟩ for linear ops, also behind extra leading axes; T's T is the op."""
    op = run.case.op
    if isinstance(op, Linear):
        x = run.operands[0]
        for lead in ((), (2,), (3, 2)):
            wide = np.asarray(run.rng.uniform(-1, 1, lead + x.shape), x.dtype)
            wide = wide + 1j * run.rng.uniform(-1, 1, wide.shape) if wide.dtype.kind == "c" else wide
            y = back(op(run.library.array(wide)))
            ct = orc.random_like(run.rng, y)
            pulled = op.transposed(run.library.array(ct))
            assert op.transposed.infer(aval_of(run.library.array(ct))) == aval_of(pulled)
            found = back(pulled)
            assert found.shape == wide.shape
            _equal_products((found, wide), (ct, y), run)
            again = back(op.transposed.transposed(run.library.array(wide)))
            orc.close(again, y, run.tol.same, "transpose of the transpose")
    if isinstance(op, Joint):
        _check_parts(run, op)
    for p in getattr(op, "linear_in", ()):
        operands = list(run.arrays(run.operands))
        y = back(op(*operands))
        ct = orc.random_like(run.rng, y)
        operands[p] = None  # a transpose may not look at the operand it is linear in
        shape = run.operands[p].shape
        found = back(op.transpose(p, run.library.array(ct), tuple(operands), shape))
        assert found.shape == shape
        _equal_products((found, run.operands[p]), (ct, y), run)


def _equal_products(a: tuple, b: tuple, run: Run) -> None:
    one, other = orc.inner(*a), orc.inner(*b)
    same = max(tolerance(str(x.dtype), backend=run.backend).same for x in a + b)
    assert abs(one - other) <= same * 30 * (1 + abs(other)), f"{one} against {other}"


def _check_parts(run: Run, op: Joint) -> None:
    y = back(op(*run.arrays(run.operands)))
    ct = orc.random_like(run.rng, y)
    everything = 0.0
    for p, (part, x) in enumerate(zip(op.parts, run.operands, strict=True)):
        own = back(part(run.library.array(ct)))
        assert own.shape == x.shape
        everything += orc.inner(own, x)
        alone = [v if q == p else np.zeros_like(v) for q, v in enumerate(run.operands)]
        found = back(op.restricted((p,))(run.library.array(x)))
        orc.close(found, back(op(*run.arrays(alone))), run.tol.same, f"operand {p} alone")
    wanted = orc.inner(ct, y)
    assert abs(everything - wanted) <= run.tol.same * 30 * (1 + abs(wanted))
    if len(op.parts) > 2:
        found = back(op.restricted((0, 2))(*run.arrays([run.operands[0], run.operands[2]])))
        alone = [np.zeros_like(v) if q == 1 else v for q, v in enumerate(run.operands)]
        orc.close(found, back(op(*run.arrays(alone))), run.tol.same, "two operands")


_FIXED_RANKS = frozenset("take scatter_add last_writer fused interp quantile searchsorted".split())


def check_leading(run: Run) -> None:
    """An op leaves extra leading axes of its operands alone."""
    op = run.case.op
    if op is None or isinstance(op, Pointwise) or op.name in _FIXED_RANKS:
        return  # the axes of an index array, or of an operand that broadcasts, are not leading axes
    if isinstance(op, LinearSolve) and run.operands[0].ndim + op.vector <= run.operands[1].ndim - 1:
        return  # leading axes of one operand only
    seeds = [run.case.draw(run.dtype, seed) for seed in range(6)]
    stacked = [np.stack(xs).reshape((3, 2) + xs[0].shape) for xs in zip(*seeds, strict=True)]
    found = back(op(*run.arrays(stacked)))
    rows = [np.asarray(run.case.reference(*xs)) for xs in seeds]
    wanted = np.stack(rows).reshape((3, 2) + rows[0].shape)
    orc.close(found, wanted, run.tol.same, "leading axes")


def check_batch_leading(run: Run) -> None:
    """vmap of an op on an operand with an extra leading axis, the mapped axis before or behind it."""
    op = run.case.op
    ranks = {"contract": (0, 1), "solve": (1,), "solve_triangular": (1,)}.get(run.case.name, ())
    if isinstance(op, Linear) or getattr(op, "leading", False):
        ranks = (0,)
    for p in ranks:
        for place, other, lead in itertools.product((0, 1), (None, 0), ((2,), (2, 2))):
            count = 2 * len(lead)
            seeds = [[run.case.draw(run.dtype, 10 * k + s)[p] for s in range(count)] for k in range(3)]
            wide = np.stack([np.stack(draws) for draws in seeds])
            wide = wide.reshape(3, *lead, *run.operands[p].shape)  # (lanes, *lead, *shape)
            dims = [other] * len(run.operands)
            xs = _stacked(run, tuple(dims), 3)
            xs[p], dims[p] = np.moveaxis(wide, 0, place), place
            wanted = orc.loop(run.case.reference, tuple(xs), tuple(dims), 3)
            found = gj.vmap(op, tuple(dims))(*run.arrays(xs))
            orc.close(back(found), wanted, run.tol.same, f"lead of operand {p}, in_dims {dims}")


def _dims(run: Run) -> list[tuple]:
    """All combinations of mapped axes of the operands, but for nothing mapped at all."""
    options = [(None, *range(x.ndim + 1)) for x in run.operands]
    return [d for d in itertools.product(*options) if any(k is not None for k in d)]


def _stacked(run: Run, dims: tuple, size: int, first: int = 0) -> list:
    draws = [run.case.draw(run.dtype, seed) for seed in range(first, first + size)]
    return [
        x if d is None else np.stack([draw[p] for draw in draws], d)
        for p, (x, d) in enumerate(zip(run.operands, dims, strict=True))
    ]


def check_batch(run: Run) -> None:
    """vmap over every choice of mapped axes equals a loop, output axis first or last."""

    def f(*xs: Any) -> Any:
        return run.case.call(run.library.xp, *xs)

    for number, dims in enumerate(_dims(run)):
        xs = _stacked(run, dims, 2)
        wanted = orc.loop(run.case.reference, tuple(xs), dims, 2)
        out = -1 if number % 3 == 0 else 0
        found = gj.vmap(f, dims, out)(*run.arrays(xs))
        orc.close(np.moveaxis(back(found), out, 0), wanted, run.tol.same, f"in_dims {dims}")
        if run.case.name not in ("cast", "last_writer"):
            run.same_type(found, wanted, f"in_dims {dims}")


def check_batch_of_batch(run: Run) -> None:
    """vmap of vmap equals two loops, whichever operands each of them maps."""

    def f(*xs: Any) -> Any:
        return run.case.call(run.library.xp, *xs)

    n = len(run.operands)
    everywhere, first, last = (0,) * n, (0,) + (None,) * (n - 1), (None,) * (n - 1) + (0,)
    at_end = (-1,) * n
    choices = [(everywhere, everywhere), (everywhere, at_end), (at_end, everywhere)]
    if n > 1:
        choices += [(first, last), (last, first), (everywhere, last), (first, everywhere)]
    for outer, inner_dims in choices:
        rows = [_stacked(run, inner_dims, 2, first) for first in (0, 4, 8)]
        xs = [
            x if d is None else np.stack([row[p] for row in rows], d)
            for p, (x, d) in enumerate(zip(_stacked(run, inner_dims, 2), outer, strict=True))
        ]

        def inside(*args: Any, dims: tuple = inner_dims) -> Any:
            return orc.loop(run.case.reference, args, dims, 2)

        found = gj.vmap(gj.vmap(f, inner_dims), outer)(*run.arrays(xs))
        wanted = orc.loop(inside, tuple(xs), outer, 3)
        orc.close(back(found), wanted, run.tol.same, f"in_dims {outer} of {inner_dims}")


def check_second_order(run: Run) -> None:
    """jvp of vjp agrees with a difference of vjp; vjp of vjp is its transpose."""
    if is_flat(run):
        return
    ct = orc.random_like(run.rng, run.oracle(*run.primals))

    def pulled(*xs: Any) -> Any:
        y, pullback = gj.vjp(run.f, *xs)
        return pullback(run.library.array(np.asarray(ct, str(y.dtype).rpartition(".")[2])))

    ts = run.tangents()
    _, found = gj.jvp(pulled, run.arrays(run.primals), run.arrays(ts))
    wanted = orc.central_difference(_double_pulled(run, ct), run.wide, ts, h=1e-4)
    orc.close_trees(tuple(map(back, found)), tuple(wanted), run.tol.curve, "jvp of vjp")
    cts = orc.random_like(run.rng, run.primals)
    twice = gj.vjp(pulled, *run.arrays(run.primals))[1](run.arrays(cts))
    one, other = orc.inner(tuple(map(back, twice)), ts), orc.inner(cts, wanted)
    assert abs(one - other) <= run.tol.curve * 10 * (1 + abs(other)), f"vjp of vjp: {one}, {other}"


def _double_pulled(run: Run, ct: np.ndarray) -> Callable:
    """The pulled-back ct in double precision, which other checks have found right."""
    wide = Run(run.case, run.dtype, run.library)
    wide.operands = [np.asarray(x, _wide(x)) for x in wide.operands]

    def pulled(*xs: Any) -> tuple:
        y, pullback = gj.vjp(wide.f, *wide.arrays(xs))
        cts = pullback(wide.library.array(np.asarray(ct, back(y).dtype)))
        return tuple(map(back, cts))

    return pulled


def _wide(x: np.ndarray) -> Any:
    return {"f": np.float64, "c": np.complex128}.get(x.dtype.kind, x.dtype)


def check_depends(run: Run) -> None:
    """The pattern covers all that changes when one entry does, and no more for structural ops."""
    op = run.case.op
    if op is None or run.library.name != "numpy" or run.dtype != "float64":
        return
    sizes = [x.size for x in run.operands]
    y = np.asarray(run.case.reference(*run.operands))
    changed = np.zeros((sum(sizes), *y.shape), bool)
    seed, bits = 0, [np.zeros((sum(sizes), *x.shape), bool) for x in run.operands]
    for p, x in enumerate(run.operands):
        for i in range(x.size):
            bits[p].reshape(len(changed), -1)[seed, i] = True
            for other in _other_values(x.reshape(-1)[i]):
                moved = [np.array(v) for v in run.operands]
                moved[p].reshape(-1)[i] = other
                with np.errstate(all="ignore"):  # the other value may lie outside the domain
                    changed[seed] |= np.asarray(run.case.reference(*moved)) != y
            seed += 1
    if not all(x.dtype.kind in "fc" for x in run.operands):
        return _check_float_patterns(run, op, bits, changed)
    found = op.depends(*(Pattern(b) for b in bits))
    assert found.bits.shape == changed.shape
    assert np.all(found.bits >= changed), "an entry that depends is missing"
    if isinstance(op, (Linear, Joint)):
        assert np.array_equal(found.bits, changed), "an entry that does not depend is there"


def _check_float_patterns(run: Run, op: Any, bits: list, changed: np.ndarray) -> None:
    """Index operands do not count: their patterns are those of constants."""
    for b, x in zip(bits, run.operands, strict=True):
        if x.dtype.kind not in "fc":
            changed[b.any(axis=tuple(range(1, b.ndim)))] = False
            b[...] = False
    found = op.depends(*(Pattern(b) for b in bits))
    assert found.bits.shape == changed.shape
    assert np.all(found.bits >= changed), "an entry that depends is missing"


def _other_values(x: Any) -> tuple:
    if x.dtype.kind == "b":
        return (not x,)
    if x.dtype.kind in "iu":
        return ((x + 1) % 3, (x + 2) % 3)
    return (x + 0.3, x - 0.3, x * 1.7 + 0.1j if x.dtype.kind == "c" else x * 1.7, -x)


def check_jacobians(run: Run) -> None:
    """jacrev and jacfwd are equal, right, the same in chunks; vmap of both equals a loop."""
    if is_flat(run) or not _has_jacobian(run):
        return
    arrays = run.arrays(run.primals)
    everything = tuple(range(len(run.primals)))
    options = {"holomorphic": run.primals[0].dtype.kind == "c"}
    wanted = [orc.numeric_jacobian(run.oracle, run.wide, p) for p in everything]
    for transform in (gj.jacrev, gj.jacfwd):
        for chunk in ("auto", 1, 3):
            found = transform(run.f, everything, chunk_size=chunk, **options)(*arrays)
            for p, (a, b) in enumerate(zip(found, wanted, strict=True)):
                what = f"{transform.__name__} chunk_size={chunk} argnums={p}"
                orc.close(back(a), b, run.tol.step, what)
                y = run.f(*arrays) if transform is gj.jacfwd else run.primals[p]
                run.same_type(a, y, what)
        _check_batched_jacobian(run, transform, everything, options)


CONJUGATING = """conj np.vdot np.vecdot vdot vecdot cholesky pinv qr slogdet linalg.svd""".split()


def _has_jacobian(run: Run) -> bool:
    y = run.oracle(*run.primals)
    if run.case.name in CONJUGATING or getattr(run.case.op, "adjoint", False):
        return y.dtype.kind == "f"  # conj is not holomorphic
    return all(x.dtype.kind == y.dtype.kind for x in run.primals)


def _check_batched_jacobian(run: Run, transform: Callable, argnums: tuple, options: dict) -> None:
    draws = [run.case.draw(run.dtype, seed) for seed in range(2)]
    lanes = [tuple(d[p] for p in run.case.positions) for d in draws]
    jacobian = transform(run.f, argnums, **options)
    found = gj.vmap(jacobian)(*run.arrays([np.stack(xs) for xs in zip(*lanes, strict=True)]))
    rows = [jacobian(*run.arrays(lane)) for lane in lanes]
    for p, parts in enumerate(zip(*rows, strict=True)):
        wanted = np.stack([back(x) for x in parts])
        orc.close(back(found[p]), wanted, run.tol.same, f"vmap of {transform.__name__}")


CHECKS: dict[str, Callable[[Run], None]] = {
    "value": check_value,
    "infer": check_infer,
    "jvp": check_jvp,
    "linearize": check_linearize,
    "vjp": check_vjp,
    "transpose": check_transpose,
    "leading": check_leading,
    "batch": check_batch,
    "batch_of_batch": check_batch_of_batch,
    "batch_leading": check_batch_leading,
    "second_order": check_second_order,
    "depends": check_depends,
    "jacobians": check_jacobians,
}


def kind_of(x: Any) -> str:
    """The kind of number of an array."""
    return kind(x.dtype)
