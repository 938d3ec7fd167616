"""Which line of the user's code is at work.

A `Spot` (a code object and an instruction of it) says where without keeping a frame, and with it the
user's arrays, alive; `line_at` reads the source when a message or a report needs the line.
"""

import linecache
import sys
from types import CodeType, FrameType
from typing import NamedTuple

Spot = tuple[CodeType, int]  # where in a code object: its instruction, as a frame's f_lasti

INTERNAL_CODE: dict[int, CodeType] = {}  # code of ours that was seen, by id: found without a string
WRAPPED: dict[int, CodeType] = {}  # the part of it whose arrays reach the user inside others or marked later
_WRAPPING = frozenset((
    "gpujac.transforms.hot", "gpujac.transforms.jvp", "gpujac.transforms.linearize",
    "gpujac.transforms.pieces", "gpujac.transforms.sweep", "gpujac.transforms.tangent", "gpujac.transforms.tape",
    "gpujac.transforms.vjp", "gpujac.transforms.vmap",
    "gpujac.ops.agree", "gpujac.ops.elementwise",
))  # fmt: skip

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


def spot_above(frame: FrameType | None) -> Spot | None:
    """Where the innermost frame of the user's is, from this frame outwards; None outside of any."""
    while frame is not None:
        code = frame.f_code
        if id(code) not in INTERNAL_CODE:
            if not is_internal(frame):
                return code, frame.f_lasti
            INTERNAL_CODE[id(code)] = code  # kept, so that the id stays its own
            if frame.f_globals["__name__"] in _WRAPPING:
                WRAPPED[id(code)] = code
        frame = frame.f_back
    return None


def here() -> Spot | None:
    """Where the innermost frame of the user's is in this thread."""
    return spot_above(sys._getframe(1))


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


def asked_at() -> str:
    """The user's line for the end of a message, on lines of its own; "" outside of any."""
    line = user_line()
    return "" if line is None else f"\nAsked here:\n  {line}"
