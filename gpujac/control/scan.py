"""Loops over the leading axis: scan, which carries a state, and map, which does not."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpujac import trees
from gpujac.array.shape import stack
from gpujac.backends.choose import backend_of, is_array
from gpujac.backends.host import SCALARS
from gpujac.control import masks
from gpujac.control.carry import Carry
from gpujac.core.aval import dtype_of, shape_of
from gpujac.core.trace import Tracer
from gpujac.errors import ArgumentError, ArgumentTypeError, ShapeError, StructureError
from gpujac.ops import indexing as ix
from gpujac.transforms import flatten as fl
from gpujac.transforms.vmap import vmap


def scan(f: Callable, init: Any, xs: Any = None, length: int | None = None, reverse: bool = False) -> tuple:
    """A state carried along the leading axis of `xs`, and what each step gave, stacked.

    Args:
        f: callable of the state and one slice of `xs`; returns `(next state, y)`.
        init: pytree of arrays and numbers: the first state.
        xs: pytree of arrays (n, ...) with one leading size n, or None.
        length: the number of steps; needed only where `xs` holds no array.
        reverse: run from the last slice to the first; `ys` keep the order of `xs`.

    Returns:
        `(last state, ys)`: each leaf of `ys` is (n, ...), stacked once at the end. With n = 0 `f`
        runs once, on zeros, to learn the shapes of `ys`.

    Raises:
        ShapeError: leading sizes that differ from each other or from `length`, or a step that
        changes a shape. StructureError: `f` returns no pair, or a step changes a structure.

    Cost: n runs of `f`; reading the slices and stacking `ys` is linear in n, derivatives included.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> gj.scan(lambda s, x: (s + x, s * x), 0.0, np.array([1.0, 2.0, 3.0]))
        (np.float64(6.0), array([0., 2., 9.]))
    """
    masks.check_function("scan", "f", f)
    leaves, spec = trees.flatten(xs)
    n = _length("scan", leaves, spec, length)
    carry = Carry("scan", init)

    def step(i: int) -> Any:
        out = f(carry.tree(), trees.unflatten(spec, [entry(x, i) for x in leaves]))
        if not isinstance(out, tuple) or len(out) != 2:
            found = f"a tuple of {len(out)}" if isinstance(out, tuple) else type(out).__name__
            raise StructureError(f"scan: f must return a tuple (carry, y), not {found}")
        carry.replace(out[0])
        return trees.map(lambda y: _apart(y, carry.leaves), out[1])

    if n:
        ys = _stacked("scan", step, n, bool(reverse))
        return carry.tree(), ys
    ys = _without_steps("scan", lambda: f(carry.tree(), _zeros(leaves, spec)), True)
    return Carry("scan", init).tree(), ys


def map(f: Callable, xs: Any, *, batch_size: int | None = None) -> Any:
    """`f` of every slice along the leading axis of `xs`, stacked.

    Args:
        f: callable of one slice.
        xs: pytree of arrays (n, ...) with one leading size n.
        batch_size: how many slices run at once, by vmap; None runs one after the other, on plain
            values, so that `f` may branch on them.

    Returns:
        The tree of the results, each leaf (n, ...). With n = 0 `f` runs once, on zeros.

    Raises:
        ShapeError: leading sizes or results that differ. ArgumentError, ArgumentTypeError: the
        batch size.

    Cost: n runs of `f`, or n / batch_size; with batch_size=k memory for k slices at a time.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> gj.control.map(lambda x: x @ x, np.arange(6.0).reshape(3, 2), batch_size=2)
        array([ 1., 13., 41.])
    """
    masks.check_function("map", "f", f)
    leaves, spec = trees.flatten(xs)
    n = _length("map", leaves, spec, None)
    if batch_size is not None:
        return fl.call(vmap(f, chunk_size=_batch_size(batch_size)), (xs,), {})
    if n:
        return _stacked("map", lambda i: f(trees.unflatten(spec, [entry(x, i) for x in leaves])), n, False)
    return _without_steps("map", lambda: f(_zeros(leaves, spec)), False)


def _batch_size(size: Any) -> int:
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
        raise ArgumentTypeError(f"map: batch_size={size!r} is a {type(size).__name__}; give an int or None")
    if size < 1:
        raise ArgumentError(f"map: batch_size={size} must be at least 1, or None")
    return int(size)


def entry(x: Any, i: int) -> Any:
    """`x[i]` along the first axis, for the user's function to write into: it shares no memory with `x`."""
    if not isinstance(x, Tracer):
        return masks.copied(x[i, ...])
    src = tuple(x.shape)
    return ix.slice_of(src, (i, *((0, n, 1) for n in src[1:])))(x)


