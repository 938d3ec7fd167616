"""CuPy's two hooks: the doors to the one table for CuPy's ufuncs and reductions.

CuPy asks the first positional argument that has the hook, whatever its other arguments are, and
hands the answer to its caller. Rules are looked up by the kernel object itself: names of kernels
follow no pattern ("cupy_add", "cupyx_scipy_special_erf", "cupyx_scipy_gamma").
"""

import sys
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import create, reduce
from gpujac.array.protocols import array_ufunc, with_options
from gpujac.array.table import SCIPY, TABLE
from gpujac.errors import DispatchError
from gpujac.ops import elementwise as ew

_CURE = (
    "write it with the functions of gpujac.cupy, or compute it from gpujac.value(x) if it needs no derivative"
)


def _rsqrt(x: Any) -> Any:
    return ew.reciprocal(ew.sqrt(x))


def _nan_to_num(x: Any, nan: Any, posinf: Any, neginf: Any) -> Any:
    return TABLE["nan_to_num"](x, nan=nan, posinf=posinf, neginf=neginf)


def _angle_in_degrees(z: Any) -> Any:
    return TABLE["angle"](z, deg=True)


# Ufuncs without a public name, by module and name there: what CuPy's own functions launch.
_INNER: dict[tuple[str, str], Callable] = {
    ("cupy._core", "angle"): TABLE["angle"],
    ("cupy._core", "angle_deg"): _angle_in_degrees,
    ("cupy._core", "elementwise_copy"): create.copy,
    ("cupy._core.core", "_round_ufunc"): TABLE["round"],
    ("cupy._core._routines_math", "_clip"): TABLE["clip"],
    ("cupy._logic.comparison", "_is_close"): TABLE["isclose"],
    ("cupy._logic.comparison", "_is_close_complex"): TABLE["isclose"],
    ("cupy._math.arithmetic", "_imag_ufunc"): TABLE["imag"],
    ("cupy._math.arithmetic", "_real_ufunc"): TABLE["real"],
    ("cupy._math.misc", "_nan_to_num"): _nan_to_num,
    ("cupy._sorting.search", "_where_ufunc"): TABLE["where"],
    ("cupyx", "rsqrt"): _rsqrt,
}
_REDUCTIONS: dict[tuple[str, str], Callable] = {
    ("cupy._core", "nanmax"): TABLE["nanmax"],
    ("cupy._core", "nanmin"): TABLE["nanmin"],
    ("cupy._core._routines_logic", "all"): reduce.all,
    ("cupy._core._routines_logic", "any"): reduce.any,
    ("cupy._core._routines_statistics", "amax"): reduce.max,
    ("cupy._core._routines_statistics", "amin"): reduce.min,
    ("cupy._sorting.count", "_count_nonzero"): reduce.count_nonzero,
    ("cupy.linalg._norms", "_norm_ord2"): reduce.vector_norm,
    ("cupy.linalg._norms", "_norm_ord2_complex"): reduce.vector_norm,
}


def elementwise(kernel: Any, args: tuple, kwargs: dict) -> Any:
    """A CuPy ufunc or ElementwiseKernel met a traced array among its positional arguments."""
    known = _ufuncs().get(kernel)
    if known is not None and not kwargs and len(args) == kernel.nin:  # nearly every call
        return known[1](*args)
    if not isinstance(kernel, sys.modules["cupy"].ufunc):
        raise DispatchError(
            f"{kernel.name}: an ElementwiseKernel is CUDA C++ code, which has no derivative rule; call it in an "
            f"implementation of a custom op (gpujac.custom_op), which has rules of its own, or {_CURE}"
        )
    name, f = known or _special(kernel)
    return _called(name, f, kernel.nin, args, kwargs)


def _called(name: str, f: Callable, operands: int, args: tuple, kwargs: dict) -> Any:
    """The rule `f` with the options of a CuPy ufunc; outputs may stand behind the operands."""
    options = dict(kwargs)
    masked = options.pop("_where", None)
    if masked is not None:
        options["where"] = masked
    if len(args) > operands:  # x += v arrives as add(x, v, x)
        args, options["out"] = args[:operands], args[operands:]
    return with_options(name, f, args, options)


def reduction(kernel: Any, x: Any, axis: Any, dtype: Any, out: Any, keepdims: bool) -> Any:
    """A CuPy reduction met a traced array."""
    c.refuse(kernel.name, out=out)
    f = _reductions().get(kernel)
    if f is None:
        raise DispatchError(f"{kernel.name} is not supported on traced arrays; {_CURE}")
    if dtype is not None:
        x = c.astype(x, dtype)
    return f(x, axis=axis, keepdims=keepdims)


