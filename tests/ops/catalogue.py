"""The catalogue as test cases: every op's samples, NumPy's answer to each, and drawn operands."""

import dataclasses
import zlib
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import array_api_strict
import numpy as np
import scipy.linalg
import scipy.special

from gpujac.array.namespace import namespace_over
from gpujac.core.op import POINTWISE, STRUCTURAL, Op, Sample
from gpujac.core.trace import Tracer
from tests import device
from tests.ops.composites import COMPOSITES, CUPY_REFUSES, NUMPY_ONLY

TRACED = "fmcMs"  # kinds of operands that carry a tangent


class Library(NamedTuple):
    """An array library under test: how its arrays are made and read."""

    name: str
    xp: Any  # what the functions of composites are called on
    array: Callable
    type: tuple


def _plain(x: Any) -> Any:
    return np.asarray(x)[()]


def _give_way(method: Callable) -> Callable:
    """An operator of array-api-strict that leaves traced operands to their own operator.

    Array-api-strict raises TypeError at every foreign operand, where Python's data model and all
    other array libraries return NotImplemented.
    """

    @wraps(method)
    def operator(self: Any, other: Any) -> Any:
        return NotImplemented if isinstance(other, Tracer) else method(self, other)

    return operator


_ARRAY = type(array_api_strict.asarray(0.0))
for _name in """add sub mul truediv floordiv mod pow matmul and or xor lshift rshift lt le gt ge
        eq ne""".split():
    setattr(_ARRAY, f"__{_name}__", _give_way(getattr(_ARRAY, f"__{_name}__")))
_STRICT = namespace_over(array_api_strict)
LIBRARIES = {
    "numpy": Library("numpy", namespace_over(np), _plain, (np.ndarray, np.generic)),
    "strict": Library(
        "strict", _STRICT, array_api_strict.asarray, (_ARRAY,)
    ),
}
if not device.MISSING:
    LIBRARIES["cupy"] = Library("cupy", device.XP, device.array, (device.TYPE,))


class Case(NamedTuple):
    """One call: the function under test, NumPy's own, and where operands come from."""

    name: str
    op: Any  # the op, None for a composite function
    call: Callable  # (xp, *operands)
    reference: Callable  # (*operands), plain NumPy
    sample: Sample

    @property
    def kinds(self) -> str:
        """One letter per operand, see `Sample`."""
        return self.sample.kinds

    @property
    def positions(self) -> list[int]:
        """The operands that carry a tangent."""
        return [p for p, k in enumerate(self.kinds) if k in TRACED]

    def works_in(self, dtype: str) -> bool:
        """Whether the call makes sense in this dtype."""
        if self.sample.double or "c" in self.kinds or "M" in self.kinds:
            return dtype == "float64"
        if not dtype.startswith("complex"):
            return True
        return self.sample.complex_ok and "f" in self.kinds + self.kinds.replace("m", "f")

    def draw(self, dtype: str, seed: int = 0) -> list:
        """Operands as NumPy arrays: entries all different, away from kinks, the same every time."""
        key = f"{self.name} {self.sample.shapes} {seed}"
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        return _drawn(rng, self.sample, dtype)

    def run(self, library: Library, operands: list) -> Any:
        """The call under test on plain operands."""
        return self.call(library.xp, *(library.array(x) for x in operands))


