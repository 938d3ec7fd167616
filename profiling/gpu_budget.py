"""A budget of time for `make gpu`: parts run one after the other in processes of their own.

A part that would start too late is skipped, one that runs too long is stopped, and both are
reported: the whole never takes longer than its budget.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Clock = Callable[[], float]
Status = Literal["done", "failed", "stopped", "skipped"]
TAIL = 4000  # characters of a part's stderr that are kept
# Exit codes of parts that did their work; 1 and 2 are what Python and argparse end with when they break.
WRONG = 3  # something that was checked is wrong, and the output says what
MISSING = 4  # a library is not installed, and the output says which


@dataclass(frozen=True)
class Part:
    """A piece of work: a command, how long it may take, and how little time makes it worthless.

    `good_codes` are the exit codes of a part that did its work.
    """

    name: str
    command: Sequence[str]
    at_most_s: float
    at_least_s: float = 5.0
    variables: Mapping[str, str] = field(default_factory=dict)
    good_codes: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Outcome:
    """What became of a part; `output` is all it printed, `errors` the end of its stderr."""

    name: str
    status: Status
    seconds: float = 0.0
    code: int | None = None
    output: str = ""
    errors: str = ""


class Budget:
    """Seconds that all parts share."""

    def __init__(self, total_s: float, clock: Clock = time.monotonic) -> None:
        self.total_s = total_s
        self.clock = clock
        self.start_s = clock()

    def left_s(self) -> float:
        """Return how much is left, never less than 0."""
        return max(0.0, self.total_s - (self.clock() - self.start_s))

    def allowed_s(self, part: Part) -> float:
        """Return how long `part` may run now; 0 means not at all."""
        allowed = min(part.at_most_s, self.left_s())
        return allowed if allowed >= part.at_least_s else 0.0

    def run(self, part: Part, cwd: Path) -> Outcome:
        """Run a part within what is left and return what became of it."""
        allowed = self.allowed_s(part)
        if not allowed:
            return Outcome(part.name, "skipped")
        start = self.clock()
        code, output, errors = _process(part, cwd, allowed)
        seconds = self.clock() - start
        if code is None:
            return Outcome(part.name, "stopped", seconds, None, output, errors)
        status: Status = "done" if code in part.good_codes else "failed"
        return Outcome(part.name, status, seconds, code, output, errors)


def _process(part: Part, cwd: Path, allowed_s: float) -> tuple[int | None, str, str]:
    """Run a command; its exit code (None if it had to be stopped), stdout and the end of stderr.

    The output goes to files, so what was printed before a stop is not lost. The command gets a
    process group of its own, which is ended as a whole: compilers and test workers with it.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            part.command, cwd=cwd, env={**os.environ, **part.variables}, stdin=subprocess.DEVNULL,
            stdout=out, stderr=err, start_new_session=True,
        )  # fmt: skip
        code: int | None = None
        try:
            code = process.wait(timeout=allowed_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return code, texts[0], texts[1][-TAIL:]
