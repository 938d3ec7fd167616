"""CUDA kernels on the CPU: the same text compiled by g++, bounds, races and barriers checked.

`launch` compiles a kernel once per machine, into the user's cache folder, and calls it. What goes
wrong inside (an access outside an array, two threads at one entry, a barrier that some threads
miss, undefined behaviour) raises a KernelError that names kernel, parameter, thread and place.
"""

import ctypes
import hashlib
import math
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gpujac import settings
from gpujac.backends.kernels import INCLUDE, Kernel
from gpujac.errors import KernelError

_MEETING = re.compile(r"\b(?:__sync\w+|__shfl\w*|__ballot_sync|__any_sync|__all_sync|__shared__)\b")
_DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([\w:<>]+(?:\s+(?:long|int|char|short))*)\s+(\w+)\s*\[\s*\]"
)
_SHARED_BYTES = 48 * 1024  # what a launch may ask for without further settings of the device
_KEPT = 4096  # compiled kernels in the cache folder
_COMMON = (
    "-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-nostdinc++", "-nodefaultlibs", "-fno-exceptions",
    "-fno-rtti", "-fno-weak", "-fno-math-errno", "-fno-threadsafe-statics", "-ffp-contract=off",
    "-U_FORTIFY_SOURCE",
)  # fmt: skip
_SANITIZE = {
    "off": (),
    "undefined": ("-fsanitize=undefined",),
    "address": ("-fsanitize=undefined,address", "-g1"),
}
_SENTENCES = {
    1: "{parameter} is accessed {where}, outside the array of {shape} {dtype}",
    2: "{parameter} is accessed {where}, which is not aligned for its type",
    3: "{parameter} is touched {where} by two threads, and not by atomics only",
    4: "{text} (line {line})",
    5: "{text} (line {line})",
    6: "the claim {text!r} does not hold (line {line})",
    7: "{text}",
}


class _Launch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared_bytes", ctypes.c_int64),
        ("count", ctypes.c_int64), ("seed", ctypes.c_uint64),
    )  # fmt: skip


class _Report(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int64), ("parameter", ctypes.c_int64), ("offset", ctypes.c_int64),
        ("size", ctypes.c_int64), ("line", ctypes.c_int64), ("thread", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3), ("text", ctypes.c_char * 160),
    )  # fmt: skip


class _Entry(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_char), ("code", ctypes.c_char_p), ("size", ctypes.c_int64))


def launch(
    kernel: Kernel, grid: Sequence[int], block: Sequence[int], args: Sequence[Any],
    shared: int = 0, seed: int = 0,
) -> None:  # fmt: skip
    """Runs a kernel on the CPU, to its end.

    Args:
        kernel: the text and the entry point.
        grid, block: one to three sizes, as on the device.
        args: NumPy arrays (the kernel gets the address of the first entry) and NumPy scalars of
            exactly the declared type.
        shared: bytes of dynamic shared memory.
        seed: chooses the order of blocks and threads.

    Raises:
        KernelError: no compiler, text that does not compile, wrong arguments, or a kernel that does
            what a device would not forgive.

    Cost:
        0.2 to 0.4 s the first time on this machine, then about 10 ns per thread; per thread and
        barrier 0.1 us more where threads meet.
    """
    sizes = _geometry(kernel, grid, block, shared)
    compiled(kernel, settings.get("sanitize")).run(sizes, args, shared, seed)


@lru_cache(4096)
def compiled(kernel: Kernel, sanitize: str = "undefined") -> "Compiled":
    """The kernel as a loaded library, compiled where the cache folder does not have it."""
    return Compiled(kernel, _build(kernel, sanitize))


