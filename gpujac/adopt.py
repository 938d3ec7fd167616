"""`adopt`: a copy of a function in which NumPy and CuPy are gpujac's namespaces."""

import builtins
import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from gpujac.array.namespace import array_module, module_of, names_of_scipy, names_over
from gpujac.backends.choose import device
from gpujac.errors import ArgumentError, ArgumentTypeError, BackendError

_LIBRARIES = ("numpy", "cupy")
_SPECIAL = ("scipy.special", "cupyx.scipy.special")
_SUBMODULES = ("linalg", "fft", "random")
_ORIGINAL = "__gpujac_adopted__"  # the attribute of a copy that holds what it was made of
_NOTHING = object()
_OWN = Path(__file__).parent
_USER_CODE = ("gpujac.demo_model",)  # ships with gpujac, and is written as a user's file


def adopt(f: Callable, *, library: str | None = None) -> Callable:
    """A copy of `f` that transforms can differentiate although its module says `import cupy as cp`.

    Wherever `f` finds the module CuPy or NumPy (a global name, a variable of an enclosing function,
    a default argument, an import inside the body), a submodule of theirs such as `cupy.linalg`, or
    one of their functions taken by name (`from cupy import matmul`), the copy finds that of
    `gpujac.cupy` or `gpujac.numpy`. Functions that `f` calls by such a name and that belong to the
    same package are copied with it. Nothing is patched: `f`, its module and the libraries stay as
    they are, and other code sees no difference.

    The copy looks at the globals of `f` anew at each call, so a decorator can make it before the
    helpers are defined. What it assigns to a `global` name stays in the copy. Not reached: the
    methods of other objects, functions held in containers or reached as attributes of a module of
    the user's (adopt those, too), and other packages.

    Args:
        f: a Python function, a method, a functools.partial, or an object with `__call__` (its
            `__call__` is copied); a function of NumPy or CuPy gives gpujac's.
        library: None leaves each library its own; "cupy" puts gpujac.cupy in the place of NumPy
            and gpujac.numpy, too, so that `np.zeros(n)` makes an array on the device; "numpy" puts
            gpujac.numpy in the place of CuPy and gpujac.cupy, so that CuPy code runs on the CPU.

    Returns:
        A function with the signature and name of `f`.

    Raises:
        ArgumentTypeError: `f` is not written in Python, or is a transform already (adopt the
            function first: `grad(adopt(f))`).
        ArgumentError: an unknown `library`.
        BackendError: library="cupy" without CuPy.

    Cost:
        A pass over the globals of `f` per call: a few microseconds.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> def f(x):
        ...     return np.array([x[0], x[0] * x[1]])  # np.array never asks a traced array
        >>> gj.jacrev(gj.adopt(f))(np.array([2.0, 3.0]))
        array([[1., 0.],
               [3., 2.]])
    """
    if library not in (None, *_LIBRARIES):
        raise ArgumentError(f"adopt: library={library!r} is not one of None, 'numpy', 'cupy'")
    return _adopted(f, _Exchange(library))


def _adopted(f: Any, exchange: "_Exchange") -> Any:
    if isinstance(f, functools.partial):
        inner = _adopted(f.func, exchange)
        return _partial(lambda x: inner if x is f.func else exchange.replaced(x), f)
    if isinstance(f, MethodType):
        return MethodType(_adopted(f.__func__, exchange), f.__self__)
    ours = exchange.replaced(f)
    if ours is not f:
        return ours
    if not isinstance(f, FunctionType):
        call = inspect.getattr_static(type(f), "__call__", None)
        if not isinstance(call, FunctionType):
            raise ArgumentTypeError(f"adopt: needs a function written in Python, not {f!r}; write one that calls it")
        return MethodType(_adopted(call, exchange), f)
    f = getattr(f, _ORIGINAL, f)
    if _package(f) == "gpujac" and Path(f.__code__.co_filename).is_relative_to(_OWN):
        raise ArgumentTypeError(
            f"adopt: {f.__name__} is a transform of gpujac already; adopt the function before it, as in "
            "grad(adopt(f))"
        )
    return _Copies(exchange, f).entry(f)


def _partial(substitute: Callable, f: functools.partial) -> functools.partial:
    """A partial with everything that it holds substituted."""
    keywords = {name: substitute(x) for name, x in f.keywords.items()}
    return functools.partial(substitute(f.func), *map(substitute, f.args), **keywords)


def _package(f: FunctionType) -> str:
    name = str(f.__globals__.get("__name__", ""))
    return name if name in _USER_CODE else name.partition(".")[0]


