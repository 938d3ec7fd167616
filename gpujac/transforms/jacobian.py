"""Jacobians: linearize once, then sweep the standard basis chunk by chunk."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from gpujac import ranges, trees
from gpujac.array.common import astype
from gpujac.backends.choose import HOST_TYPES, backend_of
from gpujac.backends.host import SCALARS
from gpujac.core.aval import dtype_of, item_bytes, kind, shape_of
from gpujac.core.trace import Tracer, payload
from gpujac.errors import ArgumentError, ArgumentTypeError, BackendError, DTypeError
from gpujac.ops import structure as st
from gpujac.program.simplify import collapse
from gpujac.settings import get as setting
from gpujac.transforms import chunking, halving
from gpujac.transforms import flatten as fl
from gpujac.transforms.assemble import Block, Side, any_traced
from gpujac.transforms.complex_blocks import in_real_blocks
from gpujac.transforms.holomorphic import check_complex
from gpujac.transforms.hot import Hot
from gpujac.transforms.progress import progress_bar
from gpujac.transforms.sweep import pull, push
from gpujac.transforms.tracebacks import shorten
from gpujac.transforms.vjp import Linearized


class Options:
    """The keyword arguments that all Jacobian functions share, checked when built."""

    __slots__ = ("what", "mode", "argnums", "has_aux", "chunk_size", "assembly", "memory",
                 "with_value", "holomorphic", "progress", "report")  # fmt: skip

    def __init__(self, what: str, mode: str, argnums: Any, has_aux: bool, chunk_size: Any, assembly: str,
                 memory: Any, with_value: bool, holomorphic: bool, progress: bool, report: Any) -> None:  # fmt: skip
        fl.check_argnums(what, argnums)
        if report is not None and not callable(report):
            raise ArgumentTypeError(f"{what}: report={report!r} is a {type(report).__name__}; give a function")
        chunking.check_chunk_size(what, chunk_size)
        chunking.check_assembly(what, assembly)
        self.memory = chunking.memory_cap(what, memory)
        self.what, self.mode, self.argnums, self.has_aux = what, mode, argnums, has_aux
        self.chunk_size, self.assembly, self.with_value = chunk_size, assembly, with_value
        self.holomorphic, self.progress, self.report = holomorphic, progress, report


def _jacobian(f: Callable, options: Options) -> Callable:
    @wraps(f, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        token = ranges.push(options.what, ranges.TRANSFORM)
        try:
            linear = Linearized(options.what, f, args, kwargs, options.argnums, options.has_aux, check=False)
            _check_types(options, linear)
            _check_library(options.what, linear)
            matrix = _Run(options, linear).matrix()
            outputs = linear.outputs
            if not options.with_value:
                return (matrix, outputs.aux) if options.has_aux else matrix
            (y,) = outputs.rebuilt(linear.owned_values())[:1]
            return matrix, ((y, outputs.aux) if options.has_aux else y)
        except Exception as error:  # chunks and sweeps stand between the call and a rule that the user wrote
            shorten(error)
            raise
        finally:
            ranges.pop(token)

    return jacobian_of


def _check_types(options: Options, linear: Linearized) -> None:
    what = options.what
    linear.outputs.check_differentiable(what)
    if not options.holomorphic and not linear.program.complex:
        dtypes = [dtype_of(x) for x in linear.values]
        if not any([kind(d) == "c" for d in dtypes]):
            return
    sides = (linear.point, linear.point.leaves), (linear.outputs, linear.values)
    if options.holomorphic:
        check_complex(what, *sides)
        return
    for side, leaves in sides:
        for i, x in enumerate(leaves):
            dtype = dtype_of(x)
            if kind(dtype) != "c":
                continue
            raise DTypeError(
                f"{what}: {side.name(i)} is {dtype}; the Jacobian of a complex function is ambiguous. Set "
                "holomorphic=True for a holomorphic one, complex_blocks=True for real blocks of any, or split it "
                "into real and imaginary parts"
            )


def _check_library(what: str, linear: Linearized) -> None:
    """Raise where points and outputs are arrays of two libraries: a Jacobian has one."""
    leaves, values = linear.point.leaves, linear.values
    if all([x.__class__ in HOST_TYPES or payload(x).__class__ in HOST_TYPES for x in leaves + values]):
        return
    owners: dict[str, str] = {}
    for side, arrays in ((linear.point, leaves), (linear.outputs, values)):
        for i, x in enumerate(arrays):
            inner = payload(x)
            if inner is not None and inner.__class__ not in SCALARS:
                owners.setdefault(backend_of(inner).name, side.name(i))
    if len(owners) > 1:
        (one, x), (other, y) = list(owners.items())[:2]
        raise BackendError(
            f"{what}: {x} is an array of {one} and {y} one of {other}; the blocks of a Jacobian lie in one "
            "place. Move one over first, as in cupy.asarray(a), or differentiate them in two calls"
        )


_WIDE_BYTES = 16_000  # rows times the widest variable from which merging entries pays


class _Run:
    """One Jacobian: sides, plan, sweeps, blocks."""

    def __init__(self, options: Options, linear: Linearized) -> None:
        self.options, self.linear = options, linear
        self.program = linear.program
        self.fused = False  # whether `program` is one to push, in either mode
        self.scalar = options.mode == "rev" and len(linear.values) == 1 and shape_of(linear.values[0]) == ()
        if self.scalar:
            self.forward, self.plan = False, chunking.ONE_ROW
        else:
            self._choose(options, linear)
        if options.report is not None:
            options.report(self.plan)

    def _choose(self, options: Options, linear: Linearized) -> None:
        """Mode, sides and plan."""
        self.inputs = Side([shape_of(x) for x in linear.point.leaves])
        self.outputs = Side([shape_of(y) for y in linear.values])
        mode = options.mode
        if mode == "auto":
            mode = "fwd" if self.inputs.total <= 1.5 * self.outputs.total else "rev"
        self.forward = mode == "fwd"
        self.rows = self.inputs if self.forward else self.outputs
        self.columns = self.outputs if self.forward else self.inputs
        self.scalar = not self.forward and self.outputs.shapes == [()]
        self.like = fl.like_among(linear.point.leaves + linear.values)
        self.plan = chunking.ONE_ROW if self.scalar else self._planned(mode)

    def _planned(self, mode: str) -> chunking.Plan:
        """Fuse entries, or merge them where the sweep is wide enough, then settle the chunks."""
        options, linear = self.options, self.linear
        rows, ends = self.rows.total, 8 * max(self.rows.total, self.columns.total)
        program = linear.plan(self.forward)
        if program is not None:
            self.program, self.fused = program, True
        elif setting("debug_nans"):
            pass  # one entry for each operation, so that the first one at fault has its name
        elif rows * ends >= _WIDE_BYTES or rows * self.program.widest_bytes() >= _WIDE_BYTES:
            self.program = collapse(self.program)
        if self.program is not linear.program:
            linear.program.entries.clear()  # the new one has all it needs
        traced = any(isinstance(x, Tracer) for x in linear.point.leaves + linear.values)
        direction = "fwd" if self.fused else mode  # a fused program is pushed in either mode
        plan = chunking.plan(
            direction, self.program, self.rows.total, options.chunk_size, options.assembly,
            chunking.cap_now(options.memory), options.report is not None, traced,
            backend_of(self.like).saturation_bytes,
        )
        return plan._replace(mode=mode) if self.fused else plan

    def matrix(self) -> Any:
        """The Jacobian: the tree of outputs outside, the argnums layer, the tree of inputs inside."""
        if self.scalar:
            return self._gradient()
        blocks = self._blocks()
        flat = [b for row in blocks for b in row]
        with progress_bar(self.plan.chunks, self.options) as bar:

            def work(index: int, start: int, stop: int) -> None:
                for block in flat:
                    block.begin()
                token = ranges.push("chunk", ranges.CHUNK, index)
                try:
                    self._chunk(blocks, start, stop)
                finally:
                    ranges.pop(token)
                bar.update(1)

            def halved(index: int, start: int, step: int) -> None:
                for block in flat:
                    block.undo()
                self._plan_again(index, start, step)
                bar.total = self.plan.chunks

            halving.in_chunks(self.rows.total, self.plan.chunk_size or self.rows.total, work, halved, self._advice)
        return self._nested(self._finished(blocks))

    def _plan_again(self, index: int, start: int, step: int) -> None:
        """The plan after the chunk at `start` turned out too large."""
        chunks = index - (-(self.rows.total - start) // step)
        first = self.plan.chunks == 1 and self.options.assembly == "auto"
        assembly = "preallocate" if first else self.plan.assembly
        self.plan = self.plan._replace(chunk_size=step, chunks=chunks, assembly=assembly)
        if self.options.report is not None:
            self.options.report(self.plan)

    def _advice(self) -> str:
        row = self.plan.row_bytes
        if not row and None not in self.program.entries:  # nothing was let go by the sweep
            row = chunking.live_bytes(self.program, not (self.forward or self.fused))
        swept = f"a row needs about {halving.readable(row)} in the sweep, " if row else ""
        size = self.rows.total * self.columns.total * max([item_bytes(b) for b in map(dtype_of, self.linear.values)])
        return (
            f"{swept}the whole result {halving.readable(size)}; "
            "gpujac.checkpoint makes what the function keeps smaller (gpujac.residuals lists it)"
        )

    def _nested(self, grid: list[list]) -> Any:
        """The (output, input) blocks in the trees of both."""
        point, spec = self.linear.point, self.linear.outputs.spec
        if self.options.what == "jacobian":  # the dtype must not depend on the mode
            grid = [[_wide(b, y, x) for b, x in zip(row, point.leaves, strict=True)]
                    for row, y in zip(grid, self.linear.values, strict=True)]  # fmt: skip
        return trees.unflatten(spec, [point.result(row) for row in grid])

    def _gradient(self) -> Any:
        """A scalar function has no basis axis at all."""
        linear = self.linear
        token = ranges.push("chunk", ranges.CHUNK, 0)
        try:
            rows = linear.pulled([fl.ones_of(linear.values[0], linear.point.leaves)])
        finally:
            ranges.pop(token)
        return self._nested([[self._conjugated(r) for r in rows]])

    def _conjugated(self, r: Any) -> Any:
        # the adjoint of a holomorphic function is conj(f')
        return st.CONJ(r) if self.options.holomorphic and not self.forward else r

    def _blocks(self) -> list[list[Block]]:
        columns = self.linear.values if self.forward else self.linear.point.leaves
        return [
            [Block(n, shape, dtype_of(x), self.forward, self.like)
             for shape, x in zip(self.columns.shapes, columns, strict=True)]
            for n in self.rows.sizes
        ]  # fmt: skip

    def _seeds(self, start: int, stop: int) -> list[Any]:
        """Rows start..stop of the standard basis, one (symbolic) seed per leaf they touch."""
        leaves = self.linear.point.leaves if self.forward else self.linear.values
        seeds: list[Any] = []
        for i, (leaf, shape) in enumerate(zip(leaves, self.rows.shapes, strict=True)):
            first, last = self.rows.overlap(i, start, stop)
            if first >= last:
                seeds.append(None)
                continue
            row = self.rows.starts[i] + first - start
            seeds.append(Hot(stop - start, row, first, last - first, None, shape, dtype_of(leaf), self.like))
        return seeds

    def _chunk(self, blocks: list, start: int, stop: int) -> None:
        token = ranges.push("basis", ranges.CHUNK)
        try:
            seeds = self._seeds(start, stop)
        finally:
            ranges.pop(token)
        token = ranges.push("sweep", ranges.REPLAY, stop - start)
        try:
            last = stop == self.rows.total and stop - start == 1  # nothing could be tried again
            parts = self._sweep(seeds, last)
        finally:
            ranges.pop(token)
        token = ranges.push("assemble", ranges.CHUNK)
        try:
            self._store(blocks, parts, start, stop)
        finally:
            ranges.pop(token)

    def _sweep(self, seeds: list, last: bool) -> list:
        if self.plan.chunk_size != 1:
            return self._swept(seeds, last)
        # a plain loop: no batch axis anywhere
        plain = [None if s is None else _without_row(s) for s in seeds]
        return [None if p is None else _with_row(p) for p in self._swept(plain, last)]

    def _swept(self, seeds: list, last: bool) -> list:
        program = self.program
        if self.forward or self.fused:
            return push(program, seeds, last)
        pairs = zip(program.outputs, seeds, strict=True)
        return pull(program, [(v, s) for v, s in pairs if v is not None and s is not None], last)

    def _store(self, blocks: list, parts: list, start: int, stop: int) -> None:
        traced = any_traced(parts) or any(b.parts for row in blocks for b in row)
        write = self.plan.assembly == "preallocate" and not traced
        alone = self.plan.chunks == 1 and not traced  # a diagonal goes straight into its place
        for i, row in enumerate(blocks):
            first, last = self.rows.overlap(i, start, stop)
            if first >= last:
                continue
            offset = self.rows.starts[i] + first - start
            for block, part in zip(row, parts, strict=True):
                if write or (alone and type(part) is Hot):
                    if block.matrix is None:
                        block.allocate()
                    block.write(first, last, part, offset)
                else:
                    block.keep(first, last, part, offset, stop - start)

    def _finished(self, blocks: list) -> list[list]:
        """Blocks as (output, input) rows of arrays."""
        done = [
            [self._conjugated(b.result(shape)) for b in row]
            for row, shape in zip(blocks, self.rows.shapes, strict=True)
        ]
        return [list(column) for column in zip(*done, strict=True)] if self.forward else done


def _wide(block: Any, y: Any, x: Any) -> Any:
    """A block in the result type of output and input."""
    have, want = dtype_of(x), dtype_of(y)
    return block if have == want else astype(block, backend_of(fl.like_of(x)).xp.result_type(have, want))


def _without_row(seed: Hot) -> Any:
    """A basis vector without its leading axis."""
    dense = seed.dense()
    return st.reshape(tuple(dense.shape), seed.shape)(dense)


def _with_row(part: Any) -> Any:
    shape = tuple(shape_of(part))
    return st.reshape(shape, (1, *shape))(part)


def jacrev(f: Callable, argnums: Any = 0, *, has_aux: bool = False, chunk_size: Any = "auto",
           assembly: str = "auto", memory: Any = None, with_value: bool = False, holomorphic: bool = False,
           progress: bool = False, report: Any = None, complex_blocks: bool = False) -> Callable:  # fmt: skip
    """The Jacobian by reverse mode (row by row, in chunks), as a function.

    Args:
        f: callable of pytrees of arrays, returning a pytree of real floating arrays.
        argnums: which positional arguments to differentiate: an int, or a tuple of ints.
        has_aux: `f` returns `(output, aux)`; aux is handed through, without a derivative.
        chunk_size: rows per sweep: int ≥ 1 (1: a plain loop), None for one pass, or "auto".
        assembly: "stack" joins the chunks, "preallocate" writes them into the result, "auto"
            preallocates above one chunk. Equal bit for bit at equal chunk size.
        memory: most bytes of one sweep's buffers: an int, "2GB", or None.
        with_value: also return the output of `f`, from the same run.
        holomorphic: allow complex inputs and outputs of a holomorphic function.
        complex_blocks: complex leaves as pairs (re, im) in a last axis of length 2, any function.
        progress: show a bar over the chunks.
        report: a callable that receives the plan (mode, rows, chunk_size, chunks, assembly).

    Returns:
        A function of the same arguments that returns J, `(J, aux)`, `(J, y)` or `(J, (y, aux))`.
        J has the tree of the output outside, then the argnums layer, then the tree of the
        argument; leaf shapes are output shape + input shape, dtypes those of the inputs.

    Raises:
        DTypeError: integer or complex leaves. ArgumentError: options out of their sets.

    Cost: `f` runs once; one sweep per chunk, in all about m times the cost of `f` for m outputs.
    Memory: the result, the residuals and one chunk's buffers.

    Source: Griewank & Walther, Evaluating Derivatives (2nd edition, 2008), chapter 3, for the
    reverse sweep; the standard basis in chunks as in torch.func.jacrev.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> gj.jacrev(lambda x: np.stack([x[0] * x[1], x[1]]))(np.array([2.0, 3.0]))
        array([[3., 2.],
               [0., 1.]])
    """
    return build("jacrev", "rev", f, argnums, has_aux, chunk_size, assembly, memory, with_value,
                 holomorphic, progress, report, complex_blocks)  # fmt: skip


def jacfwd(f: Callable, argnums: Any = 0, *, has_aux: bool = False, chunk_size: Any = "auto",
           assembly: str = "auto", memory: Any = None, with_value: bool = False, holomorphic: bool = False,
           progress: bool = False, report: Any = None, complex_blocks: bool = False) -> Callable:  # fmt: skip
    """The Jacobian by forward mode (column by column, in chunks), as a function.

    Args:
        f, argnums, has_aux, ...: as in `jacrev`; `chunk_size` counts columns.

    Returns:
        A function of the same arguments. The result is nested as that of `jacrev`; leaf dtypes
        are those of the outputs.

    Raises:
        DTypeError, ArgumentError: as `jacrev`.

    Cost: `f` runs once, so it may branch on values; one sweep per chunk of the n inputs.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> gj.jacfwd(lambda x: np.stack([x[0] * x[1], x[1]]))(np.array([2.0, 3.0]))
        array([[3., 2.],
               [0., 1.]])
    """
    return build("jacfwd", "fwd", f, argnums, has_aux, chunk_size, assembly, memory, with_value,
                 holomorphic, progress, report, complex_blocks)  # fmt: skip


def jacobian(f: Callable, argnums: Any = 0, *, mode: str = "auto", has_aux: bool = False,
             chunk_size: Any = "auto", assembly: str = "auto", memory: Any = None, with_value: bool = False,
             holomorphic: bool = False, progress: bool = False, report: Any = None,
             complex_blocks: bool = False) -> Callable:  # fmt: skip
    """The Jacobian by the cheaper mode: forward if n ≤ 1.5 m, else reverse.

    Args:
        f, argnums, has_aux, ...: as in `jacrev`.
        mode: "auto" picks by the numbers of inputs n and outputs m; "rev" and "fwd" name a mode.

    Returns:
        A function of the same arguments. The result is nested as that of `jacrev`; leaf dtypes
        are the result types of output and input, whatever the mode.

    Raises:
        ArgumentError: an unknown mode; else as `jacrev`.

    Cost: that of the chosen mode.

    Source: the ratio is the one that lineax chooses by.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> gj.jacobian(lambda x: x**2)(np.array([1.0, 2.0]))
        array([[2., 0.],
               [0., 4.]])
    """
    if mode not in ("auto", "rev", "fwd"):
        raise ArgumentError(f'jacobian: mode={mode!r}; choose "auto", "rev" or "fwd"')
    return build("jacobian", mode, f, argnums, has_aux, chunk_size, assembly, memory, with_value,
                 holomorphic, progress, report, complex_blocks)  # fmt: skip


def build(what: str, mode: str, f: Callable, argnums: Any, has_aux: bool, chunk_size: Any, assembly: str,
          memory: Any, with_value: bool, holomorphic: bool, progress: bool, report: Any,
          complex_blocks: bool = False) -> Callable:  # fmt: skip
    """The transform called `what`, its options checked."""
    fl.check_callable(what, f)
    extras = (True, False) if complex_blocks else (has_aux, with_value)
    options = Options(what, mode, argnums, extras[0], chunk_size, assembly, memory, extras[1], holomorphic, progress,
                      report)  # fmt: skip
    if not complex_blocks:
        return _jacobian(f, options)
    return in_real_blocks(what, f, argnums, has_aux, with_value, holomorphic, lambda g: _jacobian(g, options))
