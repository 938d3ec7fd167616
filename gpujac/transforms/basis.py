"""Sweeping the standard basis through a linear program, chunk by chunk, into the blocks of a Jacobian."""

from typing import Any

from gpujac import ranges, trees
from gpujac.array.common import astype
from gpujac.backends.choose import backend_of
from gpujac.core.aval import dtype_of, item_bytes, shape_of
from gpujac.core.trace import Tracer
from gpujac.ops import structure as st
from gpujac.program.simplify import collapse
from gpujac.settings import get as setting
from gpujac.transforms import chunking, halving
from gpujac.transforms import flatten as fl
from gpujac.transforms.assemble import Block, Side, any_traced
from gpujac.transforms.hot import Hot
from gpujac.transforms.options import Options
from gpujac.transforms.progress import progress_bar
from gpujac.transforms.sweep import pull, push
from gpujac.transforms.vjp import Linearized

_WIDE_BYTES = 16_000  # rows times the widest variable from which merging entries pays


class BasisSweep:
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
            options.memory, options.report is not None, traced, backend_of(self.like).saturation_bytes,
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
        swept = None in self.program.entries  # and let go
        row = 0 if swept else chunking.live_bytes(self.program, not (self.forward or self.fused))
        size = self.rows.total * self.columns.total * max([item_bytes(b) for b in map(dtype_of, self.linear.values)])
        return (
            f"a row needs about {halving.readable(row)} in the sweep, the whole result {halving.readable(size)}; "
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
