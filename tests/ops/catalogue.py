"""The catalogue as test cases: every op's samples, NumPy's answer to each, and drawn operands."""

import dataclasses
import zlib
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import array_api_strict
import numpy as np
import scipy.special

from gpujac.array.namespace import namespace_over
from gpujac.core.op import POINTWISE, STRUCTURAL, Op, Sample
from gpujac.core.trace import Tracer
from tests import device
from tests.ops.composites import COMPOSITES, CUPY_REFUSES, NUMPY_ONLY

TRACED = "fmc"  # kinds of operands that carry a tangent


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
        if self.sample.double or "c" in self.kinds:
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
        elif kind == "b":
            operands.append(rng.integers(0, 2, shape).astype(bool))
        else:
            wanted = "complex128" if kind == "c" else dtype
            if wanted.startswith("complex"):
                x = x + 1j * rng.uniform(0.2, 0.8, shape) * rng.choice([-1, 1], shape)
            if kind == "m":
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


def _solved(op: Any, a: Any, b: Any) -> Any:
    return np.linalg.solve(a, b[..., None])[..., 0] if op.vector else np.linalg.solve(a, b)


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


# What each structural op means, said in NumPy without the op's own code.
MEANING: dict[str, Callable] = {
    "sum": lambda op, x: np.sum(x, axis=op.axes),
    "spread": lambda op, x: np.broadcast_to(
        np.expand_dims(x, op.axes), np.shape(x)[: np.ndim(x) - len(op.src)] + op.dst
    ),
    "reshape": lambda op, x: np.reshape(x, np.shape(x)[: np.ndim(x) - len(op.src)] + op.dst),
    "permute": lambda op, x: np.moveaxis(x, op.order, range(-len(op.order), 0)),
    "flip": lambda op, x: np.flip(x, op.axes),
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
    "fused": _chained,
    "inv": lambda op, a: np.linalg.inv(a),
}
# Elementwise functions that NumPy lacks or calls otherwise.
ELEMENTWISE: dict[str, Callable] = {
    "guarded": lambda t, c: np.where(t == 0, 0, t * c),
    "logistic": scipy.special.expit,
}


def of_op(op: Op, sample: Sample) -> Case:
    """The case of one sample of an op."""
    if op.name in POINTWISE:
        reference = ELEMENTWISE.get(op.name) or getattr(np, op.name)
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