def _apart(y: Any, state: list) -> Any:
    """A result of a step as it is now: the next step may write into its state, which `y` may be a part of."""
    if isinstance(y, Tracer):
        return masks.copied(y)
    if y.__class__ in SCALARS or not is_array(y):
        return y
    be = backend_of(y)
    same = [x is y or (x.__class__ is y.__class__ and be.shares_memory(x, y)) for x in state]
    return masks.copied(y) if any(same) else y


def _length(what: str, leaves: list, spec: trees.Spec, length: Any) -> int:
    """The number of steps, from the arrays and from what was asked."""
    sizes: dict[int, str] = {}
    paths = trees.spec_paths(spec)
    for x, path in zip(leaves, paths, strict=True):
        if not isinstance(x, Tracer) and not is_array(x):
            raise ArgumentTypeError(f"{what}: xs{path} is a {type(x).__name__}, not an array")
        if shape_of(x) == ():
            raise ShapeError(f"{what}: xs{path} has shape (), but every array of xs needs a leading axis to run over")
        sizes.setdefault(shape_of(x)[0], f"xs{path}")
    if length is not None:
        if isinstance(length, bool) or not isinstance(length, (int, np.integer)):
            raise ArgumentTypeError(f"{what}: length={length!r} is a {type(length).__name__}; give an int")
        if length < 0:
            raise ArgumentError(f"{what}: length={length} must be at least 0")
        sizes.setdefault(int(length), "length")
    if len(sizes) > 1:
        found = ", ".join(f"{n} in {path}" for n, path in sizes.items())
        raise ShapeError(f"{what}: leading axes must have the same size, found {found}")
    if not sizes:
        cure = "; give length=" if what == "scan" else ""
        raise ArgumentError(f"{what}: xs holds no array, so the number of steps is unknown{cure}")
    return next(iter(sizes))


def _stacked(what: str, step: Callable[[int], Any], n: int, reverse: bool) -> Any:
    """The results of the steps, each leaf stacked once; the steps run backwards on request."""
    spec: Any = None
    rows: list[list] = []
    for i in range(n - 1, -1, -1) if reverse else range(n):
        y = step(i)
        if spec is None:
            leaves, spec = trees.flatten(y)
        else:
            leaves = trees.match(spec, y, f"{what}: the result of step {i}")
        rows.append(leaves)
    if reverse:
        rows.reverse()
    paths = trees.spec_paths(spec)
    columns = [[row[k] for row in rows] for k in range(len(paths))]
    return trees.unflatten(spec, [_joined(what, *pair) for pair in zip(columns, paths, strict=True)])


def _joined(what: str, column: list, path: str) -> Any:
    for i, y in enumerate(column):
        if not isinstance(y, Tracer) and not is_array(y):
            raise ArgumentTypeError(f"{what}: the result{path} of step {i} is a {type(y).__name__}, not an array")
        if shape_of(y) != shape_of(column[0]):
            raise ShapeError(
                f"{what}: the result{path} has shape {tuple(shape_of(column[0]))} in step 0 and "
                f"{tuple(shape_of(y))} in step {i}; every step must return the same"
            )
    if any([isinstance(y, Tracer) for y in column]):
        return stack(column, 0)
    arrays = [fl.array_of(y, column) for y in column]
    return backend_of(arrays[0]).xp.stack(arrays)


def _zeros(leaves: list, spec: trees.Spec) -> Any:
    """Zeros in the place of one slice."""
    made = []
    for x in leaves:
        like = fl.like_of(x)
        made.append(backend_of(like).zeros(tuple(shape_of(x)[1:]), dtype_of(x), like))
    return trees.unflatten(spec, made)


def _without_steps(what: str, probe: Callable[[], Any], pair: bool) -> Any:
    """Results of no steps: those of one on zeros tell structure, shapes and dtypes."""
    try:
        with np.errstate(all="ignore"):
            out = probe()
    except Exception as error:
        error.add_note(f"gpujac: {what} over nothing runs f once, on zeros, to learn the shapes of its results.")
        raise
    if pair and (not isinstance(out, tuple) or len(out) != 2):
        raise StructureError(f"{what}: f must return a tuple (carry, y)")
    leaves, spec = trees.flatten(out[1] if pair else out)
    empty = []
    for y in leaves:
        like = fl.like_of(y)
        empty.append(backend_of(like).zeros((0, *shape_of(y)), dtype_of(y), like))
    return trees.unflatten(spec, empty)
