"""The door of every transform: check arguments, make flat leaves, rebuild results."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from gpujac import trees
from gpujac.array import common as c
from gpujac.array.traced import TracedArray
from gpujac.backends.choose import HOST_TYPES, backend_of, common_backend, is_array
from gpujac.backends.host import PYTHON_SCALARS, SCALARS
from gpujac.backends.memory import is_frozen, keep_freed_memory
from gpujac.core.aval import dtype_of, is_differentiable, kind, shape_of
from gpujac.core.trace import Trace, Tracer, payload
from gpujac.errors import (
    ArgnumsRangeError,
    ArgumentError,
    ArgumentTypeError,
    BackendError,
    ConcretizationError,
    DTypeError,
    MutationError,
    ShapeError,
    StructureError,
)
from gpujac.transforms import cupy_note
from gpujac.transforms.halving import note
from gpujac.transforms.tracebacks import shorten


def name_of(f: Any) -> str:
    """What error messages call the user's function."""
    return getattr(f, "__name__", None) or type(f).__name__


def check_callable(what: str, f: Any) -> None:
    """Raise unless `f` can be called."""
    if not callable(f):
        raise ArgumentTypeError(f"{what}: the first argument must be a function, not {type(f).__name__}")
    keep_freed_memory()


def call(f: Any, args: tuple, kwargs: dict) -> Any:
    """The user's function on traced arguments."""
    try:
        return f(*args, **kwargs)
    except Exception as error:
        told = _explained(error)
        shorten(error)
        try:
            if told is error:
                raise
            raise told.with_traceback(error.__traceback__) from error
        finally:
            del told  # its traceback holds this frame: a circle that would keep the arrays of all its frames


_NUMPYS = "setting an array element"  # "... with a sequence.", what its a[0] = traced raises


def _explained(error: Exception) -> Exception:
    """The error that a user reads in the place of one that left the function: often the same."""
    if isinstance(error, MemoryError):
        note(
            error,
            "out of memory while the function ran; gpujac.checkpoint makes it keep less for its sweep "
            "(gpujac.residuals lists what is kept), and vmap(..., chunk_size=...) runs fewer lanes at once",
        )
        return error
    if isinstance(error, ValueError) and isinstance(error.__cause__, ConcretizationError) and _NUMPYS in str(error):
        return MutationError(  # NumPy's a[0] = traced ends here
            "in-place write of a traced value into a plain NumPy array (a[i] = x): make the "
            "array with np.zeros_like(u), where u is a traced input, or with gpujac.numpy.zeros"
        )
    if isinstance(error, ValueError) and "read-only" in str(error) and is_frozen():
        error.add_note(
            "gpujac: the function wrote into a plain array after using it together with a traced "
            "one. The derivative still needs the old values; use a fresh array or .copy() there."
        )
    return cupy_note.explained(error)


def check_argnums(what: str, argnums: Any) -> None:
    """Raise unless argnums is an int or a non-empty tuple of distinct ints."""
    if isinstance(argnums, (bool, np.bool)) or not isinstance(argnums, (int, np.integer, tuple)):
        raise ArgumentTypeError(
            f"{what}: argnums={argnums!r} is a {type(argnums).__name__}; give an int or a tuple of ints"
        )
    if isinstance(argnums, tuple):
        if not argnums:
            raise ArgumentError(f"{what}: argnums=() is empty; name at least one argument")
        for a in argnums:
            if isinstance(a, (bool, np.bool)) or not isinstance(a, (int, np.integer)):
                raise ArgumentTypeError(f"{what}: argnums={argnums!r}: {a!r} is no int")


def selected(what: str, argnums: Any, args: tuple) -> tuple[int, ...]:
    """Non-negative positions of the selected arguments."""
    wanted = argnums if isinstance(argnums, tuple) else (argnums,)
    n = len(args)
    for a in wanted:
        if not -n <= a < n:
            raise ArgnumsRangeError(
                f"{what}: argnums={argnums} but f got only {n} positional argument{'s' * (n != 1)}; "
                "keyword arguments cannot be selected"
            )
    found = tuple(operator.index(a) % n for a in wanted)
    for i, position in enumerate(found):
        if position in found[:i]:
            raise ArgumentError(f"{what}: argnums={argnums} names argument {position} twice; name each once")
    return found


def check_devices(leaves: list) -> None:
    """Raise unless the arrays among `leaves` are all on the device that launches, and no traced one is dead."""
    arrays = [payload(alive(x)) for x in leaves if x.__class__ not in HOST_TYPES]
    found = [x for x in arrays if x.__class__ not in HOST_TYPES and is_array(x)]
    if found:
        backend_of(found[0]).check_devices(found)


