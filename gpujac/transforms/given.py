"""Memory that a caller gives for a Jacobian: what must hold of it before the function runs, and after."""

import os
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gpujac import trees
from gpujac.backends.choose import backend_of, is_array
from gpujac.backends.host import HOST
from gpujac.core.aval import dtype_of, shape_of
from gpujac.core.trace import Tracer, payload
from gpujac.errors import ArgumentError, ArgumentTypeError, BackendError, DTypeError, MutationError, ShapeError
from gpujac.program.kept import arrays_of
from gpujac.transforms import flatten as fl


@runtime_checkable
class Writable(Protocol):
    """What `out=` needs of an object: a shape, a dtype, and slices of it that can be written."""

    shape: Any
    dtype: Any

    def __setitem__(self, key: Any, value: Any, /) -> None:
        """Write `value` at a tuple of slices, one for each axis or for the leading ones."""


@runtime_checkable
class Readable(Protocol):
    """What a record of rows needs besides: slices that can be read back."""

    def __getitem__(self, key: Any, /) -> Any:
        """The values at a tuple of slices."""


def is_traced(x: Any) -> bool:
    """Whether a value belongs to an outer transform."""
    return isinstance(x, Tracer)


def is_on_host(what: str, out: Any) -> bool:
    """Whether the arrays of `out` are filled from the host; raises where only some are."""
    places = {not is_array(x) or backend_of(x) is HOST for x in trees.flatten(out)[0]}
    if len(places) > 1:
        raise BackendError(f"{what}: out has arrays of the host and of a device; give all of them in one place")
    return places != {False}


def is_given(out: Any) -> bool:
    """Whether `out` stands for memory of the caller's."""
    return out is not None and not isinstance(out, str)


def check_option(what: str, out: Any, resume: Any, assembly: Any) -> None:
    """Raise unless `out`, `resume` and `assembly` fit together; checked when a transform is built."""
    if isinstance(out, str) and out != "host":
        raise ArgumentError(f'{what}: out={out!r}; give "host", an array to write into (or a tree of them), or None')
    if out is not None and assembly == "stack":
        raise ArgumentError(
            f'{what}: assembly="stack" keeps a second copy of the result, which out= is there to avoid; leave one out'
        )
    if resume is None:
        return
    if not is_given(out):
        raise ArgumentError(
            f"{what}: resume={resume!r} with out={out!r}: rows that are done can only be found in memory "
            "that is given; pass the array that was out= before"
        )
    if isinstance(resume, bool) or not isinstance(resume, (int, np.integer, str, os.PathLike)):
        raise ArgumentTypeError(
            f"{what}: resume={resume!r} is a {type(resume).__name__}; give the first row to compute (an int) or "
            "the path of a record"
        )
    if isinstance(resume, (int, np.integer)) and resume < 0:
        raise ArgumentError(f"{what}: resume={resume} must be a row, so at least 0")


def check_before(what: str, out: Any, resume: Any, argnums: Any, args: tuple, kwargs: dict) -> None:
    """Raise where arrays of `out` cannot take any Jacobian at these arguments; the function has not run."""
    found, spec = trees.flatten(out)
    names = [f"out{path}" for path in trees.spec_paths(spec)]
    for name, x in zip(names, found, strict=True):
        _check_writable(what, name, x)
        if isinstance(resume, (str, os.PathLike)) and not isinstance(x, Readable):
            raise ArgumentTypeError(
                f"{what}: resume={str(resume)!r} needs rows to be read back, but {name} is a {type(x).__name__}, "
                "which has no slices to read; give resume= as a number"
            )
    inputs = [x for p in fl.selected(what, argnums, args) for x in trees.flatten(args[p])[0]]
    check_untraced(what, any([is_traced(x) for x in inputs]))
    others = [payload(x) if isinstance(x, Tracer) else x for x in trees.flatten((args, kwargs))[0]]
    _check_apart(what, names, found, [x for x in others if is_array(x)], "an argument")
    for k, (name, x) in enumerate(zip(names, found, strict=True)):
        _check_apart(what, [name], [x], found[:k], "another array of out")
        _check_end(what, name, x, [tuple(shape_of(a)) for a in inputs])


def _check_writable(what: str, name: str, x: Any) -> None:
    if isinstance(x, Tracer):
        raise MutationError(f"{what}: {name} is traced; give a plain array, made outside of the transform")
    if not isinstance(x, Writable):
        raise ArgumentTypeError(
            f"{what}: {name} is a {type(x).__name__}; give an array to write into, anything with shape, dtype and "
            "assignment to slices, or a tree of them like the result"
        )
    if isinstance(x, np.ndarray) and not x.flags.writeable:
        raise ArgumentError(
            f"{what}: {name} is read-only; open a memmap with mode='r+' or 'w+', or give a writable array"
        )


