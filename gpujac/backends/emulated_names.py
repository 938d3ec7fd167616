"""CuPy's namespace without a GPU: every public name, evaluated by NumPy on emulated arrays.

A call is first bound to the signature of the installed CuPy, so code that passes here uses no
argument that CuPy lacks; NumPy arrays are refused where CuPy refuses them.
"""

import inspect
import types
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from gpujac.backends import counts
from gpujac.backends.cupy import cupy
from gpujac.backends.emulated_array import EmulatedArray, elementwise, host, product, run, wrap
from gpujac.backends.emulated_kernels import RawKernel, RawModule
from gpujac.errors import BackendError

# Functions that take NumPy arrays and lists of numbers: they upload them.
_UPLOADS = frozenset("asarray array asanyarray ascontiguousarray asfortranarray asnumpy copyto".split())
# Functions of NumPy's that CuPy has under an older name.
_OLD_NAMES = {
    "alltrue": "all", "sometrue": "any", "product": "prod", "cumproduct": "cumprod", "round_": "round",
    "in1d": "isin", "trapz": "trapezoid", "msort": "sort", "asfarray": "asarray",
}  # fmt: skip
# Launches of functions that CuPy makes of several kernels, at the least, for arrays of small batches.
LAUNCHES = {
    "solve": 4, "inv": 4, "roll": 2, "argsort": 2, "sort": 2, "var": 3, "std": 4, "einsum": 2,
    "empty": 0, "empty_like": 0,  # these only reserve memory
}  # fmt: skip
_PER_OPERAND = frozenset(("concatenate", "concat", "stack", "vstack", "hstack", "dstack", "column_stack"))
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, type(cupy.dot))


# The dtypes of CuPy's ufunc.at: those that CUDA has atomics for.
_AT = {"add": "ilILqQefd", "subtract": "iI", "maximum": "ilILqQfd", "minimum": "ilILqQfd"}


class _Ufunc:
    """One of CuPy's ufuncs, called without a device also on plain numbers."""

    def __init__(self, name: str, theirs: Any) -> None:
        self.__name__ = name
        self._theirs = theirs
        self.nin, self.nout, self.types = theirs.nin, theirs.nout, theirs.types

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        hooked = [x for x in args if getattr(type(x), "__cupy_override_elementwise_kernel__", None)]
        if hooked:
            return self._theirs(*args, **kwargs)
        return elementwise(self._theirs, (_scalar(args[0]), *args[1:]), kwargs)

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        """In place at index positions, repeated ones counted each time."""
        if a.dtype.char not in _AT.get(self.__name__, ""):
            raise TypeError(f"cupy.{self.__name__}.at does not support {a.dtype}")
        from_host = getattr(np, self.__name__)
        extra = () if b is None else (b,)
        run(f"{self.__name__}.at", lambda *xs: from_host.at(*xs), (a, indices, *extra), {}, plain=True)
        counts.launched(f"{self.__name__}.at", ())

    def outer(self, a: Any, b: Any, **kwargs: Any) -> Any:
        """All pairs of entries."""
        column = a.reshape(a.shape + (1,) * len(getattr(b, "shape", ())))
        return self(column, b, **kwargs)

    def __getattr__(self, name: str) -> Any:  # reduce and accumulate: CuPy's own code calls methods
        return getattr(self._theirs, name)

    def __repr__(self) -> str:
        return f"<emulated ufunc {self.__name__!r}>"


def _scalar(x: Any) -> Any:
    """A number as an emulated array, so that CuPy's rules for arrays apply."""
    if isinstance(x, (int, float, complex, np.generic)):
        return wrap(np.array(x))
    raise TypeError(f"Unsupported type {type(x)}")


class _Indexed:
    """`mgrid`, `ogrid`, `r_` and `c_`: made by indexing."""

    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs

    def __getitem__(self, key: Any) -> Any:
        return run("index_trick", lambda *k: self._theirs[k if len(k) != 1 else k[0]],
                   key if isinstance(key, tuple) else (key,), {})  # fmt: skip


class Namespace:
    """The public names of one of CuPy's modules over emulated arrays."""

    def __init__(self, theirs: Any, ours: Any) -> None:
        self.__name__ = theirs.__name__
        self._theirs, self._ours = theirs, ours

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = self._made(name)
        self.__dict__[name] = found
        return found

    def __dir__(self) -> list[str]:
        return dir(self._theirs)

    def __repr__(self) -> str:
        return f"<emulated namespace {self.__name__}>"

    def _made(self, name: str) -> Any:
        theirs = getattr(self._theirs, name)  # AttributeError where CuPy has no such name
        ours = getattr(self._ours, _OLD_NAMES.get(name, name), None)
        if name in _OWN:
            return _OWN[name]
        if isinstance(theirs, cupy.ufunc):
            return _Ufunc(name, theirs)
        if name in ("mgrid", "ogrid", "r_", "c_"):
            return _Indexed(ours)
        if isinstance(theirs, types.ModuleType) and name in ("linalg", "fft", "random"):
            return Namespace(theirs, ours)
        if isinstance(theirs, (types.ModuleType, type)) or not callable(theirs):
            return theirs
        if name in ("cuda", "get_default_memory_pool", "get_default_pinned_memory_pool"):
            return theirs
        if ours is None:
            return _absent(f"{self.__name__}.{name}")
        return _function(name, theirs, ours)