def alive(x: Any) -> Any:
    """`x` itself; raises where it is traced by a transform that has finished."""
    inner = x
    while isinstance(inner, Tracer):
        if not inner.owner.alive:
            raise inner.owner.leaked(inner)
        inner = inner.value
    return x


class Point:
    """The selected arguments as flat leaves, and how to put tracers in their place."""

    __slots__ = ("arguments", "positions", "specs", "leaves", "counts", "single")

    def __init__(self, what: str, args: Any, argnums: Any = None) -> None:
        if not isinstance(args, tuple):
            raise ArgumentTypeError(f"{what}: primals must be a tuple, not {type(args).__name__}; write (x,)")
        self.arguments = args
        self.single = argnums is not None and not isinstance(argnums, tuple)
        self.positions = tuple(range(len(args))) if argnums is None else selected(what, argnums, args)
        self.specs: list = []
        self.leaves: list = []
        self.counts: list[int] = []
        for position in self.positions:
            leaves, spec = trees.flatten(args[position])
            for i, x in enumerate(leaves):
                try:
                    usable = _is_differentiable_leaf(x)
                except DTypeError as error:  # an array of objects, strings or dates
                    path = trees.spec_paths(spec)[i]
                    raise DTypeError(f"{what}: args[{position}]{path}: {error}") from None
                if not usable:
                    raise _bad_leaf(what, args, position, i)
            self.specs.append(spec)
            self.counts.append(len(leaves))
            self.leaves += leaves
        check_devices(self.leaves)

    def args(self, tracers: list, box: Any = None) -> tuple:
        """All positional arguments with tracers at the selected leaves.

        `box` makes the floating arrays of the others constants of the trace, so that arrays made
        like them (`np.zeros_like`) receive traced writes.
        """
        if len(self.arguments) == 1 and self.specs == [trees.LEAF]:  # f(x): the usual call
            return (tracers[0],)
        args = list(self.arguments)
        if box is not None and len(self.positions) < len(args):
            args = [x if i in self.positions else _boxed(x, box) for i, x in enumerate(args)]
        for position, tree in zip(self.positions, self.trees(tracers), strict=True):
            args[position] = tree
        return tuple(args)

    def trees(self, leaves: list) -> list:
        """Flat leaves as one tree per selected argument."""
        out, start = [], 0
        for spec, n in zip(self.specs, self.counts, strict=True):
            out.append(trees.unflatten(spec, leaves[start : start + n]))
            start += n
        return out

    def result(self, leaves: list) -> Any:
        """Flat leaves as a result: bare for an int argnums, a tuple otherwise."""
        if self.single and self.specs[0] is trees.LEAF:
            return leaves[0]
        parts = self.trees(leaves)
        return parts[0] if self.single else tuple(parts)

    def name(self, leaf: int) -> str:
        """What messages call a leaf: `args[0]['w']`."""
        for position, spec, n in zip(self.positions, self.specs, self.counts, strict=True):
            if leaf < n:
                return f"args[{position}]{trees.spec_paths(spec)[leaf]}"
            leaf -= n
        raise IndexError(leaf)

    def tangents(self, what: str, tangents: Any) -> list:
        """Flat tangents, checked against the primals and cast to their dtypes."""
        if not isinstance(tangents, tuple):
            raise ArgumentTypeError(
                f"{what}: tangents must be a tuple, not {type(tangents).__name__}; write (t,)"
            )
        if len(tangents) != len(self.specs):
            raise StructureError(
                f"{what}: {len(tangents)} tangents for {len(self.specs)} primals; give one per primal"
            )
        flat: list = []
        start = 0
        for i, (spec, n, t) in enumerate(zip(self.specs, self.counts, tangents, strict=True)):
            found = trees.match(spec, t, f"{what}: tangents[{i}]")
            names = (f"tangents[{i}]", f"args[{i}]")
            flat += matched(what, names, spec, found, self.leaves[start : start + n])
            start += n
        return flat


def _boxed(tree: Any, box: Any) -> Any:
    leaves, spec = trees.flatten(tree)
    made = [box(x) if type(x) is np.ndarray and x.ndim and x.dtype.kind in "fc" else x for x in leaves]
    return trees.unflatten(spec, made) if any(a is not b for a, b in zip(made, leaves)) else tree


