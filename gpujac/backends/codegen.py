"""CUDA C++ text of a chain: one kernel per chain and memory layout, the same for all sizes.

The entries of the domain are seen as (rows, columns), each side one or more axes. Every operand has
an offset that is a sum over axes of index times stride; a stride of zero means that the operand does
not depend on that axis, and steps of such operands are computed once, outside the loop over it.

* map: a thread owns a column and walks rows. Neighbouring threads own neighbouring columns, so the
  result, which is C-contiguous, is written in whole lines; coefficients that do not depend on the
  row are loaded and multiplied once per column.
* lanes: the columns are added up; `blockDim.x` neighbouring lanes of a warp share a row.
* block: the columns are added up; a block shares a row, or one of `gridDim.y` parts of a row.
"""

import hashlib
from functools import lru_cache
from typing import NamedTuple

from gpujac.backends.chain import Chain, Step
from gpujac.backends.kernels import Kernel, expand

ZERO, UNIT, STRIDE = "0", "1", "s"  # how an operand depends on one axis
CTYPES = {
    "float32": "float",
    "float64": "double",
    "complex64": "gj_complex64",
    "complex128": "gj_complex128",
    "bool": "bool",
    "int32": "int",
    "int64": "long long",
}
_CONSTANT, _OUTER, _INNER = 0, 1, 2  # where a value is computed: once, per outer, per inner index


class Access(NamedTuple):
    """How an operand depends on the axes of the rows and of the columns, one letter per axis."""

    rows: str
    columns: str


class Layout(NamedTuple):
    """What the text depends on besides the chain.

    `kind`: map, lanes or block. `wide`: offsets have 64 bits. `rows`, `columns`: numbers of axes.
    `operands`: an Access per array, None for a number passed by value.
    """

    kind: str
    wide: bool
    rows: int
    columns: int
    operands: tuple[Access | None, ...]


@lru_cache(1 << 12)
def kernel(chain: Chain, layout: Layout) -> Kernel:
    """The kernel of a chain for a memory layout; equal text has an equal name."""
    text = _Writer(chain, layout).text()
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    name = f"chain_{layout.kind}{len(chain.steps)}_{digest}"  # what a profiler shows
    return Kernel(expand(text.replace("KERNEL", name, 1)), name)


def strides_used(layout: Layout) -> list[tuple[int, int, int]]:
    """(operand, side, axis) of the strides that the kernel takes as arguments, in their order."""
    return [
        (k, side, axis)
        for k, access in enumerate(layout.operands) if access is not None
        for side, letters in enumerate(access)
        for axis, letter in enumerate(letters) if letter == STRIDE
    ]  # fmt: skip