def _drawn(rng: np.random.Generator, sample: Sample, dtype: str) -> list:
    sizes = [int(np.prod(s)) for s in sample.shapes]
    # one grid for all operands: no two entries are equal, so nothing ties
    total = max(sum(sizes), 1)
    grid = (rng.permutation(total) + rng.uniform(0.25, 0.75, total)) / total
    values = sample.low + (sample.high - sample.low) * grid
    operands, start = [], 0
    for shape, size, kind in zip(sample.shapes, sizes, sample.kinds, strict=True):
        x = values[start : start + size].reshape(shape)
        start += size
        if kind in "in":
            operands.append(rng.integers(0 if kind == "i" else -3, 3, shape))
        elif kind == "k":
            operands.append(rng.integers(0, 2**32, shape, np.uint32))
        elif kind == "t":
            operands.append(rng.integers(2, 5, shape))
        elif kind == "b":
            operands.append(rng.integers(0, 2, shape).astype(bool))
        else:
            wanted = "complex128" if kind in "cM" else dtype
            if wanted.startswith("complex"):
                x = x + 1j * rng.uniform(0.2, 0.8, shape) * rng.choice([-1, 1], shape)
            if kind == "s":
                x = np.sort(x)
            if kind in "mM":
                x = x + 4.0 * np.eye(shape[-1])
            operands.append(np.asarray(x, wanted))
    return operands


def _grid(key: tuple) -> tuple:
    """Index arrays for the positions of a basic key."""
    return np.ix_(*([k] if isinstance(k, int) else list(range(*k)) for k in key))


def _written(out: np.ndarray, key: tuple, value: Any, add: bool = False) -> np.ndarray:
    index = (..., *_grid(key))
    value = np.reshape(value, out[index].shape) if np.ndim(value) else value
    if add:
        out[index] += value
    else:
        out[index] = value
    return out


def _zeros(op: Any, x: Any, rank: int) -> np.ndarray:
    return np.zeros(np.shape(x)[: np.ndim(x) - rank] + op.dst, np.asarray(x).dtype)


def _sliced(op: Any, x: Any) -> Any:
    lead = np.ndim(x) - len(op.key)
    return x[(..., *_grid(op.key))].reshape(x.shape[:lead] + op.dst)


def _placed(op: Any, *pieces: Any) -> Any:
    out = _zeros(op, pieces[0], op.ranks[0])
    for key, piece in zip(op.keys, pieces, strict=True):
        _written(out, key, piece, add=True)
    return out


def _from_diagonal(op: Any, x: Any) -> Any:
    out = _zeros(op, x, 1)
    for i in range(x.shape[-1]):
        out[..., op.row + i, op.column + i] = x[..., i]
    return out


def _scattered(op: Any, ct: Any, index: Any) -> Any:
    at = ct.ndim - op.rest - op.width
    out = np.zeros(ct.shape[:at] + (op.size,) + ct.shape[at + op.width :], ct.dtype)
    flat = ct.reshape(ct.shape[:at] + (-1,) + ct.shape[at + op.width :])
    for i, target in enumerate(np.ravel(index)):
        tail = (slice(None),) * op.rest
        out[(..., target, *tail)] += flat[(..., i, *tail)]
    return out


def _last(op: Any, index: Any) -> Any:
    found = np.full(op.size, -1)
    for i, target in enumerate(np.ravel(index)):
        found[target] = i
    return found


def _running(op: Any, x: Any) -> Any:
    y = np.flip(x, op.axis) if op.reverse else x
    y = np.cumsum(y, op.axis)
    return np.flip(y, op.axis) if op.reverse else y


def _contracted(op: Any, a: Any, b: Any) -> Any:
    return np.einsum(f"...{op.left},...{op.right}->...{op.out}", a, b)


def _adjoint(a: Any) -> Any:
    return np.conj(np.swapaxes(a, -1, -2))


def _solved(op: Any, a: Any, b: Any) -> Any:
    a = _adjoint(a) if op.adjoint else a
    return np.linalg.solve(a, b[..., None])[..., 0] if op.vector else np.linalg.solve(a, b)


def _solved_triangle(op: Any, a: Any, b: Any) -> Any:
    t = np.tril(a) if op.lower else np.triu(a)
    if op.unit:
        t = t * (1 - np.eye(a.shape[-1], dtype=a.dtype)) + np.eye(a.shape[-1], dtype=a.dtype)
    return np.linalg.solve(_adjoint(t) if op.adjoint else t, b)


