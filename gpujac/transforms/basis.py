"""Sweeping the standard basis through a linear program, chunk by chunk, into the blocks of a Jacobian."""

from typing import Any

from gpujac import ranges, trees
from gpujac.array.common import astype
from gpujac.backends.choose import backend_of
from gpujac.backends.host import HOST
from gpujac.core.aval import dtype_of, item_bytes, shape_of
from gpujac.core.trace import Tracer
from gpujac.ops import structure as st
from gpujac.program.simplify import simplified
from gpujac.settings import get as setting
from gpujac.transforms import chunking, halving, terms
from gpujac.transforms import flatten as fl
from gpujac.transforms.assemble import Grid, Side
from gpujac.transforms.destination import begun, left, sink_for
from gpujac.transforms.given import is_given
from gpujac.transforms.hot import Hot, TooWideError
from gpujac.transforms.options import Options
from gpujac.transforms.planned import PlannedSweep, reason_against
from gpujac.transforms.progress import progress_bar
from gpujac.transforms.sink import Sink
from gpujac.transforms.sweep import pull, push
from gpujac.transforms.terms import STRUCTURED
from gpujac.transforms.transposing import transposed
from gpujac.transforms.vjp import Linearized

_WIDE_BYTES = 16_000  # rows times the widest variable from which merging entries pays