class Compiled:
    """One loaded kernel: what it takes, and how it is called."""

    def __init__(self, kernel: Kernel, path: Path) -> None:
        self.kernel = kernel
        self._library = _loaded(kernel, path)
        self._lock = threading.Lock()  # the library keeps the running launch in static memory
        found = (_Entry * 128)()
        count = self._library.gj_signature(found)
        self.signature = [(e.kind.decode(), e.code.decode(), e.size) for e in found[:count]]

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters, as far as the text shows them."""
        names = _parameter_names(self.kernel)
        return names if len(names) == len(self.signature) else ("",) * len(self.signature)

    def run(self, sizes: tuple, args: Sequence[Any], shared: int, seed: int) -> None:
        if len(args) != len(self.signature):
            raise KernelError(
                f"kernel {self.kernel.name} takes {len(self.signature)} arguments, was given {len(args)}."
            )
        table, kept = np.zeros((len(args) + 1, 6), np.int64), []
        for k, arg in enumerate(args):
            table[k], value = self._argument(k, arg)
            kept.append(value)
        ask = _Launch((ctypes.c_uint * 3)(*sizes[:3]), (ctypes.c_uint * 3)(*sizes[3:]), shared,
                      len(args), seed)  # fmt: skip
        report = _Report()
        with self._lock:
            wrong = self._library.gj_run(
                ctypes.byref(ask), ctypes.c_void_p(table.ctypes.data), ctypes.byref(report)
            )
        if wrong:
            raise KernelError(self._message(report, args, sizes))

    def _argument(self, k: int, arg: Any) -> tuple[tuple, Any]:
        """One row of the table (first entry, bounds, place, tracking), and what must stay alive."""
        kind, code, size = self.signature[k]
        if kind == "s":
            self._check(k, arg, isinstance(arg, np.generic) and arg.dtype.str[1:] == code, f"a NumPy {code} scalar")
            value = np.array(arg)
            return (value.__array_interface__["data"][0], 0, 0, k, 0, 0), value
        array = isinstance(arg, np.ndarray)
        fits = array and (code == arg.dtype.str[1:] or (code == "x" and kind in "pq") or _is_word(code, size, arg))
        self._check(k, arg, fits, f"an array of {size} bytes per entry" if code == "x" else f"a {code} array")
        if kind in "obq" and not arg.flags.writeable:
            raise KernelError(f"kernel {self.kernel.name}: {self._named(k)} is written, but the array is read-only.")
        low, high = np.lib.array_utils.byte_bounds(arg) if arg.size else (0, 0)
        steps = [s for s, n in zip(arg.strides, arg.shape) if n > 1]
        tracked = size if kind == "o" and not any(s % size for s in steps) else 0
        return (arg.__array_interface__["data"][0], low, high, k, tracked, 0), arg

    def _check(self, k: int, arg: Any, fits: bool, wanted: str) -> None:
        if not fits:
            found = f"{type(arg).__name__} {getattr(arg, 'dtype', arg)!s}"
            raise KernelError(f"kernel {self.kernel.name}: {self._named(k)} must be {wanted}, found {found}.")

    def _named(self, k: int) -> str:
        name = self.parameters[k]
        return f"parameter {k} ({name})" if name else f"parameter {k}"

    def _message(self, report: _Report, args: Sequence[Any], sizes: tuple) -> str:
        k = report.parameter
        found = {"parameter": "", "shape": "", "dtype": ""}
        if k >= 0:
            found = {"parameter": self._named(k), "shape": args[k].shape, "dtype": args[k].dtype}
        entry = f" (entry {report.offset // report.size} from the first)" if report.size else ""
        where = f"at byte offset {report.offset}{entry}"
        what = _SENTENCES[report.kind].format(
            where=where, text=report.text.decode(), line=report.line, **found
        )
        return (
            f"kernel {self.kernel.name}: {what}; thread {tuple(report.thread)} of block "
            f"{tuple(report.block)}, launched with grid {sizes[:3]} and block {sizes[3:]}."
        )


def _is_word(code: str, size: int, x: np.ndarray) -> bool:
    """Whether a parameter is a type of our own (a word, a complex number) as wide as the entries."""
    return code == "x" and size == x.dtype.itemsize


def _geometry(kernel: Kernel, grid: Sequence[int], block: Sequence[int], shared: int) -> tuple[int, ...]:
    """Grid and block as six sizes, within what every device allows."""
    g, b = (tuple(int(n) for n in sizes) + (1,) * (3 - len(sizes)) for sizes in (grid, block))
    allowed = len(g) == len(b) == 3 and min(g + b) >= 1 and math.prod(b) <= 1024 and b[2] <= 64
    if not (allowed and g[0] < 2**31 and max(g[1:]) < 65536 and 0 <= shared <= _SHARED_BYTES):
        raise KernelError(
            f"kernel {kernel.name} cannot be launched with grid {tuple(grid)}, block {tuple(block)} and {shared} "
            "bytes of shared memory; sizes start at 1, a block has at most 1024 threads (64 along its last axis), "
            f"a grid at most 2**31 - 1 by 65535 by 65535 blocks, shared memory at most {_SHARED_BYTES} bytes."
        )
    return g + b


def _parameter_names(kernel: Kernel) -> tuple[str, ...]:
    """The names in the entry point's list, also where a macro expands it (its first argument is the name)."""
    name = re.escape(kernel.name)
    found = re.search(rf"\bvoid\b[^;{{}}]*?\b{name}\s*\(", kernel.source)
    if found is None:
        macro = re.search(rf"^(\w+)\(\s*{name}\b", kernel.source, re.MULTILINE)
        head = macro and re.search(rf"#define\s+{macro[1]}\(\s*(\w+)", kernel.source)
        found = head and re.compile(rf"\bvoid\b[^;{{}}]*?\b{head[1]}\s*\(").search(kernel.source, head.end())
    if found is None:
        return ()
    text, depth, end = kernel.source, 1, found.end()
    while depth and end < len(text):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    inside = re.sub(r"\([^()]*\)|<[^<>]*>", "", text[found.end() : end - 1].replace("\\\n", " "))
    return tuple(re.findall(r"(\w+)\s*(?:,|$)", inside))


