"""The options that all Jacobian functions share, checked when one is built."""

from typing import Any

from gpujac.errors import ArgumentTypeError
from gpujac.transforms import chunking, given
from gpujac.transforms import flatten as fl


class Options:
    """The keyword arguments of a Jacobian function."""

    __slots__ = ("what", "mode", "argnums", "has_aux", "chunk_size", "assembly", "memory",
                 "with_value", "holomorphic", "progress", "report", "out", "resume")  # fmt: skip

    def __init__(self, what: str, mode: str, argnums: Any, has_aux: bool, chunk_size: Any, assembly: str,
                 memory: Any, with_value: bool, holomorphic: bool, progress: bool, report: Any,
                 out: Any = None, resume: Any = None) -> None:  # fmt: skip
        fl.check_argnums(what, argnums)
        if report is not None and not callable(report):
            raise ArgumentTypeError(f"{what}: report={report!r} is a {type(report).__name__}; give a function")
        chunking.check_chunk_size(what, chunk_size)
        chunking.check_assembly(what, assembly)
        given.check_option(what, out, resume, assembly)
        self.out, self.resume = out, resume
        self.memory = chunking.memory_cap(what, memory)
        self.what, self.mode, self.argnums, self.has_aux = what, mode, argnums, has_aux
        self.chunk_size, self.assembly, self.with_value = chunk_size, assembly, with_value
        self.holomorphic, self.progress, self.report = holomorphic, progress, report