class _Exchange:
    """What takes the place of what: modules, submodules and functions of NumPy and CuPy."""

    def __init__(self, library: str | None) -> None:
        self.library = library
        self.ours: dict[int, tuple[Any, Any]] = {}  # id -> (theirs, ours); keeps theirs alive
        self.known: set[str] = set()
        self.load = builtins.__import__  # what an import statement calls
        if library == "cupy":
            device()  # raises where there is no CuPy
        self.refresh()

    def refresh(self) -> None:
        """Learn the libraries that have been loaded since."""
        own = ("gpujac.numpy", "gpujac.cupy") if self.library else ()
        for name in (*_LIBRARIES, *_SPECIAL, *own):
            module = sys.modules.get(name)
            if module is not None and name not in self.known:
                self.known.add(name)
                self._learn(name, module)

    def _learn(self, name: str, module: ModuleType) -> None:
        if name in _SPECIAL:
            self._pair(module, module_of(name, names_of_scipy(module)))
            return
        chosen = self.library or name
        try:
            names = names_over(np if chosen == "numpy" else device().xp)
        except BackendError:
            return  # a CuPy that cannot serve, loaded by others: NumPy's code needs none
        ours = module_of(chosen, names)
        if name == "cupy":
            vars(ours)["get_array_module"] = array_module(np if chosen == "numpy" else device().xp, ours)
        if name == "cupy" and chosen == "numpy":
            vars(ours)["asnumpy"] = np.asarray  # which refuses a traced array, as CuPy's would
        self._pair(module, ours)
        for part in _SUBMODULES:
            theirs = sys.modules.get(f"{name}.{part}")
            if theirs is not None:
                self._pair(theirs, names[part])

    def _pair(self, theirs: Any, ours: Any) -> None:
        """`ours` for the module `theirs`, and for each of its functions that ours has, too."""
        if theirs is ours:
            return
        self.ours[id(theirs)] = (theirs, ours)
        for name in dir(theirs):
            old, new = getattr(theirs, name), getattr(ours, name, None)
            if callable(old) and not isinstance(old, type) and new is not None and new is not old:
                self.ours.setdefault(id(old), (old, new))

    def replaced(self, x: Any) -> Any:
        """Ours in the place of `x`, or `x` itself."""
        found = self.ours.get(id(x))
        return x if found is None else found[1]

    def importing(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """What an import statement in the body of a copy calls."""
        module = self.load(name, *args, **kwargs)
        self.refresh()
        return self.replaced(module)


class _Copies:
    """Copies of the functions of one package, and of the globals that they read."""

    def __init__(self, exchange: _Exchange, f: FunctionType) -> None:
        self.exchange = exchange
        self.packages = {_package(f), str(f.__module__).partition(".")[0]} - {"gpujac"}
        self.spaces: dict[int, _Space] = {}
        self.made: dict[int, tuple[FunctionType, list, FunctionType]] = {}

    def entry(self, f: FunctionType) -> Callable:
        """The copy of `f` for the user, which looks for what has changed before each call."""

        @functools.wraps(f)
        def adopted(*args: Any, **kwargs: Any) -> Any:
            self.exchange.refresh()
            for space in list(self.spaces.values()):
                space.refresh(self)
            return self.copy(f)(*args, **kwargs)

        setattr(adopted, _ORIGINAL, f)
        return adopted

    def changes(self, x: Any) -> bool:
        """Whether the copies find something else in the place of `x`."""
        if type(x) is FunctionType and _package(x) in self.packages:
            return True
        if type(x) is functools.partial:
            return any(self.changes(part) for part in (x.func, *x.args, *x.keywords.values()))
        return self.exchange.replaced(x) is not x

    def substitute(self, x: Any) -> Any:
        """What the copies find in the place of `x`."""
        if not self.changes(x):
            return x
        if type(x) is functools.partial:
            return _partial(self.substitute, x)
        ours = self.exchange.replaced(x)
        return ours if ours is not x else self.copy(x)

    def copy(self, f: FunctionType) -> FunctionType:
        """The copy of `f`, made again when a variable of an enclosing function has changed."""
        seen = _contents(f)
        held = self.made.get(id(f))
        if held is not None and all(a is b for a, b in zip(held[1], seen, strict=True)):
            return held[2]
        space = self.spaces.get(id(f.__globals__))
        fresh = space is None
        if space is None:
            space = self.spaces[id(f.__globals__)] = _Space(f.__globals__, self.exchange.importing)
        cells = [CellType() if self.changes(x) else cell for x, cell in zip(seen, f.__closure__ or (), strict=True)]
        made = FunctionType(f.__code__, space.names, f.__name__, None, tuple(cells))
        self.made[id(f)] = (f, seen, made)  # before what it refers to, which may refer to it
        functools.update_wrapper(made, f)
        for x, cell in zip(seen, cells, strict=True):
            if self.changes(x):
                cell.cell_contents = self.substitute(x)
        made.__defaults__ = f.__defaults__ and tuple(map(self.substitute, f.__defaults__))
        made.__kwdefaults__ = f.__kwdefaults__ and {k: self.substitute(v) for k, v in f.__kwdefaults__.items()}
        if fresh:
            space.refresh(self)
        return made


def _contents(f: FunctionType) -> list:
    """What the variables of enclosing functions hold."""
    found = []
    for cell in f.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            found.append(_NOTHING)
    return found


class _Space:
    """The globals of a module as copies of its functions see them."""

    def __init__(self, source: dict[str, Any], importing: Callable) -> None:
        self.source = source
        self.seen: dict[str, Any] = {}
        self.names: dict[str, Any] = {"__builtins__": {**vars(builtins), "__import__": importing}}

    def refresh(self, copies: _Copies) -> None:
        """Take over what has changed in the module since the last call."""
        for name, x in list(self.source.items()):
            if self.seen.get(name, _NOTHING) is not x and name != "__builtins__":
                self.seen[name] = x
                self.names[name] = copies.substitute(x)
        for name in self.seen.keys() - self.source.keys():
            del self.seen[name]
            self.names.pop(name, None)
