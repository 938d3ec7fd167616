"""Which line of the user's code is at work: for messages and reports, never in a hot path."""

import linecache
import sys
from types import CodeType, FrameType
from typing import NamedTuple

# Packages whose frames are not the user's: ours, and those that call us back.
_INTERNAL = frozenset(("gpujac", "numpy", "cupy", "cupyx", "optree", "array_api_compat", "array_api_strict"))


class Line(NamedTuple):
    """One line of source: file, line number, function and the text of the line ("" if unknown)."""

    file: str
    number: int
    function: str
    text: str

    def __str__(self) -> str:
        where = f'File "{self.file}", line {self.number}, in {self.function}'
        return f"{where}: {self.text}" if self.text else where


def is_internal(frame: FrameType) -> bool:
    """Whether a frame runs code of this package or of an array library."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in _INTERNAL


def line_of(frame: FrameType) -> Line:
    """The line that a frame executes."""
    code, number = frame.f_code, frame.f_lineno
    text = linecache.getline(code.co_filename, number, frame.f_globals).strip()
    return Line(code.co_filename, number, code.co_qualname, text)


def line_at(code: CodeType, instruction: int) -> Line:
    """The line of an instruction (`f_lasti`) of a code object."""
    number = next((n for start, end, n in code.co_lines() if start <= instruction < end and n), code.co_firstlineno)
    return Line(code.co_filename, number, code.co_qualname, linecache.getline(code.co_filename, number).strip())


def user_line() -> Line | None:
    """The innermost line of the user's that is being executed in this thread, None outside of any."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_internal(frame):
        frame = frame.f_back
    return None if frame is None else line_of(frame)
