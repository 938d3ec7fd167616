"""A user's CUDA C++ without a GPU: CuPy's RawKernel and RawModule, whose kernels run on the CPU.

The text is compiled by g++ and checked while it runs (backends/shim.py). The kernel's own pointers
become ones that know the bounds of their arrays, where it uses them as such pointers can be used
(indexing and offsets, no casts); else they stay plain. Arguments follow CuPy's rules, so that code
that passes here passes arguments that a card takes.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpujac import settings
from gpujac.backends import shim
from gpujac.backends.counts import launched
from gpujac.backends.emulated_array import EmulatedArray, host
from gpujac.backends.kernels import Kernel
from gpujac.errors import BackendError, KernelError

# What CuPy makes of Python's numbers.
_PYTHON = {bool: np.bool_, int: np.int64, float: np.float64, complex: np.complex128}
_POINTER = re.compile(
    r"^(?P<before>\s*)(?P<const>const\s+)?(?P<type>\w[\w:]*(?:\s+(?:long|int|char|short))*)\s*\*\s*"
    r"(?:const\s+)?(?:__restrict__\s+)?(?P<name>\w+)(?P<after>\s*)$"
)
_DEFINE = re.compile(r"-D\s*(\w+)(?:=(.*))?$")


class RawKernel:
    """One kernel of a user's; call it with grid, block and arguments, as CuPy's."""

    def __init__(self, code: str, name: str, options: Sequence[str] = (), backend: str = "nvrtc",
                 translate_cucomplex: bool = False, *, enable_cooperative_groups: bool = False,
                 jitify: bool = False) -> None:  # fmt: skip
        if translate_cucomplex or enable_cooperative_groups or jitify:
            raise BackendError(
                f"kernel {name}: the emulated backend has neither translate_cucomplex nor cooperative groups nor "
                "jitify; run it on a GPU"
            )
        self.code, self.name, self.options, self.backend = code, name, tuple(options), backend
        self._text = _with_defines(code, self.options)
        self._found: Kernel | None = None

    def __call__(self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *,
                 shared_mem: int = 0) -> None:  # fmt: skip
        """Run the kernel to its end."""
        values = [_argument(x) for x in args]
        launched(self.name, [x for x in values if isinstance(x, np.ndarray)])
        shim.launch(self._compiled(), grid, block, values, shared_mem)

    def compile(self, log_stream: Any = None) -> None:
        """Compile now, not at the first call."""
        self._compiled()

    def _compiled(self) -> Kernel:
        """The kernel with checked pointers, or as it is where that text does not compile."""
        if self._found is None:
            sanitize = settings.get("sanitize")
            checked = Kernel(_with_bounds(self._text, self.name), self.name)
            try:
                shim.compiled(checked, sanitize)
            except KernelError:
                checked = Kernel(self._text, self.name)
                shim.compiled(checked, sanitize)  # its own errors are the user's
            self._found = checked
        return self._found


class RawModule:
    """Several kernels in one text."""

    def __init__(self, *, code: str | None = None, path: str | None = None, options: Sequence[str] = (),
                 backend: str = "nvrtc", **others: Any) -> None:  # fmt: skip
        if code is None or path is not None or any(others.values()):
            raise BackendError(
                "RawModule: the emulated backend takes code=, options= and names without templates; run others on a GPU"
            )
        self.code, self.options, self.backend = code, tuple(options), backend

    def get_function(self, name: str) -> RawKernel:
        """The kernel of that name."""
        return RawKernel(self.code, name, self.options, self.backend)


def _with_defines(code: str, options: Sequence[str]) -> str:
    """The text behind its -D options; others have no meaning on the CPU. Its lines keep their numbers."""
    found = [match for match in map(_DEFINE.match, options) if match]
    lines = [f"#define {m[1]} {m[2] if m[2] is not None else 1}\n" for m in found]
    return "".join([*lines, "#line 1\n"]) + code if lines else code


def _with_bounds(code: str, name: str) -> str:
    """The text with the pointers among the kernel's parameters as checked ones."""
    head = re.search(rf"\bvoid\b[^;{{}}()]*?\b{re.escape(name)}\s*\(", code)
    if head is None:
        return code
    end = code.find(")", head.end())  # parameters of functions and arrays are left to the compiler
    parts = [_POINTER.sub(_checked, part) for part in code[head.end() : end].split(",")]
    return code[: head.end()] + ",".join(parts) + code[end:]


def _checked(found: re.Match) -> str:
    kind = "In" if found["const"] else "Both"
    return f"{found['before']}gj::{kind}<{found['type']}> {found['name']}{found['after']}"


def _argument(x: Any) -> Any:
    """What a launch gets: host memory of emulated arrays, and numbers as NumPy scalars."""
    if isinstance(x, EmulatedArray):
        return host(x)
    if type(x) in _PYTHON:
        return _PYTHON[type(x)](x)
    if isinstance(x, np.generic):
        return x
    raise TypeError(f"Unsupported type {type(x)}")