def _is_differentiable_leaf(x: Any) -> bool:
    if isinstance(x, Tracer):
        return is_differentiable(x.dtype)
    return type(x) not in (int, bool) and is_array(x) and is_differentiable(dtype_of(x))


_WITHOUT_ARGNUMS = ("vjp", "jvp", "linearize", "linear_transpose", "hvp", "ggn_vp")


def _bad_leaf(what: str, args: tuple, position: int, leaf: int) -> Exception:
    tree = args[position]
    path = f"args[{position}]{trees.flatten_paths(tree)[leaf]}"
    x = trees.flatten(tree)[0][leaf]
    if what in _WITHOUT_ARGNUMS:  # every positional argument is differentiated
        cure = "keep it out of the primals, as in lambda u: f(u, p)"
    else:
        cure = "leave it out of argnums (a keyword argument passes untouched)"
    if not isinstance(x, Tracer) and not is_array(x):
        return ArgumentTypeError(f"{what}: {path} is a {type(x).__name__}, not an array or a number; {cure}")
    return DTypeError(
        f"{what}: {path} has dtype {dtype_of(x)}: integers and booleans carry no derivative; "
        f"convert it to a floating dtype or {cure}"
    )


def matched(what: str, names: tuple[str, str], spec: trees.Spec, flat: list, leaves: list,
            like: Any = None) -> list:  # fmt: skip
    """Tangents or cotangents in the shapes and dtypes of `leaves`; `like` where those are no arrays.

    `names` and `spec` say what the two trees are called in messages, and where each leaf stands.
    """
    done = []
    for i, (t, x) in enumerate(zip(flat, leaves, strict=True)):
        if isinstance(t, Tracer):
            alive(t)
        elif not is_array(t):
            path = trees.spec_paths(spec)[i]
            raise ArgumentTypeError(
                f"{what}: {names[0]}{path} is a {type(t).__name__}, not an array or a number"
            )
        complex_for_real = kind(dtype_of(t)) == "c" and kind(dtype_of(x)) != "c"
        if shape_of(t) != shape_of(x) or complex_for_real:
            raise _mismatch(what, names, trees.spec_paths(spec)[i], t, x)
        reference = x if like is None else like
        if t.__class__ not in HOST_TYPES or reference.__class__ not in HOST_TYPES:
            _check_library(t, reference, lambda i=i: f"{what}: {names[0]}{trees.spec_paths(spec)[i]}")
        done.append(_cast(t, x, like))
    return done


def _check_library(t: Any, x: Any, name: Callable) -> None:
    """Raise unless `t`, called `name()`, is of the library and on the device of `x` or a number."""
    arrays = tuple([v for v in (payload(t), payload(x)) if v is not None])
    try:
        common_backend(arrays)
    except BackendError as error:
        raise BackendError(f"{name()}: {error}") from None


def _mismatch(what: str, names: tuple[str, str], path: str, t: Any, x: Any) -> Exception:
    """The error for a tangent or cotangent that does not fit its array."""
    given, reference = (name + path for name in names)
    if shape_of(t) != shape_of(x):
        return ShapeError(
            f"{what}: {given} has shape {tuple(shape_of(t))}, but {reference} has "
            f"{tuple(shape_of(x))}; shapes must match exactly"
        )
    return DTypeError(
        f"{what}: {given} is {dtype_of(t)}, but {reference} is {dtype_of(x)}; take its real part"
    )


def _cast(t: Any, x: Any, like: Any) -> Any:
    """A tangent or cotangent in the dtype of `x`."""
    have, want = dtype_of(t), dtype_of(x)
    if have == want and (type(t) not in PYTHON_SCALARS or type(x) in PYTHON_SCALARS):
        return t
    if type(t) in PYTHON_SCALARS:
        like = like_of(x) if like is None else like
        return backend_of(like).asarray(t, want, like)[()]
    return c.astype(t, want)


