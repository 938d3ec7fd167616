"""Which arrays an entry of a linear program keeps alive."""

import gc
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from gpujac.backends.choose import is_array
from gpujac.backends.host import SCALARS
from gpujac.core.call import Call
from gpujac.core.op import Op
from gpujac.core.trace import Trace, Tracer, payload
from gpujac.program.ir import Held, Partial, Scale

_UNSEARCHED = (type, ModuleType, CodeType, FrameType, Trace, str, bytes)


def arrays_of(entry: Any) -> list:
    """The arrays that an entry of a program keeps alive, wherever they are in it."""
    found: list = []
    waiting, seen = list(_holders(entry)), set()
    while waiting:
        x = waiting.pop(0)
        x = payload(x) if isinstance(x, Tracer) else x
        if id(x) in seen or _is_unsearched(x):
            continue
        seen.add(id(x))
        if is_array(x):
            found.append(x)
        elif isinstance(x, FunctionType):  # its globals are not kept by it
            waiting += [x.__closure__, x.__defaults__, x.__kwdefaults__]
        elif isinstance(x, BuiltinFunctionType):  # bound to what it is a method of, which it keeps
            waiting.append(x.__self__)
        else:
            waiting += gc.get_referents(x)
    return found


def _is_unsearched(x: Any) -> bool:
    """Whether nothing of the program's own is to be found behind `x`."""
    if x is None or x.__class__ in SCALARS:
        return True
    return isinstance(x, _UNSEARCHED) or (isinstance(x, Op) and not isinstance(x, Call))


def _holders(entry: Any) -> tuple:
    """What of an entry may hold arrays: operands, results and coefficients, not the operation."""
    kind = entry.__class__
    if kind is Scale:
        return entry.xs, entry.y, entry.coefs
    if kind is Partial:
        return (entry.operands,)
    return (entry.map,) if kind is Held else ()