# ---------------------------------------------------------------- compiling


def source_text(kernel: Kernel) -> str:
    """The C++ text that g++ gets: the kernel's own lines keep their numbers."""
    text = _DYNAMIC.sub(r"\1* \2 = (\1*)gj::dynamic_memory", kernel.source)
    names = ["shim.cuh", "shim_math.cuh"]
    if _MEETING.search(kernel.source):
        names.append("shim_fibers.cuh")
    headers = "".join(f'#include "{name}"\n' for name in names)
    return f'{headers}#line 1\n{text}\n#include "shim_run.cuh"\nGJ_EXPORT({kernel.name})\n'


def _build(kernel: Kernel, sanitize: str) -> Path:
    compiler = _compiler()
    flags = [*_COMMON, *_SANITIZE[sanitize]]
    text = source_text(kernel)
    parts = (text, *flags, compiler[1], *(p.read_text() for p in sorted(INCLUDE.glob("shim*.cuh"))))
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    path = _cache_folder() / f"{key}.so"
    try:
        os.utime(path)  # used now: the ones that nobody uses go first
    except FileNotFoundError:
        _compile(kernel, [compiler[0], *flags], text, path)
        _prune(path.parent)
    return path


def _prune(folder: Path) -> None:
    """Removes the kernels that were not used for longest where there are too many."""
    with os.scandir(folder) as found:
        files = [entry for entry in found if entry.name.endswith(".so")]
    if len(files) <= _KEPT:
        return
    ages = []
    for entry in files:
        with suppress(FileNotFoundError):  # another process prunes too
            ages.append((entry.stat().st_mtime, entry.path))
    for _, path in sorted(ages)[: len(files) - _KEPT * 3 // 4]:
        with suppress(FileNotFoundError):
            os.remove(path)


def _loaded(kernel: Kernel, path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(
            f"kernel {kernel.name} cannot be loaded ({error}); with settings.sanitize = \"address\" the library of "
            'the sanitizer must be there first: LD_PRELOAD="$(g++ -print-file-name=libasan.so)" python ...'
        ) from error


def _compile(kernel: Kernel, command: list[str], text: str, path: Path) -> None:
    """Compiles next to the final place and moves it there, so that no process sees half a file."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "kernel.so"
        done = subprocess.run(
            [*command, f"-I{INCLUDE}", "-x", "c++", "-", "-o", str(made), "-lm", "-lc", "-lgcc"],
            input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise KernelError(f"kernel {kernel.name} does not compile for the CPU:\n{done.stderr[-4000:]}")
        os.replace(made, path)


@lru_cache
def _compiler() -> tuple[str, str]:
    """The path of g++ and what it says about itself."""
    path = shutil.which("g++")
    if path is None:
        raise KernelError(
            "kernels that run on the CPU are compiled with g++, which is not on the PATH; install it "
            '(on Debian and Ubuntu: apt install g++), or set gpujac.settings.kernels = "off" to do without kernels.'
        )
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    return path, done.stdout.splitlines()[0]


@lru_cache
def _cache_folder() -> Path:
    """Where compiled kernels are kept: the user's cache, else a folder of this process alone."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "gpujac" / "cpu_kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="gpujac-kernels-"))