def _kept_factors(op: Any, a: Any) -> np.ndarray:
    out = np.empty((*a.shape[:-2], a.shape[-1] + 1, a.shape[-1]), a.dtype)
    for at in np.ndindex(a.shape[:-2]):
        factors, swaps = scipy.linalg.lu_factor(a[at])
        out[at] = np.concatenate([factors.T, swaps[None] + 1])
    return out


def _outside_of(op: Any, n: int, axis: int) -> np.ndarray:
    """Which entry of an axis each entry of its border is, as NumPy's pad has it, cut where widths are negative."""
    before, after = op.widths[axis]
    at = np.pad(np.arange(n), (max(before, 0), max(after, 0)), op.mode)
    return at[max(-before, 0) : len(at) - max(-after, 0)]


def _bordered(op: Any, x: Any) -> Any:
    for i in range(-len(op.src), 0):
        x = np.take(x, _outside_of(op, op.src[i], i), i)
    return x


def _unbordered(op: Any, x: Any) -> Any:
    for i in range(-len(op.src), 0):
        matrix = np.eye(op.dst[i], dtype=x.dtype)[_outside_of(op, op.dst[i], i)]  # (border, inside)
        x = np.moveaxis(np.tensordot(x, matrix, (i, 0)), -1, i)
    return x


def _overlapped(op: Any, x: Any) -> Any:
    out = _zeros(op, x, len(op.src))
    tail = (slice(None),) * (len(op.dst) - 1)
    for i, k in np.ndindex(op.src[0], op.width):
        out[(..., i + k, *tail)] += x[(..., i, *tail, k)]
    return out


def _half_of_a_spectrum(op: Any, y: Any) -> np.ndarray:
    n, half = op.dst[op.axis], op.src[op.axis]
    waves = np.exp(2j * np.pi * np.outer(np.arange(half), np.arange(n)) / n)  # (frequency, place)
    return np.real(np.moveaxis(np.tensordot(y, waves, (op.axis, 0)), -1, op.axis))


def _joined(*parts: Any, lead: int) -> np.ndarray:
    return np.concatenate([np.reshape(p, np.shape(p)[:lead] + (-1,)) for p in parts], -1)


def _of_hermitian(f: Callable) -> Callable:
    return lambda op, a: f((a + np.conj(np.swapaxes(a, -1, -2))) / 2)


def _cholesky(a: Any) -> np.ndarray:
    try:
        return np.linalg.cholesky(a)
    except np.linalg.LinAlgError:  # a perturbation by the test of dependence
        return np.full_like(a, np.nan)


def _minors(op: Any, a: Any) -> np.ndarray:
    out = np.zeros_like(a)
    for i, j in np.ndindex(a.shape[-2:]):
        rest = np.delete(np.delete(a, i, -2), j, -1)
        out[..., j, i] = (-1) ** (i + j) * np.linalg.det(rest)
    return out


_STEPS: dict[str, Callable] = {
    "multiply": np.multiply,
    "add": np.add,
    "negative": np.negative,
    "select": lambda mask, x: np.where(mask, x, np.zeros_like(x)),
    "guarded": lambda t, c: np.where(t == 0, np.zeros_like(t), t * c),
    "conj": np.conj,
    "imag": np.imag,
    "times_1j": lambda x: 1j * x,
}


def _chained(op: Any, *xs: Any) -> Any:
    values = list(xs)
    for step in op.chain.steps:
        values.append(_STEPS[step.name](*(values[v] for v in step.reads)))
    rank = len(op.shape)
    lead = np.broadcast_shapes(*(np.shape(x)[: max(np.ndim(x) - rank, 0)] for x in xs))
    (output,) = op.chain.outputs
    y = np.broadcast_to(values[output], lead + op.shape)
    return np.sum(y, op.chain.axes) if op.chain.axes else y


def _philox(key: Any, number: int, purpose: int) -> list:
    """Philox4x32-10 in Python's own integers."""
    (k0, k1), mask = (int(k) for k in key), 0xFFFFFFFF
    c = [number & mask, number >> 32, purpose, 0]
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & mask, (p0 >> 32) ^ c[3] ^ k1, p0 & mask]
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return c