def _absent(name: str) -> Callable:
    def refused(*args: Any, **kwargs: Any) -> Any:
        raise BackendError(f"{name} has no NumPy counterpart, so the emulated backend cannot run it; use a GPU")

    refused.__name__ = name.rpartition(".")[2]
    return refused


@lru_cache(None)
def _signature(f: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(f)
    except (TypeError, ValueError):
        return None


def _function(name: str, theirs: Any, ours: Any) -> Callable:
    """NumPy's function under CuPy's signature."""
    plain = name in _UPLOADS
    signature = _signature(theirs)

    def function(*args: Any, **kwargs: Any) -> Any:
        if signature is not None:
            signature.bind(*args, **kwargs)
        if args and not plain and isinstance(args[0], list) and not _holds_array(args[0]):
            _asked(theirs, args, kwargs)
        options = {k: v for k, v in kwargs.items() if k not in _DEVICE_ONLY}
        times = LAUNCHES.get(name, 1)
        if name not in _PER_OPERAND:
            return run(name, ours, args, options, plain, times)
        if args and isinstance(args[0], (list, tuple)):
            times = max(1, len(args[0]))
        return run(name, in_c_order, args, options, plain, times)

    def in_c_order(*args: Any, **kwargs: Any) -> Any:
        return np.ascontiguousarray(ours(*args, **kwargs))  # NumPy joins transposed arrays in their order

    function.__name__ = name
    function.__doc__ = f"CuPy's `{name}`, evaluated by NumPy."
    return function


def _holds_array(x: Any) -> bool:
    """Whether there is anything but numbers in nested lists."""
    return any([_holds_array(v) for v in x]) if isinstance(x, list) else not isinstance(x, (int, float, complex))


def _asked(theirs: Any, args: tuple, kwargs: dict) -> None:
    """Raise what CuPy's own function raises for lists of numbers, which few of them upload."""
    try:
        theirs(*args, **kwargs)
    except (TypeError, AttributeError):
        raise
    except Exception:  # it went on to the device, which may not be there
        return


_DEVICE_ONLY = frozenset(("stream", "blocking"))


def _asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
    """A NumPy copy of an emulated array: a wait for the device."""
    return a.get(order=order, out=out) if isinstance(a, EmulatedArray) else np.array(a)


def _fuse(*args: Any, **kwargs: Any) -> Any:
    """CuPy's fuse: the function runs operation by operation."""
    return args[0] if args and callable(args[0]) else lambda f: f


def _get_array_module(*args: Any) -> Any:
    """The emulated namespace where one of the arrays is emulated, else NumPy."""
    return NAMESPACE if any(isinstance(x, EmulatedArray) for x in args) else np


def _argsort(a: Any, axis: int = -1, kind: Any = None) -> Any:
    """CuPy's stable argsort."""
    return run("argsort", np.argsort, (a, axis), {"stable": True}, times=LAUNCHES["argsort"])


def _take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> Any:
    """CuPy's take."""
    return a.take(indices, axis, out)


def _matmul(x1: Any, x2: Any, out: Any = None, **kwargs: Any) -> Any:
    """CuPy's matrix product."""
    if isinstance(x1, np.ndarray) or isinstance(x2, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return product(x1, x2, {} if out is None else {"out": out})


def _where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """CuPy's where: the condition is an array."""
    if x is None:
        return condition.nonzero()
    if not isinstance(condition, EmulatedArray):
        raise TypeError(f"Unsupported type {type(condition)}")
    return run("where", np.where, (condition, x, y), {})


def _asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> Any:
    """CuPy's asarray: uploads what is not on the device."""
    if not isinstance(a, EmulatedArray):
        return run("asarray", np.array, (a, dtype), {"order": order}, plain=True)
    return run("asarray", np.asarray, (a, dtype), {"order": order, "copy": copy})


def _broadcast_to(array: Any, shape: Any) -> Any:
    """CuPy's broadcast_to: a view that can be written into, as CuPy gives it."""
    made = np.broadcast_to(host(array), shape)
    return wrap(np.lib.stride_tricks.as_strided(host(array), shape, made.strides))


class _Generator:
    """A random generator whose draws are emulated arrays; it has the methods of CuPy's."""

    def __init__(self, seed: Any = None) -> None:
        self._ours = np.random.default_rng(seed)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or getattr(cupy.random.Generator, name, None) is None:
            raise AttributeError(f"'{cupy.random.Generator.__module__}.Generator' object has no attribute '{name}'")
        theirs = getattr(self._ours, name)

        def draw(*args: Any, **kwargs: Any) -> np.ndarray:
            return np.asarray(theirs(*args, **kwargs))  # of one number, too: CuPy's is an array without axes

        return lambda *args, **kwargs: run(f"random.{name}", draw, args, kwargs)


_OWN: dict[str, Any] = {
    "default_rng": _Generator,
    "asnumpy": _asnumpy,
    "fuse": _fuse,
    "get_array_module": _get_array_module,
    "argsort": _argsort,
    "take": _take,
    "matmul": _matmul,
    "where": _where,
    "asarray": _asarray,
    "broadcast_to": _broadcast_to,
    "ndarray": EmulatedArray,
    "RawKernel": RawKernel,
    "RawModule": RawModule,
}
NAMESPACE = Namespace(cupy, np)
