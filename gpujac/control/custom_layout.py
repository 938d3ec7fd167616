"""Where the arrays stand among the arguments of one call: pytrees to flat operands and back."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gpujac import trees
from gpujac.backends.choose import is_array
from gpujac.core.trace import Tracer
from gpujac.errors import StructureError
from gpujac.transforms.tangent import WRITABLE

ARRAYS = WRITABLE  # types of arrays that a call meets; a backend that is loaded later adds its own
_NOT_OPERANDS = (bool, int, type(None), str)
HOLE = object()  # stands for an operand among the leaves of a layout


def is_operand(x: Any) -> bool:
    """Whether a leaf is an array or a floating number; Python integers, texts and other objects are not."""
    if x.__class__ in ARRAYS or x.__class__ is float or isinstance(x, (Tracer, np.generic)):
        return True
    return x.__class__ not in _NOT_OPERANDS and is_array(x)


class Layout:
    """The structure of some arguments, with a hole for each array; None among them is a leaf."""

    __slots__ = ("specs", "leaves")

    def __init__(self, args: Iterable[Any], operands: list) -> None:
        """Appends the arrays of `args` to `operands`."""
        self.specs: list[trees.Spec] = []
        self.leaves: list[list] = []
        for arg in args:
            leaves, spec = trees.flatten_none(arg)
            self.specs.append(spec)
            self.leaves.append([HOLE if is_operand(x) else x for x in leaves])
            operands += [x for x in leaves if is_operand(x)]

    def filled(self, values: Iterable[Any], blank: bool = False) -> tuple:
        """The arguments with `values` in the holes; `blank`: and None in the place of the rest."""
        given = iter(values)
        return tuple([
            trees.unflatten(spec, [next(given) if x is HOLE else None if blank else x for x in leaves])
            for spec, leaves in zip(self.specs, self.leaves, strict=True)
        ])  # fmt: skip

    def names(self, arguments: Sequence[str]) -> list[str]:
        """What messages call each hole: its argument and the path inside."""
        return [
            argument + path
            for argument, spec, leaves in zip(arguments, self.specs, self.leaves, strict=True)
            for path, x in zip(trees.spec_paths(spec), leaves, strict=True)
            if x is HOLE
        ]

    def matched(self, results: Sequence[Any], what: Callable[[int], str], others: str) -> list:
        """What `results`, one tree per argument, has in each hole; None for a whole argument is allowed.

        `others` says why nothing may stand at leaves that are no holes.
        """
        found: list = []
        for i, (spec, leaves, tree) in enumerate(zip(self.specs, self.leaves, results, strict=True)):
            below = [None] * len(leaves) if tree is None else _below(spec, tree, what(i))
            for k, (x, value) in enumerate(zip(leaves, below, strict=True)):
                if x is HOLE:
                    found.append(value)
                elif value is not None:
                    raise StructureError(f"{what(i)}{trees.spec_paths(spec)[k]} must be None: {others}")
        return found


def _below(spec: trees.Spec, tree: Any, what: str) -> list:
    try:
        return list(spec.flatten_up_to(tree))
    except (ValueError, TypeError):
        trees.match(spec, tree, what)  # says where they differ
        raise
