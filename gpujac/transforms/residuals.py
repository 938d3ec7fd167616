"""What a reverse sweep keeps alive: a report of the arrays behind the linear program of a function."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any

from gpujac import ranges
from gpujac.core.aval import Shape, item_bytes, shape_of
from gpujac.core.source import Line
from gpujac.core.trace import payload
from gpujac.ops.structure import size_of
from gpujac.program.ir import Held, Input
from gpujac.program.kept import arrays_of
from gpujac.transforms import flatten as fl
from gpujac.transforms.vjp import Linearized

_HEADER = ("bytes", "shape", "dtype", "kept by", "line")


@dataclass(frozen=True)
class Residual:
    """One array that the sweep needs.

    `bytes`: of the memory that it keeps alive, all of it where it is a view. `op`: the first
    operation that keeps it. `line`: of the user's code, None where unknown. `argument`: what it is
    called where it is an argument, which the caller holds too.
    """

    shape: Shape
    dtype: Any
    bytes: int
    op: str
    line: Line | None
    argument: str | None


class Residuals(tuple[Residual, ...]):
    """Every array once, in the order in which the function came to need them; prints as a table."""

    __slots__ = ()

    @property
    def total_bytes(self) -> int:
        """Of all."""
        return sum(r.bytes for r in self)

    @property
    def made_bytes(self) -> int:
        """Of those that are no arguments."""
        return sum(r.bytes for r in self if r.argument is None)

    def __str__(self) -> str:
        rows = [_HEADER, *[_cells(r) for r in self]]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER) - 1)]
        lines = ["  ".join([_aligned(row, widths), row[-1]]).rstrip() for row in rows]
        count = f"{len(self)} array{'s' * (len(self) != 1)}"
        last = f"{self.total_bytes:,} bytes in {count}, {self.made_bytes:,} without the arguments"
        return "\n".join([*lines, last])


def _cells(r: Residual) -> tuple[str, ...]:
    where = "" if r.line is None else f"{r.line.file}:{r.line.number}  {r.line.text}"
    op = r.op if r.argument is None else f"{r.op} ({r.argument})"
    return f"{r.bytes:,}", str(tuple(r.shape)), str(r.dtype).rpartition(".")[2], op, where


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    first, *rest = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
    return "  ".join([row[0].rjust(len(first)), *rest])


def residuals(f: Callable, argnums: Any = 0) -> Callable:
    """What reverse mode keeps of `f` until its sweep, as a function.

    Args:
        f: callable of pytrees of arrays, as for `jacrev`.
        argnums: which positional arguments would be differentiated: an int, or a tuple of ints.

    Returns:
        A function of the same arguments that returns a tuple of `Residual` (shape, dtype, bytes,
        operation, line of the source, argument), every array once, views with the memory that they
        keep; `total_bytes` and `made_bytes` are sums, and `print` shows a table. Numbers are left out.

    Raises:
        DTypeError, ArgumentError: as `jacrev`.

    Cost: one evaluation of `f` and a walk over what it left behind.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> def f(x):
        ...     return (np.sin(x) * x).sum()
        >>> found = gj.residuals(f)(np.zeros(1000))
        >>> found.total_bytes, found.made_bytes
        (16000, 8000)
    """
    fl.check_callable("residuals", f)
    fl.check_argnums("residuals", argnums)

    @wraps(f, assigned=("__module__", "__name__", "__qualname__"), updated=())
    def report(*args: Any, **kwargs: Any) -> Residuals:
        token = ranges.push("residuals", ranges.TRANSFORM)
        try:
            linear = Linearized("residuals", f, args, kwargs, argnums, False, check=False, lines=True)
            return Residuals(_listed(linear))
        finally:
            ranges.pop(token)

    return report


def _listed(linear: Linearized) -> Iterator[Residual]:
    point, program = linear.point, linear.program
    arguments = {id(_owner(payload(x))): point.name(i) for i, x in enumerate(point.leaves)}
    seen: set[int] = set()
    for i, entry in enumerate(program.entries):
        if entry.__class__ is Input:
            continue
        for x in arrays_of(entry):
            owner = _owner(x)
            if id(owner) not in seen:
                seen.add(id(owner))
                size = size_of(tuple(shape_of(owner))) * item_bytes(owner.dtype)
                shape = tuple(shape_of(x))
                yield Residual(shape, x.dtype, size, _name(entry), program.line(i), arguments.get(id(owner)))


def _name(entry: Any) -> str:
    if entry.__class__ is Held:
        return entry.map.name
    return "add" if entry.op is None else entry.op.name


def _owner(x: Any) -> Any:
    """The array whose memory `x` looks into."""
    while isinstance(base := getattr(x, "base", None), type(x)):
        x = base
    return x
