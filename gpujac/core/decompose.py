"""Decompositions: what an operation is in terms of others, where a transform lacks a rule of its own.

The table of the library's own is loaded at the first question for one, once, under a lock; the
loader is handed in from above (gpujac/ops/__init__.py), since what a decomposition is written with
stands on a higher floor.
"""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from gpujac import settings
from gpujac.errors import ArgumentTypeError, RegistrationError


class Decomposition(NamedTuple):
    """A function `f(op, *operands)` and the place where it was registered."""

    f: Callable
    place: str


KNOWN: set[str] = set()  # the names of all ops that there are
_COMPLETE: set[str] = set()  # those with a rule of their own for every transform, which never ask here
_TABLE: dict[str, Decomposition] = {}
_LOCK = threading.RLock()  # the table's own entries are made while it is loaded
_LOADERS: list[Callable[[], None]] = []
_LOADED: list[bool] = [False]


def declare(name: str, complete: bool = False) -> None:
    """Make the name of an op known, so that a decomposition can be registered for it unless it is `complete`."""
    KNOWN.add(name)
    (_COMPLETE.add if complete else _COMPLETE.discard)(name)


def forget(name: str) -> None:
    """Drop an op that is no more, and its decomposition."""
    with _LOCK:
        KNOWN.discard(name)
        _COMPLETE.discard(name)
        _TABLE.pop(name, None)


def set_loader(load: Callable[[], None]) -> None:
    """Hand in the function that imports the table."""
    _LOADERS[:] = [load]


def decompositions_loaded() -> bool:
    """Whether the table of decompositions has been loaded.

    It is loaded once, at the first need: a batched value meets an operation without a batching
    rule, or a derivative one without a derivative rule. Importing gpujac, building a transform and
    the gradients of most functions leave it alone. Registering a decomposition for one of
    gpujac's own operations loads it too, to see whether the place is taken.

    Args:
        None.

    Returns:
        bool.

    Raises:
        Nothing.

    Cost: none.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> tables = np.array([[0.0, 1.0, 4.0], [0.0, 2.0, 4.0]])
        >>> gj.vmap(np.interp, in_dims=(None, 0, None))(1.0, tables, np.array([0.0, 10.0, 20.0]))
        array([10.,  5.])
        >>> gj.decompositions_loaded()
        True
    """
    return _LOADED[0]


def load() -> None:
    """Load the table unless it is there; other threads wait until it is complete."""
    if _LOADED[0]:
        return
    with _LOCK:
        if not _LOADED[0]:
            before = dict(_TABLE)
            try:
                for loader in _LOADERS:
                    loader()
            except BaseException:  # out of memory, an interrupt: the next question loads it anew
                _TABLE.clear()
                _TABLE.update(before)
                raise
            _LOADED[0] = True


def find(name: str) -> Callable | None:
    """The decomposition `f(op, *operands)` of the op called `name`; None without one, or when switched off."""
    if settings.get("decompositions") == "off":
        return None
    load()
    found = _TABLE.get(name)
    return None if found is None else found.f


def switched_off(name: str) -> str:
    """What an error about the op called `name` says of a decomposition that was not to be used; else nothing."""
    if settings.get("decompositions") != "off" or (name not in _TABLE and _LOADED[0]):
        return ""
    there = "its decomposition" if name in _TABLE else "its decomposition, if there is one,"
    return f'; {there} was not used, as settings.decompositions is "off": set it to "auto"'


def own(*names: str) -> Callable[[Callable], Callable]:
    """Decorator for the table's own entries: they are there before a user can ask for the place."""

    def put(f: Callable) -> Callable:
        _put(names, f)
        return f

    return put


def register_decomposition(op: Any) -> Callable[[Callable], Callable]:
    """A decorator: the function says what an operation is in terms of other ones.

    A transform that finds no rule of the operation for what it has to do (vmap no batching rule,
    a derivative no derivative rule) runs the function on its own traced arrays instead.

    Args:
        op: the operation: an op object, the name of one of gpujac's ("interp"), the name of a
            custom one ("ns::name"), or a list or tuple of these.

    Returns:
        A decorator that returns its function unchanged. The function takes `(op, *operands)` for
        gpujac's operations, `op` holding the static parameters, and the arguments of the operation
        itself for a custom one; it returns what the operation returns, and calls NumPy's
        functions, or those of the library that it is to serve.

    Raises:
        RegistrationError: no such operation, it has a decomposition already (the message names
            the file and line of that one), or rules of its own for every transform.
        ArgumentTypeError: `op` is none of these, or what is decorated is not callable.

    Cost: for a name of gpujac's own, the table is loaded.

    Example:
        >>> import gpujac as gj
        >>> @gj.register_decomposition("no_such_operation")
        ... def rule(op, x):
        ...     return x
        Traceback (most recent call last):
        gpujac.errors.RegistrationError: register_decomposition: there is no operation 'no_such_operation'; ...
    """
    wanted = op if isinstance(op, (list, tuple)) else (op,)
    names = tuple([_name(x) for x in wanted])
    if any(["::" not in name for name in names]):
        load()
    for name in names:
        if name not in KNOWN:
            raise RegistrationError(
                f"register_decomposition: there is no operation {name!r}; give an op, the name of one of "
                "gpujac's or of a custom one ('ns::name') that is defined already"
            )
        if name in _COMPLETE and name not in _TABLE:
            raise RegistrationError(
                f"register_decomposition: {name} has rules of its own for every transform, so that a decomposition "
                "would never be asked for; for other derivatives wrap a function of yours in gpujac.custom_jvp"
            )

    def put(f: Callable) -> Callable:
        if not callable(f):
            raise ArgumentTypeError(f"register_decomposition: {f!r} is a {type(f).__name__}; decorate a function")
        _put(names, f)
        return f

    return put


def _put(names: tuple[str, ...], f: Callable) -> None:
    with _LOCK:
        for name in names:
            if name in _TABLE:
                raise RegistrationError(
                    f"register_decomposition: {name} has a decomposition, registered at {_TABLE[name].place}; "
                    "there can be one"
                )
        for name in names:
            _TABLE[name] = Decomposition(f, _place(f))


def _name(op: Any) -> str:
    name = op if isinstance(op, str) else getattr(op, "name", None)
    if isinstance(name, str):
        return name
    raise ArgumentTypeError(
        f"register_decomposition: {op!r} is a {type(op).__name__}; give an op, its name, or a list of these"
    )


def _place(f: Any) -> str:
    code = getattr(f, "__code__", None)
    return "a place without source" if code is None else f"{code.co_filename}:{code.co_firstlineno}"
