"""Products with second derivatives and their diagonals, without a Hessian."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from typing import Any, cast

from gpujac import ranges, trees
from gpujac.array.reduce import sum as sum_of
from gpujac.backends.choose import backend_of
from gpujac.core.aval import dtype_of, is_differentiable, kind, shape_of
from gpujac.core.trace import Tracer
from gpujac.errors import ArgumentError, DTypeError, ShapeError, StructureError
from gpujac.ops import diagonal as dg
from gpujac.ops import indexing as ix
from gpujac.ops import structure as st
from gpujac.ops.agree import plus
from gpujac.ops.join import concat
from gpujac.program.simplify import simplified
from gpujac.settings import get as setting
from gpujac.transforms import chunking, halving
from gpujac.transforms import flatten as fl
from gpujac.transforms.assemble import Block, Side
from gpujac.transforms.hot import Hot
from gpujac.transforms.jvp import jvp
from gpujac.transforms.sweep import push
from gpujac.transforms.terms import Terms
from gpujac.transforms.vjp import Linearized
from gpujac.transforms.vmap import vmap


def hvp(f: Callable, primals: tuple, tangents: tuple, *, has_aux: bool = False, with_value: bool = False) -> Any:
    """The Hessian of a scalar function times a vector: forward mode over reverse mode.

    Args:
        f: callable of positional pytrees of real arrays that returns one real scalar.
        primals: tuple of pytrees of floating arrays: the point.
        tangents: tuple of pytrees like `primals`: the vector.
        has_aux: `f` returns `(output, aux)`; aux is handed through, without a derivative.
        with_value: also return the output of `f`, from the same run.

    Returns:
        H·tangents as a tuple like `primals`; with has_aux `(Hv, aux)`, with_value `(Hv, y)` or
        `(Hv, (y, aux))`. For many vectors at one point use `linearize(grad(f), *primals)`.

    Raises:
        StructureError, ShapeError: an output that is not one scalar, tangents that do not match.
        DTypeError: complex or integer leaves.

    Cost: one evaluation of `f`, about five times its arithmetic, and memory as `grad`.

    Source: Pearlmutter, Fast exact multiplication by the Hessian (Neural Computation 6, 1994).

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> f = lambda x: x[0] ** 2 * x[1]
        >>> gj.hvp(f, (np.array([1.0, 2.0]),), (np.array([1.0, 0.0]),))
        (array([4., 2.]),)
    """
    point = _point("hvp", f, primals)
    point.tangents("hvp", tangents)
    token = ranges.push("hvp", ranges.TRANSFORM)
    try:
        gradient = _gradient_of("hvp", f, None, has_aux)
        _, product, (y, aux) = jvp(gradient, primals, tangents, has_aux=True)
    finally:
        ranges.pop(token)
    return _with_extras(product, y, aux, has_aux, with_value)


def ggn_vp(model: Callable, loss: Callable, primals: tuple, tangents: tuple, *, has_aux: bool = False,
           with_value: bool = False) -> Any:  # fmt: skip
    """The generalized Gauss-Newton matrix Jᵀ H J of `loss(model(...))` times a vector.

    J is the Jacobian of the model, H the Hessian of the loss with respect to the model's output:
    the Hessian without the model's own curvature, and positive semidefinite for a convex loss.

    Args:
        model: callable of positional pytrees of real arrays; any pytree of real arrays comes out.
        loss: callable of the model's output that returns one real scalar.
        primals: tuple of pytrees of floating arrays: the model's arguments.
        tangents: tuple of pytrees like `primals`: the vector.
        has_aux: `model` returns `(output, aux)`; aux is handed through.
        with_value: also return the loss.

    Returns:
        Jᵀ H J·tangents as a tuple like `primals`; extras as in `hvp`.

    Raises:
        As `hvp`.

    Cost: the model runs once and is swept once each way, the loss as in `hvp`.

    Source: Schraudolph, Fast curvature matrix-vector products (Neural Computation 14, 2002).

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> A = np.array([[1.0, 2.0], [3.0, 4.0]])
        >>> half_square = lambda r: (r**2).sum() / 2
        >>> gj.ggn_vp(lambda x: A @ x, half_square, (np.zeros(2),), (np.array([1.0, 0.0]),))
        (array([10., 14.]),)
    """
    fl.check_callable("ggn_vp", loss)
    ts = _point("ggn_vp", model, primals).tangents("ggn_vp", tangents)
    token = ranges.push("ggn_vp", ranges.TRANSFORM)
    try:
        linear = Linearized("ggn_vp", model, primals, {}, None, has_aux, check=True)
        _check_real("ggn_vp", [(linear.outputs, linear.values)])
        values = linear.owned_values()
        pushed = push(linear.program, fl.lifted(ts, values))
        dzs = [fl.zeros_of(z) if d is None else d for z, d in zip(values, pushed, strict=True)]
        z, dz = (trees.unflatten(linear.outputs.spec, flat) for flat in (values, dzs))
        slope = _gradient_of("ggn_vp", loss, None, False, "the loss (second argument)")
        _, (curved,), (y, _) = jvp(slope, (z,), (dz,), has_aux=True)
        product = linear.point.result(linear.pulled(trees.match(linear.outputs.spec, curved, "ggn_vp")))
    finally:
        ranges.pop(token)
    return _with_extras(product, y, linear.outputs.aux, has_aux, with_value)


def hessian_diagonal(f: Callable, argnums: Any = 0, *, has_aux: bool = False, chunk_size: Any = "auto",
                     memory: Any = None, with_value: bool = False) -> Callable:  # fmt: skip
    """The pure second derivatives ∂²f/∂xᵢ², as a function; exact, and never the n by n matrix.

    Args:
        f: callable of pytrees of real arrays that returns real arrays.
        argnums: which positional arguments to differentiate: an int, or a tuple of ints.
        has_aux: `f` returns `(output, aux)`; aux is handed through, without a derivative.
        chunk_size: basis vectors per sweep: int ≥ 1, None for one pass, or "auto".
        memory: most bytes of one sweep's buffers: an int, "2GB", or None.
        with_value: also return the output of `f`.

    Returns:
        A function of the same arguments. For a scalar `f` the result is like the selected
        argument(s); else it is nested as a Jacobian, leaf shapes output shape + input shape. With
        has_aux `(D, aux)`, with_value `(D, y)` or `(D, (y, aux))`.

    Raises:
        DTypeError: complex or integer leaves. ArgumentError: options out of their sets.

    Cost: a scalar `f` runs once; then n sweeps of its gradient in chunks, one pass where `f` is a
    sum of functions of single entries. Any other `f` runs twice, and once per chunk on all of its
    directions, twice forward: what it draws must come from a key (`gpujac.random`), for a generator
    would give other numbers in each run. Memory is a chunk's, k times n.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> gj.hessian_diagonal(lambda x: (x**3).sum() + x[0] * x[1])(np.array([1.0, 2.0]))
        array([ 6., 12.])
    """
    return _diagonal("hessian_diagonal", f, argnums, has_aux, chunk_size, memory, with_value)


def laplacian(f: Callable, argnums: Any = 0, *, has_aux: bool = False, chunk_size: Any = "auto",
              memory: Any = None, with_value: bool = False) -> Callable:  # fmt: skip
    """The sum of the pure second derivatives Σ ∂²f/∂xᵢ² over all selected arguments, as a function.

    Args:
        f, argnums, has_aux, chunk_size, memory, with_value: as in `hessian_diagonal`.

    Returns:
        A function of the same arguments; the result is like the output of `f`. Extras as in
        `hessian_diagonal`.

    Raises:
        As `hessian_diagonal`.

    Cost: as `hessian_diagonal`.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> harmonic = lambda x: x[0] ** 2 - x[1] ** 2
        >>> float(gj.laplacian(harmonic)(np.array([1.0, 2.0])))
        0.0
    """
    return _diagonal("laplacian", f, argnums, has_aux, chunk_size, memory, with_value)


class _NotScalarError(Exception):
    """The function has several outputs or entries: there is no gradient to differentiate again."""


def _point(what: str, f: Any, primals: Any) -> fl.Point:
    fl.check_callable(what, f)
    point = fl.Point(what, primals)
    if not point.leaves:
        raise ArgumentError(f"{what}: the primals hold no array, so there is nothing to differentiate")
    _check_real(what, [(point, point.leaves)])
    return point


def _check_real(what: str, sides: list) -> None:
    for side, leaves in sides:
        for i, x in enumerate(leaves):
            if kind(dtype_of(x)) == "c":
                raise DTypeError(
                    f"{what}: {side.name(i)} is {dtype_of(x)}; second derivatives are those of real functions of "
                    "real arrays: split it into real and imaginary parts"
                )


def _gradient_of(what: str, f: Callable, argnums: Any, has_aux: bool, who: str = "the function") -> Callable:
    """The function that returns `(gradient, (value, aux))` of a scalar one, under its name; `who` it is in messages."""
    gradient = partial(_gradient, what, who, f, argnums, has_aux)
    return wraps(f, assigned=("__name__",), updated=())(gradient)


def _gradient(what: str, who: str, f: Callable, argnums: Any, has_aux: bool, /, *args: Any,
              **kwargs: Any) -> tuple:  # fmt: skip
    """`(gradient, (value, aux))` of a scalar function."""
    linear = Linearized(what, f, args, kwargs, argnums, has_aux, check=False)
    if what in ("hessian_diagonal", "laplacian") and not _is_scalar(linear):
        raise _NotScalarError
    y = _checked_scalar(what, who, linear)
    gradient = linear.pulled([fl.ones_of(y, linear.point.leaves)])
    return linear.point.result(gradient), (y, linear.outputs.aux)


def _is_scalar(linear: Linearized) -> bool:
    return trees.is_leaf(linear.outputs.spec) and shape_of(linear.values[0]) == ()


def _checked_scalar(what: str, who: str, linear: Linearized) -> Any:
    if not trees.is_leaf(linear.outputs.spec):
        raise StructureError(
            f"{what}: {who} must return one scalar, not {trees.describe(linear.outputs.spec)}; use "
            "has_aux=True for extra results"
        )
    y = linear.values[0]
    if shape_of(y) != ():
        raise ShapeError(
            f"{what}: {who} must return a scalar of shape (), not {tuple(shape_of(y))}; reduce it with .sum()"
        )
    if not is_differentiable(dtype_of(y)):
        raise DTypeError(f"{what}: the output has dtype {dtype_of(y)}, which has no derivative")
    _check_real(what, [(linear.outputs, linear.values)])
    return linear.owned_values()[0]


def _with_extras(result: Any, y: Any, aux: Any, has_aux: bool, with_value: bool) -> Any:
    if with_value:
        return result, ((y, aux) if has_aux else y)
    return (result, aux) if has_aux else result


def _diagonal(what: str, f: Callable, argnums: Any, has_aux: bool, chunk_size: Any, memory: Any,
              with_value: bool) -> Callable:  # fmt: skip
    """The function that both transforms of diagonals return."""
    fl.check_callable(what, f)
    fl.check_argnums(what, argnums)
    chunking.check_chunk_size(what, chunk_size)
    cap = chunking.memory_cap(what, memory)

    @wraps(f, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def diagonal_of(*args: Any, **kwargs: Any) -> Any:
        token = ranges.push(what, ranges.TRANSFORM)
        try:
            point = fl.Point(what, args, argnums)
            if not point.leaves:
                raise ArgumentError(f"{what}: the selected arguments hold no array: there is nothing to differentiate")
            _check_real(what, [(point, point.leaves)])
            most, found = chunking.cap_now(cap), None
            with suppress(_NotScalarError):
                found = _by_gradient(what, f, argnums, has_aux, chunk_size, most, args, kwargs)
            if found is None:  # outside of the `with`: that error holds the first run, and is no context of another
                found = _twice_forward(what, f, args, kwargs, argnums, has_aux, chunk_size, most)
            result, y, aux = found
            return _with_extras(result, y, aux, has_aux, with_value)
        finally:
            ranges.pop(token)

    return diagonal_of


def _by_gradient(what: str, f: Callable, argnums: Any, has_aux: bool, chunk_size: Any, cap: int | None,
                 args: tuple, kwargs: dict) -> tuple:  # fmt: skip
    """Chunks of the basis through the linearized gradient, of which the diagonal is kept."""
    gradient = _gradient_of(what, f, argnums, has_aux)
    linear = Linearized(what, gradient, args, kwargs, argnums, True, check=False)
    y, aux = cast(tuple, linear.outputs.aux)
    side = Side([shape_of(x) for x in linear.point.leaves])
    program, plan = _planned(linear, side, chunk_size, cap)
    kept: list[list] = [[] for _ in side.sizes]

    def work(start: int, stop: int) -> None:
        parts = push(program, _seeds(linear, side, start, stop))
        spans = [(i, *side.overlap(i, start, stop)) for i in range(len(parts))]
        found = [
            (i, _picked(parts[i], side, i, start, first, last, linear.point.leaves[i]))
            for i, first, last in spans if first < last
        ]  # fmt: skip
        for i, piece in found:
            kept[i].append(piece)

    _in_chunks(side.total, plan.chunk_size, work, lambda: None)
    if what == "laplacian":
        total = fl.zeros_of(y)
        for piece in [p for pieces in kept for p in pieces]:
            total = plus(total, sum_of(piece))
        return total, y, aux
    leaves = [_whole(pieces, x) for pieces, x in zip(kept, linear.point.leaves, strict=True)]
    return linear.point.result(leaves), y, aux


def _planned(linear: Linearized, side: Side, chunk_size: Any, cap: int | None) -> tuple[Any, chunking.Plan]:
    """The program to push, fused where that pays, and the chunks."""
    program = linear.plan(True)
    if program is None:  # entries that are merged could not say which operation it was
        program = linear.program if setting("debug_nans") else simplified(linear.program)
    leaves = linear.point.leaves
    traced = any([isinstance(x, Tracer) for x in leaves + linear.values])
    saturation = backend_of(fl.like_among(leaves)).saturation_bytes if leaves else None
    return program, chunking.plan("fwd", program, side.total, chunk_size, "stack", cap, False, traced, saturation)


def _in_chunks(rows: int, size: int | None, work: Callable[[int, int], None], undo: Callable[[], None]) -> None:
    """Call `work(start, stop)` for each chunk; one that runs out of memory is undone and halved."""

    def chunk(index: int, start: int, stop: int) -> None:
        token = ranges.push("chunk", ranges.CHUNK, index)
        try:
            work(start, stop)
        finally:
            ranges.pop(token)

    advice = "gpujac.checkpoint makes what the function keeps smaller"
    halving.in_chunks(rows, size or max(rows, 1), chunk, lambda *_: undo(), lambda: advice)


def _seeds(linear: Linearized, side: Side, start: int, stop: int) -> list:
    """Rows start..stop of the standard basis, one symbolic seed per leaf that they touch."""
    like = fl.like_among(linear.point.leaves)
    seeds: list[Any] = []
    for i, x in enumerate(linear.point.leaves):
        first, last = side.overlap(i, start, stop)
        row = side.starts[i] + first - start
        touched = first < last
        seeds.append(
            Hot(stop - start, row, first, last - first, None, side.shapes[i], dtype_of(x), like) if touched else None
        )
    return seeds


def _picked(part: Any, side: Side, i: int, start: int, first: int, last: int, x: Any) -> Any:
    """Entries first..last of the diagonal of leaf i, from the rows of a chunk that begins at `start`."""
    row, count = side.starts[i] + first - start, last - first
    if part is None:
        like = fl.like_of(x)
        return backend_of(like).zeros((count,), dtype_of(x), like)
    if type(part) is Hot:
        if (part.row, part.start, part.count) == (row, first, count):
            return part.vector()
        part = part.dense()
    elif type(part) is Terms:
        part = part.dense()
    rows, size = part.shape[0], side.sizes[i]
    flat = st.reshape(tuple(part.shape), (rows, size))(part) if tuple(part.shape) != (rows, size) else part
    found = dg.diagonal((rows, size), row, first)(flat)
    extra = found.shape[-1] - count
    # a copy: a view would hold the chunk's rows as long as the result lives
    return fl.private(ix.slice_of((count + extra,), ((0, count, 1),))(found) if extra else found)


def _whole(pieces: list, x: Any) -> Any:
    """The diagonal of one leaf in its shape."""
    shape = tuple(shape_of(x))
    if not pieces:
        return fl.zeros_of(x)
    line = pieces[0] if len(pieces) == 1 else concat(tuple([tuple(p.shape) for p in pieces]), -1)(*pieces)
    found = st.reshape(tuple(line.shape), shape)(line) if tuple(line.shape) != shape else line
    return found[()] if shape == () and not isinstance(found, Tracer) else found


def _twice_forward(what: str, f: Callable, args: tuple, kwargs: dict, argnums: Any, has_aux: bool,
                   chunk_size: Any, cap: int | None) -> tuple:  # fmt: skip
    """Any outputs: each direction twice forward, a chunk of directions at once."""
    linear = Linearized(what, f, args, kwargs, argnums, has_aux, check=True)
    point, outputs, values = linear.point, linear.outputs, linear.owned_values()
    _check_real(what, [(outputs, values)])
    side = Side([shape_of(x) for x in point.leaves])
    # a direction carries two tangents and their product with it
    plan = _planned(linear, side, chunk_size, None if cap is None else cap // 3)[1]

    def plain(*xs: Any) -> Any:
        result = f(*point.args(list(xs)), **kwargs)
        return result[0] if has_aux else result

    like = fl.like_among(point.leaves + values)
    blocks = [[Block(n, tuple(shape_of(y)), dtype_of(y), True, like) for y in values] for n in side.sizes]
    flat = [block for row in blocks for block in row]
    totals = [[fl.zeros_of(y) for y in values]]

    def undo() -> None:
        for block in flat:
            block.undo()

    def work(start: int, stop: int) -> None:
        for block in flat:
            block.begin()
        seeds = _seeds(linear, side, start, stop)
        mapped = tuple([None if s is None else 0 for s in seeds])
        ts = [fl.zeros_of(x) if s is None else s.dense() for s, x in zip(seeds, point.leaves, strict=True)]
        # the lanes are directions at one point: what is drawn by a key is the same in all of them
        rows = vmap(lambda *t: _second(plain, tuple(point.leaves), t), in_dims=mapped, randomness="same")(*ts)
        parts = trees.match(outputs.spec, rows, what)
        if what == "laplacian":
            totals[0] = [plus(total, sum_of(part, 0)) for total, part in zip(totals[0], parts, strict=True)]
            return
        for i, row in enumerate(blocks):
            first, last = side.overlap(i, start, stop)
            for block, part in zip(row, parts, strict=True):
                block.keep(first, last, part, side.starts[i] + first - start, stop - start)

    _in_chunks(side.total, plan.chunk_size, work, undo)
    (y,) = outputs.rebuilt(values)[:1]
    if what == "laplacian":
        return trees.unflatten(outputs.spec, totals[0]), y, outputs.aux
    grid = [[blocks[i][j].result(shape) for i, shape in enumerate(side.shapes)] for j in range(len(values))]
    return trees.unflatten(outputs.spec, [point.result(row) for row in grid]), y, outputs.aux


def _second(f: Callable, xs: tuple, ts: tuple) -> Any:
    """The second derivative of `f` along one direction."""
    return jvp(lambda *ys: jvp(f, ys, ts)[1], xs, ts)[1]
