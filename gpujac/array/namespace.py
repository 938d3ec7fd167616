"""Array namespaces over the one table of names: for NumPy, and for any array-API library.

A name with a rule asks its arguments: a traced array among them, also inside a list or tuple,
goes to the rule; everything else goes to the library's own function, untouched.
"""

import types
from collections.abc import Callable
from functools import lru_cache, wraps
from types import SimpleNamespace
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import create, fft
from gpujac.array.cupy_protocols import Ufunc, fuse, matmul
from gpujac.array.padding import cropping, sliding_window_view
from gpujac.array.series import Joiner
from gpujac.array.table import LINALG, SCIPY, TABLE
from gpujac.backends.choose import backend_of
from gpujac.core.trace import Tracer, payload
from gpujac.errors import DispatchError

_LISTS = frozenset((list, tuple))
_MAKERS = frozenset("zeros ones empty full zeros_like ones_like empty_like full_like".split())
# Functions whose first argument, if a list or tuple, is not to be read as one array.
_JOINERS = frozenset(
    """stack concatenate concat vstack hstack dstack column_stack block broadcast_arrays
    meshgrid array asarray asanyarray ascontiguousarray row_stack multi_dot select full
    compress extract bincount""".split()
)
# Functions that make an array with axes of a number.
_WIDENERS = _JOINERS | frozenset(
    """broadcast_to reshape ravel atleast_1d atleast_2d atleast_3d expand_dims tile repeat append linspace
    full_like pad diagflat prod outer tensordot einsum""".split()
)
# Functions of NumPy that look at no values, or at no array at all.
_HARMLESS = frozenset(
    """iterable issubdtype isdtype broadcast_shapes info test errstate
    promote_types""".split()
)
# Names of CuPy's that NumPy has dropped, for functions of the table.
OLD_NAMES = {
    "alltrue": "all", "sometrue": "any", "product": "prod", "cumproduct": "cumprod", "round_": "round",
    "row_stack": "vstack", "trapz": "trapezoid",
}  # fmt: skip
_CURE = (
    "is not supported on traced arrays; write it with the functions of gpujac.{}, or compute it "
    "from gpujac.value(x) if it needs no derivative"
)


def dispatching(name: str, ours: Callable, theirs: Callable, one: Callable | None = None) -> Callable:
    """The library's function `theirs`, and `ours` where a traced array is among the arguments.

    `one` makes an array of the library: where a function makes an array of traced numbers, they
    first become arrays of that library.
    """
    lifts = name not in _JOINERS
    widens = one is not None and name in _WIDENERS

    @wraps(theirs)
    def function(*args: Any, **kwargs: Any) -> Any:
        if not c.traced_among(args, kwargs):
            return theirs(*args, **kwargs)
        if one is not None and widens:
            args = tuple([_onto(x, one) for x in args])
        if lifts and args and args[0].__class__ in _LISTS:
            args = (c.lift(args[0], next((x for x in args if isinstance(x, Tracer)), None)), *args[1:])
        return ours(*args, **kwargs)

    return function


def _onto(x: Any, one: Callable) -> Any:
    """Traced numbers in `x`, a value or nested list or tuple, as arrays of a library."""
    if x.__class__ in _LISTS:
        return x.__class__([_onto(i, one) for i in x]) if c.holds_tracer(x) else x
    return c.onto(x, one(())) if isinstance(x, Tracer) and x.shape == () else x


def refusing(name: str, theirs: Callable) -> Callable:
    """The library's function `theirs`, which has no rule: a traced argument is an error."""

    @wraps(theirs)
    def function(*args: Any, **kwargs: Any) -> Any:
        if c.traced_among(args, kwargs):
            ours = "cupy" if name.startswith("cupy.") else "numpy"
            raise DispatchError(f"{name} {_CURE.format(ours)}")
        return theirs(*args, **kwargs)

    return function


