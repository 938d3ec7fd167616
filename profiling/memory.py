"""Measures the extra peak memory of one large Jacobian, in a fresh process per library.

`python -m profiling.memory LIBRARY CASE` is that process; it prints one line of JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from profiling import environment
from profiling.libraries import LOADERS
from profiling.memory_cases import MemoryCase, memory_cases
from profiling.report import Row, Target


@dataclass(frozen=True)
class Peak:
    """What one process found; the sizes in bytes."""

    extra_bytes: int
    jacobian_bytes: int
    seconds: float
    error: float

    @property
    def ratio(self) -> float:
        """Return the extra peak over the size of the Jacobian."""
        return self.extra_bytes / self.jacobian_bytes


def jacobian_of(case: MemoryCase, library_name: str, size: int) -> Callable[[numpy.ndarray], Any]:
    """Return x -> Jacobian, of the library's own arrays."""
    library = LOADERS[library_name]()
    options = case.options[library_name]
    transformed = library.compile(library.transforms["jacrev"](case.program(library.np, size), **options))
    return lambda x: library.wait(transformed(library.array(x)))


def resident_bytes() -> int:
    """Return what the process holds in memory now; its peak where the system cannot say."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return peak_bytes()
    return int(statm.read_text().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    """Return the most that this program has held in memory.

    On Linux `ru_maxrss` of a started program begins at the peak of the program that started it
    (the kernel carries it over exec), so the peak of this one alone is read from `VmHWM`.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def relative_error(case: MemoryCase, jacobian: numpy.ndarray, size: int) -> float:
    """Return how far `jacobian` is from central differences in one random direction."""
    x = case.point(size)
    direction = numpy.random.default_rng(8).standard_normal(x.shape)
    f, x64, step = case.program(numpy, size), x.astype(numpy.float64), 1e-6
    expected = (f(x64 + step * direction) - f(x64 - step * direction)) / (2 * step)
    found = jacobian.reshape(expected.size, x.size) @ direction.ravel().astype(jacobian.dtype)
    return float(numpy.max(numpy.abs(found - expected.ravel())) / numpy.max(numpy.abs(expected)))


def measure(case: MemoryCase, library: str) -> Peak:
    """Measure in this process, which must be fresh; warmed on a small case first."""
    jacobian_of(case, library, case.warm)(case.point(case.warm))
    jacobian, x = jacobian_of(case, library, case.size), case.point(case.size)
    before, start = resident_bytes(), time.perf_counter()
    result = jacobian(x)
    seconds, after = time.perf_counter() - start, peak_bytes()
    values = numpy.asarray(result)
    return Peak(after - before, values.nbytes, seconds, relative_error(case, values, case.size))


def measure_apart(library: str, name: str) -> Peak:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "profiling.memory", library, name]
    answer = subprocess.run(command, cwd=environment.ROOT, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        lines = answer.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"{name} of {library}: {lines[-1]}")
    return Peak(**json.loads(answer.stdout.splitlines()[-1]))


def row(name: str, libraries: tuple[str, ...]) -> Row:
    """Measure one memory case for `libraries` and return its row of the table."""
    case = memory_cases()[name]
    result = Row(name=name, title=case.title, unit="x J", targets=(Target("value", case.at_most),))
    for library in (one for one in case.options if one in libraries):
        try:
            peak = measure_apart(library, name)
        except RuntimeError as error:
            result.errors[library] = str(error)
            continue
        result.values[library] = peak.ratio
        result.details[library] = vars(peak)
        if not peak.error <= case.rtol:
            result.differences[library] = f"off by {peak.error:.2g} from central differences"
    return result


if __name__ == "__main__":
    environment.enter()
    print(json.dumps(vars(measure(memory_cases()[sys.argv[2]], sys.argv[1]))))
