"""Measures the extra peak memory of one large Jacobian, in a fresh process per library.

`python -m profiling.memory LIBRARY ASSEMBLY` is that process; it prints one line of JSON.
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
from profiling.report import Row, Target

SIZE = 8000
CHUNK = 100
WARM_SIZE = 4 * CHUNK
CASES = {
    "memory-preallocate": ("preallocate", 1.15),
    "memory-stack": ("stack", 2.15),
}
LIBRARIES = ("gpujac", "torch")


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


def coupled(np: Any) -> Callable[..., Any]:
    """An elementwise part and neighbors on a ring: rows with a few entries near the diagonal."""

    def f(x: Any) -> Any:
        near, far = np.roll(x, 1), np.roll(x, -3)
        return np.sin(x) * near + 0.5 * np.tanh(far) * x + far * far

    return f


def jacobian_of(library_name: str, assembly: str) -> Callable[[numpy.ndarray], Any]:
    """Return x -> Jacobian, in chunks of `CHUNK`, of the library's own arrays."""
    library = LOADERS[library_name]()
    if library_name == "gpujac":
        options: dict[str, Any] = {"assembly": assembly}
    else:
        options = {"_preallocate_and_copy": assembly == "preallocate"}
    f = coupled(library.np)
    transformed = library.transforms["jacrev"](f, chunk_size=CHUNK, **options)
    return lambda x: transformed(library.array(x))


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


def point(size: int) -> numpy.ndarray:
    """Return the (size,) float32 point of the Jacobian."""
    return numpy.random.default_rng(7).standard_normal(size).astype(numpy.float32)


def relative_error(jacobian: numpy.ndarray, x: numpy.ndarray) -> float:
    """Return how far `jacobian` is from central differences in one random direction."""
    direction = numpy.random.default_rng(8).standard_normal(x.size)
    f, x64, step = coupled(numpy), x.astype(numpy.float64), 1e-6
    expected = (f(x64 + step * direction) - f(x64 - step * direction)) / (2 * step)
    found = jacobian @ direction.astype(numpy.float32)
    return float(numpy.max(numpy.abs(found - expected)) / numpy.max(numpy.abs(expected)))


def measure(library: str, assembly: str, size: int = SIZE) -> Peak:
    """Measure in this process, which must be fresh; warmed on a small case first."""
    jacobian = jacobian_of(library, assembly)
    jacobian(point(WARM_SIZE))
    x = point(size)
    before, start = resident_bytes(), time.perf_counter()
    result = jacobian(x)
    seconds, after = time.perf_counter() - start, peak_bytes()
    values = numpy.asarray(result)
    return Peak(after - before, values.nbytes, seconds, relative_error(values, x))


def measure_apart(library: str, assembly: str) -> Peak:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "profiling.memory", library, assembly]
    answer = subprocess.run(command, cwd=environment.ROOT, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        lines = answer.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"memory of {library} ({assembly}): {lines[-1]}")
    return Peak(**json.loads(answer.stdout.splitlines()[-1]))


def row(name: str, libraries: tuple[str, ...]) -> Row:
    """Measure one memory case for `libraries` and return its row of the table."""
    assembly, at_most = CASES[name]
    result = Row(
        name=name,
        title=f"extra peak of jacrev {SIZE} to {SIZE}, float32, chunks of {CHUNK}, {assembly}",
        unit="x J",
        targets=(Target("value", at_most),),
    )
    for library in (name for name in LIBRARIES if name in libraries):
        try:
            peak = measure_apart(library, assembly)
        except RuntimeError as error:
            result.errors[library] = str(error)
            continue
        result.values[library] = peak.ratio
        result.details[library] = vars(peak)
        if not peak.error <= 1e-5:
            result.differences[library] = f"off by {peak.error:.2g} from central differences"
    return result


if __name__ == "__main__":
    environment.enter()
    print(json.dumps(vars(measure(sys.argv[1], sys.argv[2]))))