def _entry(library: str, name: str, theirs: Any, table: dict[str, Any], one: Callable | None = None) -> Any:
    """What the namespace holds under `name`."""
    if name in ("r_", "c_"):
        return Joiner(theirs, name == "c_", None if one is None else lambda x: _onto(x, one))
    if isinstance(theirs, np.ufunc):
        return theirs  # NumPy asks traced operands by itself, methods (add.at, ...) included
    if not callable(theirs) or isinstance(theirs, type):
        return theirs
    if name == "fuse":
        return fuse(theirs)
    if library == "cupy" and name == "matmul":
        return dispatching(name, matmul, theirs)
    if name == "pad":
        theirs = cropping(theirs)
    ours = table.get(OLD_NAMES.get(name, name) if library == "cupy" else name)
    if name in _MAKERS:
        made = create.boxing(theirs)
        return made if ours is None else dispatching(name, ours, made, one)
    if library == "cupy" and getattr(theirs, "nin", None):
        return Ufunc(name, ours, theirs)
    if ours is not None:
        return dispatching(name, ours, theirs, one)
    if name in _HARMLESS or not isinstance(theirs, _FUNCTIONS):
        return theirs
    return refusing(f"{library}.{name}", theirs)


_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, type(np.sum))


def _names(xp: Any) -> list[str]:
    return [name for name in dir(xp) if not name.startswith("_")]


def _linalg(xp: Any) -> types.ModuleType:
    """The `linalg` submodule, ours over the library's."""
    module = getattr(xp, "linalg", SimpleNamespace())
    library = f"{xp.__name__}.linalg"
    own = {name: _entry(library, name, getattr(module, name), LINALG) for name in _names(module)}
    return module_of(library, {**LINALG, **own})


def _submodule(xp: Any, name: str, table: dict[str, Any]) -> types.ModuleType:
    """A submodule of a library: plain arrays pass through, traced ones go to the table or are refused."""
    library, module = f"{xp.__name__}.{name}", getattr(xp, name, SimpleNamespace())
    own = {n: _entry(library, n, getattr(module, n), table) for n in _names(module)}
    return module_of(library, {**table, **own})


def _lib(xp: Any) -> types.ModuleType:
    """CuPy's `lib`, whose sliding windows never ask a traced array."""
    theirs = xp.lib.stride_tricks
    window = dispatching("sliding_window_view", sliding_window_view, theirs.sliding_window_view)
    names = {**{n: getattr(theirs, n) for n in _names(theirs)}, "sliding_window_view": window}
    tricks = module_of(f"{xp.__name__}.lib.stride_tricks", names)
    return module_of(f"{xp.__name__}.lib", {**{n: getattr(xp.lib, n) for n in _names(xp.lib)}, "stride_tricks": tricks})


def module_of(name: str, names: dict[str, Any]) -> types.ModuleType:
    """A module that holds `names`, called after the library's module `name` whose place it takes."""
    made = types.ModuleType(f"gpujac.{name}", f"`{name}` with derivatives: see gpujac.{name.partition('.')[0]}.")
    vars(made).update(names)
    return made


@lru_cache(None)
def names_over(xp: Any) -> dict[str, Any]:
    """Every public name of the library `xp`, with the rules of the table over its functions."""
    one = xp.ones if xp.__name__ == "cupy" else None
    own = {name: _entry(xp.__name__, name, getattr(xp, name), TABLE, one) for name in _names(xp)}
    if xp.__name__ == "cupy":
        own["random"] = _submodule(xp, "random", {})
        own["get_array_module"] = array_module(xp)
        own["lib"] = _lib(xp)
    return {**TABLE, **own, "linalg": _linalg(xp), "fft": _submodule(xp, "fft", fft.NAMES)}


def array_module(xp: Any, ours: Any = None) -> Callable:
    """CuPy's `get_array_module`, which answers with rules for traced arrays; `ours` serves all of `xp`."""

    def get_array_module(*args: Any) -> Any:
        """The namespace that serves the arguments, traced or not."""
        for x in args:
            if isinstance(x, Tracer):
                inner = payload(x)
                owner = xp if inner is None else backend_of(inner).xp
                return ours if ours is not None and owner is xp else namespace_over(owner)
        if ours is not None and xp is np:  # CuPy code that runs on the CPU
            return ours
        return xp.get_array_module(*args)

    return get_array_module


@lru_cache(None)
def namespace_over(xp: Any) -> SimpleNamespace:
    """The namespace that a traced array over the library `xp` answers `__array_namespace__` with."""
    return SimpleNamespace(__name__=f"gpujac namespace over {xp.__name__}", **names_over(xp))


def names_of_scipy(module: Any) -> dict[str, Any]:
    """Every public name of scipy.special, with our rules over its functions."""
    return {name: _entry("scipy.special", name, getattr(module, name), SCIPY) for name in _names(module)}