@lru_cache(None)
def _ufuncs() -> dict[Any, tuple[str, Callable]]:
    """CuPy's ufuncs by object: what messages call them, and the function of the table."""
    xp: Any = sys.modules["cupy"]  # loaded: CuPy has called this
    found = {
        getattr(xp, name): (f"cupy.{name}", TABLE[name])
        for name in sorted(dir(xp))
        if name in TABLE and isinstance(getattr(xp, name), xp.ufunc)
    }
    inner = {kernel: (name.strip("_"), f) for kernel, (name, f) in _loaded(_INNER).items()}
    return {**inner, **found}


@lru_cache(None)
def _reductions() -> dict[Any, Callable]:
    return {kernel: f for kernel, (_, f) in _loaded(_REDUCTIONS).items()}


def _loaded(table: dict[tuple[str, str], Callable]) -> dict[Any, tuple[str, Callable]]:
    """The kernels of `table` that the installed CuPy has, by object."""
    found = {}
    for (module, name), f in table.items():
        kernel = getattr(sys.modules.get(module), name, None)
        if kernel is not None:
            found[kernel] = (name, f)
    return found


def _special(ufunc: Any) -> tuple[str, Callable]:
    """What messages call a ufunc that is not CuPy's own but cupyx's, and its rule."""
    module = sys.modules.get("cupyx.scipy.special")  # loaded, if the ufunc is one of its
    for name in SCIPY:
        if getattr(module, name, None) is ufunc:
            return f"cupyx.scipy.special.{name}", SCIPY[name]
    raise DispatchError(f"{ufunc.name} has no derivative rule in gpujac; {_CURE}")


def matmul(x: Any, y: Any, /, **options: Any) -> Any:
    """`cupy.matmul`, a ufunc with its options though it does not ask."""
    return with_options("cupy.matmul", TABLE["matmul"], (x, y), options)


def fuse(theirs: Any) -> Callable:
    """`cupy.fuse` for functions of traced arrays too: those get the function itself."""

    @wraps(theirs)
    def decorator(*args: Any, **kwargs: Any) -> Any:
        if not args or not callable(args[0]):
            return lambda f: decorator(f, *args, **kwargs)
        f = args[0]
        fused = theirs(*args, **kwargs)

        @wraps(f)
        def call(*xs: Any, **options: Any) -> Any:
            return (f if c.traced_among(xs, options) else fused)(*xs, **options)

        return call

    return decorator


class Ufunc:
    """A CuPy ufunc in our namespace: the rule where a traced array is among the arguments."""

    def __init__(self, name: str, ours: Callable | None, theirs: Any) -> None:
        self.__name__ = name
        self.__doc__ = theirs.__doc__
        self._ours, self._theirs = ours, theirs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not c.traced_among(args, kwargs):
            return self._theirs(*args, **kwargs)
        if self._ours is None:
            raise DispatchError(f"cupy.{self.__name__} has no derivative rule in gpujac; {_CURE}")
        return _called(f"cupy.{self.__name__}", self._ours, self.nin, args, kwargs)

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        """In place at an index, every repetition counting."""
        self._method("at", (a, indices) if b is None else (a, indices, b), {})

    def outer(self, *args: Any, **kwargs: Any) -> Any:
        """All pairs of entries."""
        return self._method("outer", args, kwargs)

    def reduce(self, *args: Any, **kwargs: Any) -> Any:
        """The entries along an axis combined into one."""
        return self._method("reduce", args, kwargs)

    def accumulate(self, *args: Any, **kwargs: Any) -> Any:
        """Running results along an axis."""
        return self._method("accumulate", args, kwargs)

    def reduceat(self, *args: Any, **kwargs: Any) -> Any:
        """Slices along an axis combined."""
        return self._method("reduceat", args, kwargs)

    def _method(self, method: str, args: tuple, kwargs: dict) -> Any:
        if not c.traced_among(args, kwargs):
            return getattr(self._theirs, method)(*args, **kwargs)
        like = getattr(np, self.__name__, None)
        if not isinstance(like, np.ufunc):
            raise DispatchError(f"cupy.{self.__name__}.{method} is not supported on traced arrays; {_CURE}")
        return array_ufunc(like, method, args, kwargs)

    def __getattr__(self, name: str) -> Any:  # nin, nout, types and what else the kernel has
        if name == "_theirs":  # while it is unpickled or copied
            raise AttributeError(name)
        return getattr(self._theirs, name)

    def __repr__(self) -> str:
        return f"<gpujac.cupy.{self.__name__}>"
