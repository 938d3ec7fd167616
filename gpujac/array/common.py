"""Helpers that every namespace function uses: axes, dtypes, lifting, refused keywords."""

import operator
from typing import Any

import numpy as np

from gpujac.backends.choose import HOST_TYPES, backend_of, common_backend
from gpujac.backends.host import SCALARS
from gpujac.core.aval import dtype_of, is_differentiable, item_bytes, kind, shape_of
from gpujac.core.source import asked_at
from gpujac.core.trace import Tracer, concrete, is_mapped, payload
from gpujac.errors import (
    ArgumentTypeError,
    AxisError,
    ConcretizationError,
    DispatchError,
    DTypeError,
    MutationError,
    ShapeError,
)
from gpujac.ops import join
from gpujac.ops import structure as st

NO_VALUE = np._NoValue
_LISTS = frozenset((list, tuple))


def lift(x: Any, like: Any = None) -> Any:
    """Lists and tuples of plain numbers as arrays of the library of `like`; the rest unchanged."""
    if isinstance(x, (list, tuple)):
        return lift_list(x, like)
    if isinstance(x, Tracer) and not x.owner.alive:
        raise x.owner.leaked(x)
    return x


def check_alive(x: Any) -> None:
    """Raise for a traced array that outlived its transform, where no operation would: it changes nothing."""
    if isinstance(x, Tracer) and not x.owner.alive:
        raise x.owner.leaked(x)


def lift_list(x: Any, like: Any = None) -> Any:
    """A (nested) list as one array; traced entries are stacked."""
    if not holds_tracer(x):
        return placed(np.asarray(x), like)
    like = _first_tracer(x)
    parts = [lift(i, like) for i in x]
    shapes = {tuple(shape_of(p)) for p in parts}
    if len(shapes) > 1:
        raise ShapeError(f"a list of arrays of shapes {sorted(shapes)} is no array; broadcast them to one shape")
    parts = strong(promoted(*parts) if len(parts) > 1 else tuple(parts))
    (src,) = shapes
    return join.stack(src, -1 - len(src), len(parts))(*parts)


def _first_tracer(x: Any) -> Any:
    while not isinstance(x, Tracer):
        x = next(i for i in x if holds_tracer(i))
    return x


def together(*xs: Any) -> tuple:
    """Operands with lists among them as arrays of the library of the others."""
    like = next((x for x in xs if x.__class__ not in _LISTS and type(payload(x)) not in HOST_TYPES), None)
    return tuple([lift(x, like) for x in xs])


def arrays(*xs: Any) -> tuple:
    """Operands with lists and numbers among them as arrays of the library of the others."""
    like = next((x for x in xs if x.__class__ not in _LISTS and type(payload(x)) not in HOST_TYPES), None)
    return tuple([placed(np.asarray(x), like) if x.__class__ in SCALARS else lift(x, like) for x in xs])


def placed(x: np.ndarray, like: Any) -> Any:
    """A NumPy array that came from a list or from shapes as one of the library of `like`."""
    target = payload(like)
    if target is None or type(target) in HOST_TYPES:
        return x
    return backend_of(target).asarray(x, as_dtype(x.dtype, like), target)


def on_host(x: Any) -> np.ndarray:
    """A concrete array as NumPy's: for the few that decide a shape, a wait where they lie on a device."""
    if type(x) in HOST_TYPES or isinstance(x, (list, tuple)):
        return np.asarray(x)
    return getattr(backend_of(x).xp, "asnumpy", np.asarray)(x)


def deciding(what: str, x: Any) -> Any:
    """The value of `x` where it decides the shape of a result; an error where it differs between lanes."""
    if is_mapped(x):
        raise ConcretizationError(
            f"{what}: the shape of the result depends on values that differ between the lanes of vmap; keep the "
            "shape, as in np.where(condition, x, 0), or use vmap(..., method=\"loop\")" + asked_at()
        )
    return concrete(x)


def true_positions(flags: Any) -> tuple:
    """Where the entries of a concrete array are not zero, one index array per axis of it."""
    return backend_of(flags).xp.nonzero(flags)


def unshared(y: Any) -> Any:
    """`y` as an array of its own, where NumPy gives a copy: later writes do not reach its source."""
    check_alive(y)
    traced: Any = y
    return traced.detached() if isinstance(y, Tracer) else y


def strong(xs: Any) -> list:
    """The operands with Python numbers as 0-d arrays of the library and dtype of the others."""
    likes = [payload(x) for x in xs if type(x) not in _WEAK and payload(x) is not None]
    if not likes:
        return [np.asarray(x) if type(x) in _WEAK else x for x in xs]
    like = next((x for x in likes if type(x) not in HOST_TYPES), likes[0])
    dtype = common_dtype(*xs)
    return [backend_of(like).asarray(x, dtype, like) if type(x) in _WEAK else onto(x, like) for x in xs]


def onto(x: Any, like: Any) -> Any:
    """A traced number, of Python's or NumPy's, as a 0-d array of the library of the array `like`.

    Numbers mix with every library, but the array that a stack of them makes would be NumPy's.
    """
    if not isinstance(x, Tracer) or x.shape != () or type(payload(x)) not in SCALARS or type(like) in HOST_TYPES:
        return x
    one: Any = backend_of(like).asarray(1, as_dtype(x.dtype, like), like)
    return x * one


def holds_tracer(x: Any) -> bool:
    """Whether a traced array is in `x`, a value or nested list or tuple."""
    if isinstance(x, Tracer):
        return True
    return isinstance(x, (list, tuple)) and any(holds_tracer(i) for i in x)