def check_untraced(what: str, traced: bool) -> None:
    """Raise where rows belong to an outer transform: they cannot be written into a plain array."""
    if traced:
        raise MutationError(
            f"{what}: out= was given, but another transform (grad, vmap, jvp, ...) traces this Jacobian, and "
            "traced rows cannot be written into a plain array; leave out= away here, and give it to the outermost one"
        )


def _check_apart(what: str, names: list[str], found: list, others: list, called: str) -> None:
    """Raise where an array of `out` shares memory with one of `others`."""
    for name, x in zip(names, found, strict=True):
        for other in others:
            if x is other or _overlap(x, other):
                raise ArgumentError(
                    f"{what}: {name}, shape {tuple(x.shape)}, shares memory with {called}, shape "
                    f"{tuple(shape_of(other))}; rows written there would change it: give memory of its own"
                )


def _overlap(x: Any, other: Any) -> bool:
    if not (is_array(x) and is_array(other)) or not (shape_of(x) and shape_of(other)):
        return False
    be = backend_of(x)
    tells = be is HOST or be.saturation_bytes is not None  # other libraries do not say where arrays lie
    return tells and be is backend_of(other) and be.shares_memory(x, other)


def _check_end(what: str, name: str, x: Any, ends: list[tuple]) -> None:
    """Raise where the last axes of an array of `out` are those of no argument."""
    shape = tuple(x.shape)
    if not any([len(shape) >= len(end) and shape[len(shape) - len(end) :] == end for end in ends]):
        found = ", ".join([str(end) for end in dict.fromkeys(ends)])
        raise ShapeError(
            f"{what}: {name} has shape {shape}, but the arguments have {found}; a block of the Jacobian has the "
            "shape of the output and then that of the argument"
        )


def matched(what: str, out: Any, linear: Any, dtypes: list[list], like: Any) -> list[list]:
    """The arrays of `out` by (output, input), checked against the blocks of the library of `like`."""
    point, width = linear.point, len(linear.point.leaves)
    numbers = [point.result(list(range(i * width, (i + 1) * width))) for i in range(len(linear.values))]
    order, spec = trees.flatten(trees.unflatten(linear.outputs.spec, numbers))
    found = dict(zip(order, trees.match(spec, out, f"{what}: out"), strict=True))
    names = dict(zip(order, trees.spec_paths(spec), strict=True))
    for k, x in found.items():
        i, j = divmod(k, width)
        shape = (*shape_of(linear.values[i]), *shape_of(point.leaves[j]))
        _check_library(what, x, like)
        _check_block(what, f"out{names[k]}", x, shape, dtypes[i][j])
    constants = [x for entry in linear.program.entries for x in arrays_of(entry)]
    _check_apart(what, [f"out{names[k]}" for k in found], list(found.values()), constants, "an array that f reads")
    return [[found[i * width + j] for j in range(width)] for i in range(len(linear.values))]


def _check_block(what: str, name: str, x: Any, shape: tuple, dtype: Any) -> None:
    if tuple(x.shape) != shape:
        raise ShapeError(
            f"{what}: {name} has shape {tuple(x.shape)}, but the block of the Jacobian has {shape}: the shape of "
            "the output and then that of the argument"
        )
    if x.dtype != dtype:
        raise DTypeError(f"{what}: {name} has dtype {x.dtype}, but the block of the Jacobian is {dtype}")


def _check_library(what: str, x: Any, like: Any) -> None:
    """Raise where rows of the library of `like` cannot be written into `x`."""
    if not is_array(x) or backend_of(x) is HOST:
        if backend_of(like) is not HOST and backend_of(like).saturation_bytes is None:
            raise BackendError(
                f"{what}: out is a {type(x).__name__}, but the Jacobian is one of {backend_of(like).name}; give an "
                "array of that library"
            )
        return
    if backend_of(x) is not backend_of(like):
        raise BackendError(
            f"{what}: out is an array of {backend_of(x).name}, but the Jacobian is one of {backend_of(like).name}; "
            "give the arguments as arrays of the same library, or a NumPy array as out"
        )
    backend_of(x).check_devices([x, like])


def block_dtype(what: str, forward: bool, y: Any, x: Any) -> Any:
    """The dtype of one block: the input's in reverse, the output's forward, for `jacobian` that of both."""
    mine, other = (dtype_of(y), dtype_of(x)) if forward else (dtype_of(x), dtype_of(y))
    if what != "jacobian" or mine == other:
        return mine
    return backend_of(fl.like_of(x)).xp.result_type(mine, other)