def _blocks(op: Any, key: Any) -> Any:
    if key.ndim > 1:
        return np.stack([_blocks(op, k) for k in key])
    return np.array([w for i in range(op.count) for w in _philox(key, i, op.purpose)], np.uint32)


def _folded(op: Any, key: Any, data: Any) -> Any:
    if np.ndim(data):
        return np.stack([_folded(op, k, d) for k, d in zip(key, data, strict=True)])
    return np.array(_philox(key, int(data), 1)[:2], np.uint32)


# What each structural op means, said in NumPy without the op's own code.
MEANING: dict[str, Callable] = {
    "sum": lambda op, x: np.sum(x, axis=op.axes),
    "spread": lambda op, x: np.broadcast_to(
        np.expand_dims(x, op.axes), np.shape(x)[: np.ndim(x) - len(op.src)] + op.dst
    ),
    "reshape": lambda op, x: np.reshape(x, np.shape(x)[: np.ndim(x) - len(op.src)] + op.dst),
    "permute": lambda op, x: np.moveaxis(x, op.order, range(-len(op.order), 0)),
    "flip": lambda op, x: np.flip(x, op.axes),
    "checkpoint_name": lambda op, x: x,
    "roll": lambda op, x: np.roll(x, op.shifts, op.axes),
    "cast": lambda op, x: np.real(x) if op.after.kind == "f" else x,  # rounding left out
    "conj": lambda op, x: np.conj(x),
    "real": lambda op, x: np.real(x),
    "imag": lambda op, x: np.imag(x),
    "times_1j": lambda op, x: 1j * x,
    "cumsum": _running,
    "contract": _contracted,
    "diagonal": lambda op, x: np.diagonal(x, op.column - op.row, -2, -1),
    "from_diagonal": _from_diagonal,
    "slice": _sliced,
    "pad": lambda op, x: _written(_zeros(op, x, len(op.src)), op.key, x),
    "clear": lambda op, x: _written(np.array(x), op.key, 0),
    "set_slice": lambda op, x, v: _written(np.array(x, np.result_type(x, v)), op.key, v),
    "place": _placed,
    "take": lambda op, x, index: np.take(x, index, -1 - op.rest),
    "scatter_add": _scattered,
    "last_writer": _last,
    "concat": lambda op, *xs: np.concatenate(xs, op.axis),
    "stack": lambda op, *xs: np.stack(xs, op.axis),
    "max": lambda op, x: np.max(x, op.axes),
    "min": lambda op, x: np.min(x, op.axes),
    "logsumexp": lambda op, x: scipy.special.logsumexp(x, op.axes),
    "norm": lambda op, x: np.sqrt(np.sum(np.real(x) ** 2 + np.imag(x) ** 2, op.axes)),
    "any": lambda op, x: np.any(x, op.axes),
    "all": lambda op, x: np.all(x, op.axes),
    "argmax": lambda op, x: np.argmax(x, op.axes[0]),
    "argmin": lambda op, x: np.argmin(x, op.axes[0]),
    "argsort": lambda op, x: np.argsort(x, -1, stable=True),
    "complex_abs": lambda op, x: np.hypot(np.real(x), np.imag(x)),
    "solve": _solved,
    "solve_triangular": _solved_triangle,
    "lu_factor": _kept_factors,
    "fused": _chained,
    "interp": lambda op, x, xp, fp: np.interp(x, xp, fp),
    "quantile": lambda op, x, q: np.moveaxis(
        np.quantile(x, np.clip(q, 0, 1), axis=-1, method=op.method), range(np.ndim(q)), range(-np.ndim(q), 0)
    ),
    "searchsorted": lambda op, a, v: np.searchsorted(a, v, side=op.side),
    "philox_blocks": _blocks,
    "philox_fold": _folded,
    "inv": lambda op, a: np.linalg.inv(a),
    "det": lambda op, a: np.linalg.det(a),
    "adjugate": _minors,
    "cofactor_change": lambda op, a, t: (_minors(op, a + t) - _minors(op, a - t)) / 2,  # exact up to 3 by 3
    "slogdet": lambda op, a: np.stack(np.linalg.slogdet(a), -1).astype(a.dtype),
    "cholesky": _of_hermitian(_cholesky),
    "eigvalsh": _of_hermitian(np.linalg.eigvalsh),
    "eigh": _of_hermitian(lambda a: _joined(*np.linalg.eigh(a), lead=a.ndim - 2)),
    "svdvals": lambda op, a: np.linalg.svd(a, compute_uv=False),
    "svd": lambda op, a: _joined(*np.linalg.svd(a, full_matrices=False), lead=a.ndim - 2),
    "qr": lambda op, a: _joined(*np.linalg.qr(a), lead=a.ndim - 2),
    "pinv": lambda op, a: np.linalg.pinv(a, op.rcond),
    "fourier": lambda op, x: (np.fft.ifftn if op.inverse else np.fft.fftn)(
        x, axes=op.axes, norm="forward" if op.inverse else None
    ),
    "real_fourier": lambda op, x: np.fft.rfft(x, axis=op.axis),
    "real_fourier_adjoint": _half_of_a_spectrum,
    "border": _bordered,
    "fold_border": _unbordered,
    "windows": lambda op, x: np.lib.stride_tricks.sliding_window_view(x, op.width, -len(op.src)),
    "overlap_add": _overlapped,
}
# Elementwise functions that NumPy lacks or calls otherwise.
ELEMENTWISE: dict[str, Callable] = {
    "guarded": lambda t, c: np.where(t == 0, 0, t * c),
    "logistic": scipy.special.expit,
}