def traced_among(args: tuple, kwargs: dict) -> bool:
    """Whether a traced array is an argument, or in a list or tuple that is one."""
    for x in args:
        if isinstance(x, Tracer) or (x.__class__ in _LISTS and holds_tracer(x)):
            return True
    return bool(kwargs) and any(holds_tracer(x) for x in kwargs.values())


def axis_of(axis: Any, rank: int, what: str) -> int:
    """One axis as a negative number."""
    try:
        a = operator.index(axis)
    except TypeError:
        raise ArgumentTypeError(f"{what}: axis={axis!r} is not an integer") from None
    if not -rank <= a < rank:
        raise AxisError(f"{what}: axis={a} is out of range for an array of {rank} axes; use {-rank} to {rank - 1}")
    return a - rank if a >= 0 else a


def axes_of(axis: Any, rank: int, what: str) -> tuple[int, ...]:
    """`axis` (None: all) as sorted negative axes without repeats."""
    if axis is None:
        return tuple(range(-rank, 0))
    if rank == 0 and axis in (0, -1):
        return ()  # NumPy's reductions take these for an array without axes
    wanted = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = tuple(sorted(axis_of(a, rank, what) for a in wanted))
    if len(set(axes)) != len(axes):
        raise AxisError(f"{what}: axis={axis} names an axis twice")
    return axes


def refuse(what: str, **options: Any) -> None:
    """Raise for keyword arguments that have no differentiable meaning here."""
    for name, value in options.items():
        neutral = value is None or value is NO_VALUE or (name == "where" and value is True)
        if name == "out" and value is not None and value is not NO_VALUE:
            raise MutationError(f"{what}: out= cannot receive a traced value; assign the result instead")
        if not neutral:
            raise DispatchError(
                f"{what}: {name}= is not supported on traced arrays; leave it out or apply it before or after the call"
            )


def astype(x: Any, dtype: Any) -> Any:
    """`x` in another dtype. Floating to integer drops the derivative, as rounding does."""
    new, old = as_dtype(dtype, x), dtype_of(x)
    if new == old:
        return x
    if not isinstance(x, Tracer):
        return backend_of(x).cast(x, new)
    if is_differentiable(old) and not is_differentiable(new) and x.owner.transform != "vmap":
        return astype(x.owner.concrete(x), new)
    return st.cast(old, new)(x)


def cast_if(x: Any, dtype: Any) -> Any:
    """`x` in `dtype`, or as it is where none is asked."""
    return x if dtype is None else astype(x, dtype)


def check_casting(what: str, old: Any, new: Any, casting: Any) -> None:
    """Raise where NumPy's rule `casting` forbids the cast."""
    if casting != "unsafe" and isinstance(old, np.dtype) and not np.can_cast(old, new, casting):
        raise DTypeError(
            f"{what}: {old} to {np.dtype(new)} is not allowed with casting={casting!r}; use 'unsafe'"
        )


def as_dtype(dtype: Any, like: Any) -> Any:
    """`dtype` as the backend of `like` spells it."""
    target = payload(like)
    if target is not None and not isinstance(dtype_of(target), np.dtype):
        try:
            return getattr(backend_of(target).xp, np.dtype(dtype).name)
        except TypeError:
            return dtype
    found = np.dtype(dtype)
    kind(found)
    return found


def counted(x: Any) -> Any:
    """Booleans and short integers as the wide integers that sums and products of them need."""
    letter = kind(x.dtype)
    if letter in "fc" or (letter != "b" and item_bytes(x.dtype) >= 8):
        return x
    return astype(x, np.uint64 if letter == "u" else np.int64)


def common_dtype(*xs: Any) -> Any:
    """The dtype that NumPy's promotion gives the operands; Python numbers are weak."""
    if len({dtype_of(x) for x in xs}) == 1 and not any(type(x) in _WEAK for x in xs):
        return dtype_of(xs[0])
    backend = common_backend(tuple(payload(x) for x in xs if payload(x) is not None))
    plain = [x if type(x) in _WEAK else dtype_of(x) for x in xs]
    return backend.xp.result_type(*plain)


_WEAK = frozenset((int, float, complex, bool))


def promoted(*xs: Any) -> tuple:
    """All operands in their common dtype."""
    dtype = common_dtype(*xs)
    return tuple(x if dtype_of(x) == dtype else astype(x, dtype) for x in xs)


def floating(x: Any) -> Any:
    """`x` in a floating dtype, as NumPy's mean and solve make integers."""
    dtype = dtype_of(x)
    if kind(dtype) in "fc":
        return x
    if isinstance(dtype, np.dtype):
        return astype(x, np.float64)
    raise DTypeError(f"an array of dtype {dtype} needs a floating dtype here; cast it first with astype")


def broadcast(x: Any, shape: tuple) -> Any:
    """`x` broadcast to `shape` by explicit linear ops (or natively when plain)."""
    have = shape_of(x)
    if have == shape:
        return x
    if type(x) in _WEAK:
        x = np.asarray(x)
    for op in st.spread_steps(tuple(have), tuple(shape)):
        x = op(x)
    return x


def broadcast_shapes(*shapes: tuple) -> tuple:
    """NumPy's broadcasting of shapes."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        found = " and ".join(str(tuple(s)) for s in shapes)
        raise ShapeError(f"shapes {found} do not broadcast to one shape") from None
