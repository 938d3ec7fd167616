"""What rules are given: no write of theirs reaches the arrays of somebody else.

NumPy arrays are passed as read-only views, so that a write raises; a write into a traced array stays
behind the new name that it gets here. CuPy's arrays cannot be made read-only and pass as they are.
"""

from collections.abc import Sequence
from typing import Any

from numpy import ndarray

from gpujac import trees
from gpujac.array.traced import TracedArray
from gpujac.backends.choose import HOST_TYPES
from gpujac.backends.host import SCALARS
from gpujac.core.trace import Tracer


def guarded(xs: Sequence[Any]) -> list:
    """Each of some arrays as a rule gets it; what is no array stays."""
    found = []
    for x in xs:
        if x.__class__ is ndarray:  # spelled out: a call costs as much as the view
            view: Any = x.view()
            view.setflags(False)
            found.append(view)
        else:
            found.append(None if x is None else guard(x))
    return found


def guard(x: Any) -> Any:
    """One array as a rule gets it."""
    cls: Any = x.__class__
    if cls is TracedArray:
        return x.detached()
    if cls not in HOST_TYPES or cls in SCALARS:
        return x
    view = x.view()
    view.setflags(False)  # by position: half the time of a keyword, a third of an attribute
    return view


def guarded_tree(kept: Any) -> tuple[Any, bool]:
    """What a rule keeps for another, guarded; and whether it must be guarded anew for each call.

    A write into a traced array rebinds that very object, so each call gets its own.
    """
    cls: Any = kept.__class__
    if cls is ndarray:
        return guard(kept), False
    if kept is None or cls in SCALARS:
        return kept, False
    leaves, spec = trees.flatten(kept)
    found = guarded(leaves)
    if not any([a is not b for a, b in zip(found, leaves, strict=True)]):
        return kept, False
    return trees.unflatten(spec, found), any([isinstance(x, Tracer) for x in leaves])