class _Writer:
    """Writes one kernel."""

    def __init__(self, chain: Chain, layout: Layout) -> None:
        self.chain, self.layout = chain, layout
        self.index = "long long" if layout.wide else "int"
        self.result = CTYPES[chain.results[0]]
        # a map walks columns outside and rows inside; a sum walks rows outside, columns inside
        self.inner_side = 0 if layout.kind == "map" else 1
        self.levels = self._levels()

    def _levels(self) -> list[int]:
        levels = []
        for access in self.layout.operands:
            if access is None:
                levels.append(_CONSTANT)
            elif access[self.inner_side].strip(ZERO):
                levels.append(_INNER)
            else:
                levels.append(_OUTER if access[1 - self.inner_side].strip(ZERO) else _CONSTANT)
        for step in self.chain.steps:
            levels.append(max(levels[v] for v in step.reads))
        return levels

    def text(self) -> str:
        """The whole text, with KERNEL for the name."""
        body = {"map": self._map, "lanes": self._lanes, "block": self._block}[self.layout.kind]()
        lines = [
            '#include "reduce.cuh"' if self.layout.kind != "map" else '#include "complex.cuh"',
            f'extern "C" __global__ void KERNEL({", ".join(self._parameters())}) {{',
            *_indented([*self._values(_CONSTANT), *body]),
            "}",
        ]
        return "\n".join(lines) + "\n"

    def _parameters(self) -> list[str]:
        found = []
        for k, access in enumerate(self.layout.operands):
            ctype = CTYPES[self.chain.inputs[k]]
            found.append(f"const {ctype} x{k}" if access is None else f"GJ_IN({ctype}) x{k}")
        found += [f"GJ_OUT({CTYPES[name]}) y{k}" for k, name in enumerate(self.chain.results)]
        sizes = ["rows", "columns"]
        sizes += [f"r{axis}_size" for axis in range(1, self.layout.rows)]
        sizes += [f"c{axis}_size" for axis in range(1, self.layout.columns)]
        sizes += [f"x{k}_{'rc'[side]}{axis}" for k, side, axis in strides_used(self.layout)]
        return found + [f"const {self.index} {name}" for name in sizes]

    def _map(self) -> list[str]:
        written = [f"y{k}[r * columns + c] = v{v};" for k, v in enumerate(self.chain.outputs)]
        rows = [*self._unravelled(0, "r"), *self._values(_INNER), *written]
        columns = [*self._unravelled(1, "c"), *self._values(_OUTER), *self._loop("r", "rows", "y", rows)]
        return self._loop("c", "columns", "x", columns)

    def _loop(self, name: str, size: str, axis: str, body: list[str]) -> list[str]:
        """A grid-stride loop."""
        start = f"{self._cast(f'blockIdx.{axis}')} * {self._cast(f'blockDim.{axis}')}"
        step = f"{self._cast(f'gridDim.{axis}')} * {self._cast(f'blockDim.{axis}')}"
        first = f"{start} + {self._cast(f'threadIdx.{axis}')}"
        head = f"for ({self.index} {name} = {first}; {name} < {size}; {name} += {step}) {{"
        return [head, *_indented(body), "}"]

    def _cast(self, name: str) -> str:
        return f"({self.index}){name}"

    def _lanes(self) -> list[str]:
        start = f"{self._cast('blockIdx.x')} * {self._cast('blockDim.y')}"
        step = f"{self._cast('gridDim.x')} * {self._cast('blockDim.y')}"
        walk = f"for ({self.index} c = threadIdx.x; c < columns; c += blockDim.x) {{"
        inside = [
            f"{self.index} r = base + {self._cast('threadIdx.y')};",
            f"{self.result} total = {self._zero(self.chain.results[0])};",
            "if (r < rows) {",
            *_indented(self._added(walk)),
            "}",
            "total = gj_sum_of_lanes(total, (int)blockDim.x);",
            "if (r < rows && threadIdx.x == 0) y0[r] = total;",
        ]
        # all lanes of a warp take the same number of turns, so that they meet in the exchange
        return [f"for ({self.index} base = {start}; base < rows; base += {step}) {{", *_indented(inside), "}"]

    def _block(self) -> list[str]:
        first = f"{self._cast('blockIdx.y')} * {self._cast('blockDim.x')} + {self._cast('threadIdx.x')}"
        step = f"{self._cast('gridDim.y')} * {self._cast('blockDim.x')}"
        walk = f"for ({self.index} c = {first}; c < columns; c += {step}) {{"
        inside = [
            f"{self.result} total = {self._zero(self.chain.results[0])};",
            *self._added(walk),
            "total = gj_sum_of_lanes(total, 32);",
            "if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = total;",
            "__syncthreads();",
            "if (threadIdx.x == 0) {",
            "    for (int w = 1; w < (int)blockDim.x / 32; ++w) total = total + sums[w];",
            f"    y0[r * {self._cast('gridDim.y')} + {self._cast('blockIdx.y')}] = total;",
            "}",
            "__syncthreads();",
        ]
        head = f"for ({self.index} r = blockIdx.x; r < rows; r += gridDim.x) {{"
        return [f"__shared__ {self.result} sums[32];", head, *_indented(inside), "}"]

    def _added(self, walk: str) -> list[str]:
        """The columns of row r added to `total`."""
        (output,) = self.chain.outputs
        body = [*self._unravelled(1, "c"), *self._values(_INNER), f"total = total + v{output};"]
        return [*self._unravelled(0, "r"), *self._values(_OUTER), walk, *_indented(body), "}"]

    def _unravelled(self, side: int, name: str) -> list[str]:
        """The index of each axis of one side that an operand needs, from the joint index `name`."""
        count = self.layout.rows if side == 0 else self.layout.columns
        accesses = [access[side] for access in self.layout.operands if access is not None]
        used = {axis for letters in accesses for axis, letter in enumerate(letters) if letter != ZERO}
        if count < 2 or not used:
            return []
        lines, rest = [], name
        for axis in range(count - 1, min(used) - 1, -1):
            if axis in used:
                remainder = f"{rest} % {name}{axis}_size" if axis else rest
                lines.append(f"const {self.index} {name}{axis} = {remainder};")
            if axis > min(used):
                lines.append(f"const {self.index} {name}{axis}_rest = {rest} / {name}{axis}_size;")
                rest = f"{name}{axis}_rest"
        return lines

    def _values(self, level: int) -> list[str]:
        """The loads and steps that belong to one level."""
        first = len(self.chain.inputs)
        lines = []
        for v, at in enumerate(self.levels):
            if at == level:
                value = self._load(v) if v < first else self._step(self.chain.steps[v - first])
                lines.append(f"const {CTYPES[self.chain.dtype(v)]} v{v} = {value};")
        return lines

    def _load(self, k: int) -> str:
        access = self.layout.operands[k]
        if access is None:
            return f"x{k}"
        terms = []
        for side, letters in enumerate(access):
            name = "rc"[side]
            for axis, letter in enumerate(letters):
                index = f"{name}{axis}" if len(letters) > 1 else name
                if letter != ZERO:
                    terms.append(index if letter == UNIT else f"{index} * x{k}_{name}{axis}")
        return f"x{k}[{' + '.join(terms) or '0'}]"

    def _zero(self, dtype: str) -> str:
        return f"{CTYPES[dtype]}{{}}" if dtype.startswith("complex") else f"({CTYPES[dtype]})0"

    def _step(self, step: Step) -> str:
        a, b = (*(f"v{v}" for v in step.reads), "")[:2]
        zero = self._zero(step.dtype)
        if step.name == "cast":
            return self._cast_value(self.chain.dtype(step.reads[0]), step.dtype, a)
        return {
            "multiply": f"{a} * {b}",
            "add": f"{a} + {b}",
            "negative": f"-{a}",
            "select": f"{a} != 0 ? {b} : {zero}",
            "guarded": f"gj_is_zero({a}) ? {zero} : {a} * {b}",
            "conj": f"gj_conj({a})",
            "real": f"gj_real({a})",
            "imag": f"{a}.im",
            "times_1j": f"{CTYPES[step.dtype]}{{0, {a}}}",
        }[step.name]

    def _cast_value(self, before: str, after: str, x: str) -> str:
        """Change of dtype; complex to real takes the real part."""
        part = {"complex64": "float", "complex128": "double"}
        if after not in part:
            return f"({CTYPES[after]}){x}.re" if before in part else f"({CTYPES[after]}){x}"
        if before in part:
            return f"{CTYPES[after]}{{({part[after]}){x}.re, ({part[after]}){x}.im}}"
        return f"{CTYPES[after]}{{({part[after]}){x}, 0}}"


def _indented(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines]