class BasisSweep:
    """One Jacobian: sides, plan, sweeps, blocks."""

    def __init__(self, options: Options, linear: Linearized) -> None:
        self.options, self.linear = options, linear
        self.program = linear.program
        self.fused = False  # whether `program` is one to push, in either mode
        self.steps: PlannedSweep | None = None
        self.widest = 0  # rows of the largest chunk that went through
        self.sink: Sink | None = None
        self.scalar = options.mode == "rev" and len(linear.values) == 1 and shape_of(linear.values[0]) == ()
        if self.scalar and options.out is None:
            self.forward, self.plan = False, chunking.ONE_ROW
        else:
            self._choose(options, linear)
        if options.report is not None:
            if self.scalar:
                self.plan = self.plan._replace(row_bytes=chunking.live_bytes(linear.program, True))
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
        if options.out is not None:  # before the program is fused, and its constants with it
            self.sink = sink_for(options, linear, self.rows, self.columns, self.forward, self.like)
        self.plan = chunking.ONE_ROW if self.scalar else self._planned(mode)
        if self.sink is not None:
            self.plan = begun(self.sink, options, linear, self.plan)

    def _planned(self, mode: str, structured: bool = True) -> chunking.Plan:
        """Fuse entries, or merge them where the sweep is wide enough, then settle the chunks."""
        options, linear = self.options, self.linear
        rows, ends = self.rows.total, 8 * max(self.rows.total, self.columns.total)
        program = linear.plan(self.forward)
        if program is not None:
            self.program, self.fused = program, True
        elif setting("debug_nans"):
            pass  # one entry for each operation, so that the first one at fault has its name
        elif rows * ends >= _WIDE_BYTES or rows * self.program.widest_bytes() >= _WIDE_BYTES:
            self.program = simplified(self.program)
        if self.program is not linear.program:
            linear.program.entries.clear()  # the new one has all it needs
        traced = any(isinstance(x, Tracer) for x in linear.point.leaves + linear.values)
        direction = "fwd" if self.fused else mode  # a fused program is pushed in either mode
        plain = structured and not (self.fused or traced or setting("debug_nans"))
        plan = chunking.plan(
            direction, self.program, self.rows.total, options.chunk_size,
            options.assembly if self.sink is None else "preallocate",
            chunking.cap_now(options.memory), options.report is not None, traced,
            backend_of(self.like).saturation_bytes,
            plain and backend_of(self.like) is HOST,
        )
        plan = plan._replace(mode=mode) if self.fused else plan
        if plan.structured or self.fused:
            return plan
        on_host = backend_of(self.like) is HOST and not traced
        return self._with_steps(plan) if on_host and not setting("debug_nans") else plan

    def _with_steps(self, plan: chunking.Plan) -> chunking.Plan:
        """The plan of sweeps whose steps are settled beforehand, where that pays."""
        program, options = self.program, self.options
        reason = reason_against(program, plan.rows, plan.chunk_size or plan.rows)
        if reason is not None:
            return plan._replace(sweep=f"interpreted: {reason}")
        steps = PlannedSweep(program if self.forward else transposed(program), not self.forward)
        row_bytes = steps.row_bytes(self._seeds(0, plan.chunk_size or plan.rows))
        if not row_bytes:
            return plan._replace(sweep="interpreted: no row is written out before the result")
        assembly = options.assembly if self.sink is None else "preallocate"
        found = chunking.replanned(plan, row_bytes, assembly, chunking.cap_now(options.memory))
        if found.chunk_size == 1:
            return plan._replace(sweep="interpreted: memory= allows one row at a time")
        self.steps = steps
        return found

    def matrix(self) -> Any:
        """The Jacobian: the tree of outputs outside, the argnums layer, the tree of inputs inside."""
        if self.options.report is None:
            return self._matrix()
        like = fl.like_among(self.linear.point.leaves + self.linear.values)
        held = backend_of(like).peak()
        if held is None:
            result = self._matrix()
            peak_bytes = self.plan.row_bytes * self.widest
        else:
            with held as memory:
                result = self._matrix()
            peak_bytes = memory.highest
        self.options.report(self.plan._replace(peak_bytes=peak_bytes))
        return result

    def _matrix(self) -> Any:
        sink = self.sink
        if sink is not None:
            with sink:
                self._filled(sink, sink.start)
            return self.options.out if is_given(self.options.out) else self._trees(sink.arrays)
        if self.scalar:
            return self._trees([[self._conjugated(r) for r in self._gradient()]])
        grid = self._filled(self._grid(), 0)
        return self._trees(self._widened([[self._conjugated(b) for b in row] for row in grid.results()]))

    def _filled(self, grid: Any, first: int) -> Any:
        """What takes the rows, with all of them from `first` on."""
        try:
            self._fill(grid, first)
        except TooWideError:  # more entries than the plan could know of: in chunks, from the first row that is not done
            grid, first = (self._grid(), 0) if self.sink is None else (self.sink, self.sink.done)
            self.plan = left(self._planned(self.plan.mode, False), first)
            if self.options.report is not None:
                self.options.report(self.plan)
            self._fill(grid, first)
        return grid

    def _fill(self, grid: Grid | Sink, first: int) -> None:
        """Sweep the basis from row `first` on, in chunks."""
        if self.scalar:
            if not first:
                grid.store([_as_row(r, self.like) for r in self._gradient()], 0, 1, self.plan)
            return
        with progress_bar(self.plan.chunks, self.options) as bar:

            def work(index: int, start: int, stop: int) -> None:
                grid.begin()
                token = ranges.push("chunk", ranges.CHUNK, index)
                try:
                    self._chunk(grid, start, stop)
                finally:
                    ranges.pop(token)
                self.widest = max(self.widest, stop - start)
                bar.update(1)

            def halved(index: int, start: int, step: int) -> None:
                grid.undo()
                if self.steps is not None:
                    self.steps.drop()
                self._plan_again(index, start, step)
                bar.total = self.plan.chunks

            step = self.plan.chunk_size or self.rows.total
            try:
                halving.in_chunks(self.rows.total, step, work, halved, self._advice, first)
            finally:
                if self.steps is not None:
                    self.steps.close()

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

    def _widened(self, grid: list[list]) -> list[list]:
        """The (output, input) blocks of `jacobian` in dtypes that do not depend on the mode."""
        if self.options.what != "jacobian":
            return grid
        leaves, values = self.linear.point.leaves, self.linear.values
        return [[_wide(b, y, x) for b, x in zip(row, leaves, strict=True)] for row, y in zip(grid, values, strict=True)]

    def _trees(self, grid: list[list]) -> Any:
        """The (output, input) blocks in the trees of both."""
        return trees.unflatten(self.linear.outputs.spec, [self.linear.point.result(row) for row in grid])

    def _gradient(self) -> list:
        """A scalar function has no basis axis at all: one row, an array per input."""
        self.widest = 1
        linear = self.linear
        token = ranges.push("chunk", ranges.CHUNK, 0)
        try:
            rows: list = linear.pulled([fl.ones_of(linear.values[0], linear.point.leaves)])
        finally:
            ranges.pop(token)
        return rows

    def _conjugated(self, r: Any) -> Any:
        # the adjoint of a holomorphic function is conj(f')
        return st.CONJ(r) if self.options.holomorphic and not self.forward else r

    def _grid(self) -> Grid:
        dtypes = [dtype_of(x) for x in (self.linear.values if self.forward else self.linear.point.leaves)]
        return Grid(self.rows, self.columns, dtypes, self.forward, self.like)

    def _seeds(self, start: int, stop: int, structured: bool = False) -> list[Any]:
        """Rows start..stop of the standard basis, one (symbolic) seed per leaf they touch."""
        leaves = self.linear.point.leaves if self.forward else self.linear.values
        seeds: list[Any] = []
        most = terms.most_entries(self.rows.total, self.columns.total) if structured else 0
        for i, (leaf, shape) in enumerate(zip(leaves, self.rows.shapes, strict=True)):
            first, last = self.rows.overlap(i, start, stop)
            if first >= last:
                seeds.append(None)
                continue
            row = self.rows.starts[i] + first - start
            seeds.append(Hot(stop - start, row, first, last - first, None, shape, dtype_of(leaf), self.like, most))
        return seeds

    def _chunk(self, grid: Grid | Sink, start: int, stop: int) -> None:
        token = ranges.push("basis", ranges.CHUNK)
        try:
            seeds = self._seeds(start, stop, self.plan.structured)
        finally:
            ranges.pop(token)
        token = ranges.push("sweep", ranges.REPLAY, stop - start)
        try:
            last = stop == self.rows.total and stop - start == 1  # nothing could be tried again
            parts = self._sweep(seeds, last) if self.steps is None else self._stepped(grid, seeds, start, stop)
        finally:
            ranges.pop(token)
        token = ranges.push("assemble", ranges.CHUNK)
        try:
            grid.store(parts, start, stop, self.plan)
        finally:
            ranges.pop(token)

    def _sweep(self, seeds: list, last: bool) -> list:
        if self.plan.chunk_size != 1:
            return self._swept(seeds, last)
        # a plain loop: no batch axis anywhere
        plain = [None if s is None else _without_row(s) for s in seeds]
        return [None if p is None else _with_row(p) for p in self._swept(plain, last)]

    def _stepped(self, grid: Grid | Sink, seeds: list, start: int, stop: int) -> list:
        """Planned sweeps write into the result where they can; what is there already comes back as None."""
        assert self.steps is not None
        given = grid.targets(start, stop, self.plan) if isinstance(grid, Grid) else [None] * len(self.columns.shapes)
        targets = {v: x for v, x in zip(self.steps.program.outputs, given, strict=True) if x is not None}
        parts = self.steps.sweep(seeds, stop - start, targets)
        if self.plan.assembly != "preallocate":  # kept until the end: not in memory that the next chunk needs
            return [p if p is None or type(p) in STRUCTURED or p.base is None else p.copy() for p in parts]
        return [None if x is not None and p is x else p for p, x in zip(parts, given, strict=True)]

    def _swept(self, seeds: list, last: bool) -> list:
        program = self.program
        if self.forward or self.fused:
            return push(program, seeds, last)
        pairs = zip(program.outputs, seeds, strict=True)
        return pull(program, [(v, s) for v, s in pairs if v is not None and s is not None], last)


def _wide(block: Any, y: Any, x: Any) -> Any:
    """A block in the result type of output and input."""
    have, want = dtype_of(x), dtype_of(y)
    return block if have == want else astype(block, backend_of(fl.like_of(x)).xp.result_type(have, want))


def _without_row(seed: Hot) -> Any:
    """A basis vector without its leading axis."""
    dense = seed.written()
    return st.reshape(tuple(dense.shape), seed.shape)(dense)


def _as_row(r: Any, like: Any) -> Any:
    """A gradient as one row."""
    be = backend_of(like)
    return be.reshape(be.asarray(r, dtype_of(r), like), (1, *shape_of(r)))


def _with_row(part: Any) -> Any:
    shape = tuple(shape_of(part))
    return st.reshape(shape, (1, *shape))(part)