def of_op(op: Op, sample: Sample) -> Case:
    """The case of one sample of an op."""
    if op.name in POINTWISE:
        reference = ELEMENTWISE.get(op.name) or getattr(np if op.name in vars(np) else scipy.special, op.name)
    else:

        def reference(*xs: Any) -> Any:
            return MEANING[op.name](op, *xs)

    return Case(op.name, op, lambda xp, *xs: op(*xs), reference, sample)


def of_composite(name: str) -> list[Case]:
    """The cases of a function of the namespace that several ops make up."""
    found = []
    for f, sample in COMPOSITES[name]:
        found.append(Case(name, None, f, lambda *xs, f=f: f(np, *xs), sample))
    return found


STRUCTURAL_NAMES = {cls.name: cls for cls in STRUCTURAL}
NAMES = [*POINTWISE, *STRUCTURAL_NAMES, *(f"np.{name}" for name in COMPOSITES)]


def cases(name: str, library: str = "numpy") -> list[Case]:
    """Fresh cases of an op or of a function of the namespace ("np.var")."""
    if name.startswith("np."):
        return of_composite(name[3:])
    if name in POINTWISE:
        return [of_op(POINTWISE[name], s) for s in POINTWISE[name].samples()]
    found = [of_op(s.call, s) for s in STRUCTURAL_NAMES[name].samples()]
    return [_translated(case) for case in found] if library == "strict" else found


def _translated(case: Case) -> Case:
    """A case whose op names dtypes, with those of array-api-strict."""
    if "before" not in vars(case.op):
        return case
    before, after = (getattr(array_api_strict, d.name) for d in (case.op.before, case.op.after))
    op = dataclasses.replace(case.op, before=before, after=after)
    return case._replace(op=op, call=lambda xp, *xs: op(*xs))


def refusal(name: str, rule: str) -> str | None:
    """Why an op has no such rule, or None."""
    if name.startswith("np."):
        if rule == "cupy":
            return CUPY_REFUSES.get(name[3:])
        return "spelled as only NumPy does" if rule == "generic" and name[3:] in NUMPY_ONLY else None
    op = POINTWISE.get(name) or STRUCTURAL_NAMES[name]
    return op.refuses.get(rule)
