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
from gpujac.array import create
from gpujac.array.series import Joiner
from gpujac.array.table import LINALG, SCIPY, TABLE
from gpujac.core.trace import Tracer
from gpujac.errors import DispatchError

_LISTS = frozenset((list, tuple))
_MAKERS = frozenset("zeros ones empty full zeros_like ones_like empty_like full_like".split())
# Functions whose first argument, if a list or tuple, is not to be read as one array.
_JOINERS = frozenset(
    """stack concatenate concat vstack hstack dstack column_stack block broadcast_arrays
    meshgrid array asarray multi_dot select full""".split()
)
# Functions of NumPy that look at no values, or at no array at all.
_HARMLESS = frozenset(
    """isscalar iterable issubdtype isdtype broadcast_shapes info test errstate
    promote_types""".split()
)
_CURE = (
    "is not supported on traced arrays; write it with the functions of gpujac.numpy, or compute it "
    "from gpujac.value(x) if it needs no derivative"
)


def traced_among(args: tuple, kwargs: dict) -> bool:
    """Whether a traced array is an argument, or in a list or tuple that is one."""
    for x in args:
        if isinstance(x, Tracer) or (x.__class__ in _LISTS and c.holds_tracer(x)):
            return True
    return bool(kwargs) and any(c.holds_tracer(x) for x in kwargs.values())


def dispatching(name: str, ours: Callable, theirs: Callable) -> Callable:
    """The library's function `theirs`, and `ours` where a traced array is among the arguments."""
    lifts = name not in _JOINERS

    @wraps(theirs)
    def function(*args: Any, **kwargs: Any) -> Any:
        if not traced_among(args, kwargs):
            return theirs(*args, **kwargs)
        if lifts and args and args[0].__class__ in _LISTS:
            args = (c.lift(args[0]), *args[1:])
        return ours(*args, **kwargs)

    return function


def refusing(name: str, theirs: Callable) -> Callable:
    """The library's function `theirs`, which has no rule: a traced argument is an error."""

    @wraps(theirs)
    def function(*args: Any, **kwargs: Any) -> Any:
        if traced_among(args, kwargs):
            raise DispatchError(f"{name} {_CURE}")
        return theirs(*args, **kwargs)

    return function


def _entry(library: str, name: str, theirs: Any, table: dict[str, Any]) -> Any:
    """What the namespace holds under `name`."""
    if library == "numpy" and name in ("r_", "c_"):
        return Joiner(theirs, name == "c_")
    if isinstance(theirs, np.ufunc):
        return theirs  # NumPy asks traced operands by itself, methods (add.at, ...) included
    if not callable(theirs) or isinstance(theirs, type):
        return theirs
    ours = table.get(name)
    if name in _MAKERS:
        made = create.boxing(theirs)
        return made if ours is None else dispatching(name, ours, made)
    if ours is not None:
        return dispatching(name, ours, theirs)
    if name in _HARMLESS or not isinstance(theirs, _FUNCTIONS):
        return theirs
    return refusing(f"{library}.{name}", theirs)


_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, type(np.sum))


def _names(xp: Any) -> list[str]:
    return [name for name in dir(xp) if not name.startswith("_")]


def _linalg(xp: Any) -> dict[str, Any]:
    """The names of the `linalg` submodule, ours over the library's."""
    module = getattr(xp, "linalg", SimpleNamespace())
    library = f"{xp.__name__}.linalg"
    own = {name: _entry(library, name, getattr(module, name), LINALG) for name in _names(module)}
    return {**LINALG, **own}


@lru_cache(None)
def names_over(xp: Any) -> dict[str, Any]:
    """Every public name of the library `xp`, with the rules of the table over its functions."""
    own = {name: _entry(xp.__name__, name, getattr(xp, name), TABLE) for name in _names(xp)}
    return {**TABLE, **own, "linalg": SimpleNamespace(**_linalg(xp))}


@lru_cache(None)
def namespace_over(xp: Any) -> SimpleNamespace:
    """The namespace that a traced array over the library `xp` answers `__array_namespace__` with."""
    return SimpleNamespace(__name__=f"gpujac namespace over {xp.__name__}", **names_over(xp))


def names_of_scipy(module: Any) -> dict[str, Any]:
    """Every public name of scipy.special, with our rules over its functions."""
    return {name: _entry("scipy.special", name, getattr(module, name), SCIPY) for name in _names(module)}
