"""Kernels as text: `.cu` files beside their op, their headers pasted in, one entry point at a time.

A `.cu` file holds templates and, one per line, the entry points that macros expand from them:

    ENTRY(gather_word64_i32_o32, gj_word64, int, int)

The first argument is the entry's whole name. `kernel(path, name)` keeps the one line that it needs,
so that a first launch compiles one entry point and not the whole family.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gpujac.errors import KernelError

_PACKAGE = Path(__file__).resolve().parent.parent
INCLUDE = Path(__file__).resolve().parent / "include"
_INCLUDE_LINE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"[^\n]*$', re.MULTILINE)
_ENTRY_LINE = re.compile(r"^(?:[A-Z]+_)?ENTRY\((\w+)\b[^\n]*\n", re.MULTILINE)


@dataclass(frozen=True)
class Kernel:
    """Complete CUDA C++ text and the name of one entry point in it; equal text is one kernel."""

    source: str  # hashing it is cheap: Python keeps the hash of a string with the string
    name: str


def expand(text: str) -> str:
    """`text` with every `#include "x.cuh"` of this package pasted in once, in canonical form.

    Canonical: no trailing blanks, no runs of empty lines, one newline at the end; caches of
    compiled kernels key on the text.
    """
    pasted: set[str] = set()

    def paste(found: re.Match) -> str:
        name = found[1]
        if name in pasted:
            return ""
        pasted.add(name)
        path = INCLUDE / name
        if not path.is_file():
            there = ", ".join(sorted(p.name for p in INCLUDE.glob("*.cuh")))
            raise KernelError(f'a kernel includes "{name}", which gpujac does not have; it has {there}.')
        return _INCLUDE_LINE.sub(paste, path.read_text(encoding="utf-8"))

    whole = _INCLUDE_LINE.sub(paste, text.replace("\r\n", "\n"))
    lines = "\n".join(line.rstrip() for line in whole.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", lines).strip("\n") + "\n"


@lru_cache
def load(path: str) -> str:
    """The text of a `.cu` file with its headers; `path` is relative to the package."""
    file = _PACKAGE / path
    if not file.is_file():
        raise KernelError(f"gpujac has no kernel file {path!r}; is the installation complete?")
    return expand(file.read_text(encoding="utf-8"))


@lru_cache
def entries(path: str) -> tuple[str, ...]:
    """The names of all entry points of a `.cu` file, in its order."""
    return tuple(_ENTRY_LINE.findall(load(path)))


@lru_cache(1024)
def kernel(path: str, name: str) -> Kernel:
    """One entry point of a `.cu` file; the lines of the others are left out."""
    if name not in entries(path):
        raise KernelError(f"{path} has no entry point {name!r}; it has {', '.join(entries(path))}.")
    return Kernel(_ENTRY_LINE.sub(lambda found: found[0] if found[1] == name else "", load(path)), name)
