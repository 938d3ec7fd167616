"""show: the linear program that a function leaves at a point, as text."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from gpujac import ranges
from gpujac.errors import ArgumentError
from gpujac.program.ir import Program, Scale
from gpujac.program.printer import residual_bytes, table, total_flops
from gpujac.program.simplify import simplified as program_simplified
from gpujac.transforms import flatten as fl
from gpujac.transforms.chunking import live_bytes
from gpujac.transforms.plans import transposed
from gpujac.transforms.vjp import Linearized


class Shown:
    """A recorded program; its `str` and `repr` are the text, so that a prompt prints it."""

    __slots__ = ("program", "title")

    def __init__(self, title: str, program: Program) -> None:
        self.title = title
        self.program = program

    def __str__(self) -> str:
        program = self.program
        outputs = ", ".join(["zero" if v is None else f"v{v}" for v in program.outputs])
        work = total_flops(program)
        return "\n".join([
            self.title,
            table(program),
            f"outputs: {outputs}",
            f"entries: {len(program.entries)}, kept between sweeps: {residual_bytes(program)} bytes",
            f"a row: {live_bytes(program, False)} bytes live forward, {live_bytes(program, True)} in reverse, "
            f"{'unknown' if work is None else work} flops",
        ])  # fmt: skip

    __repr__ = __str__


def show(f: Callable, argnums: Any = None, *, direction: str = "fwd", simplified: bool = False) -> Callable:
    """The linear program that a function of arrays leaves at a point, as a table to read.

    Args:
        f: callable of pytrees of arrays; may itself be a transform, as in `show(jacrev(f))`.
        argnums: the positional arguments that are differentiated, an int or a tuple of ints; None: all.
        direction: "fwd" for the program as it was recorded, "rev" for its transpose: cotangents of the
            outputs come in, those of the arguments go out.
        simplified: show what a wide sweep makes of it (docs/linear_programs.md).

    Returns:
        A function of the arguments of `f` that runs it once and returns an object whose `str` (and
        `repr`) is the text: a line for each entry with its variable, operation, operands, shape, dtype,
        bytes of one tangent, bytes kept, flops of one row and the user's line; then the totals. It holds
        the program alive, with its residuals.

    Raises:
        ArgumentTypeError: `f` cannot be called. ArgumentError: an unknown direction. DTypeError: an
        argument that has no derivative.

    Cost: one evaluation of `f`, and about 1 us more for each operation, to find its line.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> text = str(gj.show(lambda x: np.sin(x) * 2.0)(np.zeros(3)))
        >>> print(text.splitlines()[-2])
        entries: 3, kept between sweeps: 24 bytes
        >>> text = str(gj.show(lambda x: np.sin(x.T.T) * 2.0, direction="rev", simplified=True)(np.eye(2)))
        >>> [line.split()[:2] for line in text.splitlines()[2:-3]]
        [['v0', 'input'], ['v1', 'multiply']]
    """
    fl.check_callable("show", f)
    if not isinstance(direction, str) or direction not in ("fwd", "rev"):
        raise ArgumentError(f'show: direction={direction!r}; choose "fwd" or "rev"')
    if argnums is not None:
        fl.check_argnums("show", argnums)

    @wraps(f, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def shown(*args: Any, **kwargs: Any) -> Shown:
        token = ranges.push("show", ranges.TRANSFORM)
        try:
            linear = Linearized("show", f, args, kwargs, argnums, False, check=False, lines=True)
        finally:
            ranges.pop(token)
        program, words = linear.program, ["linear program"]
        if simplified:
            program, words = program_simplified(program), ["simplified", *words]
        if direction == "rev":  # made smaller once more: a transpose has other neighbours
            program, words = transposed(program), ["transposed", *words]
            program = program_simplified(program) if simplified else program
        for entry in program.entries:  # now, for the transforms around may be over when it is printed
            if entry.__class__ is Scale and entry.coefs is None:
                entry.resolve()
        return Shown(f"{' '.join(words)} of {fl.name_of(f)}", program)

    return shown