class Outputs:
    """What the function returned, flat, with aux split off and unwrapped."""

    __slots__ = ("leaves", "spec", "aux", "has_aux")

    def __init__(self, what: str, result: Any, has_aux: bool, trace: Trace,
                 own: Callable = lambda y: y) -> None:  # fmt: skip
        """`own` copies a value of aux where it could share memory with something."""
        self.has_aux = has_aux
        self.aux = None
        if has_aux:
            if not isinstance(result, tuple) or len(result) != 2:
                found = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
                raise StructureError(
                    f"{what}: with has_aux=True the function must return a tuple (output, aux), not {found}"
                )
            result, aux = result
            self.aux = trees.map(lambda x: _handed(x, own) if belongs(x, trace) else x, aux)
        self.leaves, self.spec = trees.flatten(result)
        if not self.leaves:
            raise StructureError(
                f"{what}: the function returned {result!r}, which holds no array; did it forget to return?"
            )
        for i, y in enumerate(self.leaves):
            if isinstance(y, Tracer):
                alive(y)
            elif not is_array(y):
                raise ArgumentTypeError(
                    f"{what}: {self.name(i)} is a {type(y).__name__}, not an array or a number; "
                    "return extra results through has_aux=True"
                )

    def name(self, leaf: int) -> str:
        """What messages call a leaf: `output['w']`."""
        return f"output{trees.spec_paths(self.spec)[leaf]}"

    def check_differentiable(self, what: str) -> None:
        """Raise for integer and boolean outputs."""
        for i, y in enumerate(self.leaves):
            if not is_differentiable(dtype_of(y)):
                raise DTypeError(
                    f"{what}: {self.name(i)} has dtype {dtype_of(y)}: outputs must be floating-point "
                    "or complex; return it through has_aux=True"
                )

    def rebuilt(self, *flats: list) -> tuple:
        """One tree per flat list, and aux behind them where there is one."""
        parts = tuple(trees.unflatten(self.spec, flat) for flat in flats)
        return (*parts, self.aux) if self.has_aux else parts


def _handed(x: Any, own: Callable) -> Any:
    """A traced value of aux as an array of its own; a constant may be the very array of the caller's."""
    return owned(x.value, [], False) if x.aux is None else own(x.value)


def belongs(x: Any, trace: Trace) -> bool:
    """Whether `x` is a tracer of `trace`."""
    return isinstance(x, Tracer) and x.owner is trace


def owned(y: Any, others: list, traced: bool = True) -> Any:
    """`y` as a C-contiguous array that shares no memory with `others` or constants."""
    if type(y) is np.ndarray:
        shares = y.base is not None or not y.flags.c_contiguous or not traced
        if shares or any(y is x for x in others):
            return y.copy()
        return y
    if isinstance(y, Tracer):
        y.mark()
        return y
    if type(y) in HOST_TYPES or not is_array(y):
        return y
    be = backend_of(y)
    whole = traced and be.is_whole(y) and not any(y is x for x in others)
    return y if whole else be.copy(y)


def owned_all(ys: list, others: list) -> list:
    """Each of `ys` as `owned` makes it, and no two of them the same array."""
    taken = {id(x) for x in others}
    done = []
    for y in ys:
        y = owned(y, [y] if id(y) in taken else [])
        taken.add(id(y))
        done.append(y)
    return done


def private(x: Any) -> Any:
    """A copy that no write of the user's reaches; Python numbers as they are."""
    if isinstance(x, TracedArray):
        return x.detached()
    return x if type(x) in PYTHON_SCALARS else backend_of(x).copy(x)


def like_of(x: Any) -> Any:
    """The innermost array of `x`, for its library and device; NumPy's where it has no value."""
    found = payload(x)
    return np.zeros(()) if found is None else found


def like_among(xs: list) -> Any:
    """The innermost array that tells the library and device of all of `xs`: numbers mix with every one."""
    for x in xs:
        found = payload(x)
        if found is not None and found.__class__ not in SCALARS:
            return found
    return like_of(xs[0])


def array_of(x: Any, others: list) -> Any:
    """A number as a 0-d array of the library and device of `others`; an array as it is."""
    if type(x) not in SCALARS or not others:
        return np.asarray(x) if type(x) in SCALARS else x
    like = like_among(others)
    return backend_of(like).asarray(x, None, like)


def lifted(ts: list, others: list) -> list:
    """Numbers among `ts` as arrays of the device that `others` are on; on the CPU they stay numbers."""
    if not any([t.__class__ in SCALARS for t in ts]) or like_among(others).__class__ in HOST_TYPES:
        return ts
    return [array_of(t, others) for t in ts]


def zeros_of(x: Any) -> Any:
    """Zeros like `x`."""
    like = like_of(x)
    zeros = backend_of(like).zeros(tuple(shape_of(x)), dtype_of(x), like)
    return zeros if shape_of(x) or not isinstance(zeros, np.ndarray) else zeros[()]


def ones_of(x: Any, others: list) -> Any:
    """A one like the 0-d `x`, in its dtype; in the library of `others` where `x` has no value."""
    like = payload(x)
    like = like_among(others) if like is None else like
    if type(like) is float:
        return 1.0
    return backend_of(like).asarray(1, dtype_of(x), like)[()]
