"""Measures a Jacobian that is larger than its memory: the Brusselator's, dense, into a file on a disk.

`python -m profiling.out_cases` writes 8.6 GB at the size of 128 and removes them; it is no part of `make bench`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy

import gpujac as gj
from profiling import environment
from profiling.sweep_cases import grid, rolled

SIZE = 128
WARM_SIZE = 8
SAMPLE_S = 0.002
STATUS = Path("/proc/self/status")  # of Linux: elsewhere nobody tells anonymous memory from pages of files
FIELDS = {"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "file"}


@dataclass(frozen=True)
class Written:
    """What one process found; sizes in bytes, peaks over those before the call."""

    size: int
    chunk_size: int | None
    chunks: int
    jacobian_bytes: int
    seconds: float
    resident_bytes: int
    anonymous_bytes: int
    file_bytes: int
    error: float

    def text(self) -> str:
        """Return the line of a table."""
        mega = [n / 1e6 for n in (self.resident_bytes, self.anonymous_bytes, self.file_bytes)]
        return (
            f"N = {self.size}, {self.chunks} chunks: {self.jacobian_bytes / 1e9:.2f} GB in {self.seconds:.1f} s, "
            f"{self.jacobian_bytes / 1e6 / self.seconds:.0f} MB/s; peak {mega[0]:.0f} MB resident over the start "
            f"({mega[1]:.0f} MB anonymous, {mega[2]:.0f} MB pages of files); off by {self.error:.1g}"
        )


def resident() -> dict[str, int]:
    """Return what the process holds now: all, memory of its own, and pages of files."""
    found = dict.fromkeys(FIELDS.values(), 0)
    for line in STATUS.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in FIELDS:
            found[FIELDS[name]] = int(rest.split()[0]) * 1024
    return found


class Watch:
    """Follows the resident memory of the process in a thread, as long as a `with` block lasts."""

    def __init__(self) -> None:
        self.start = self.peak = resident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow)

    def _follow(self) -> None:
        while not self._over.wait(SAMPLE_S):
            now = resident()
            self.peak = {name: max(now[name], seen) for name, seen in self.peak.items()}

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def over(self, name: str) -> int:
        """Return the peak over the start."""
        return self.peak[name] - self.start[name]


def measure(size: int, chunk_size: Any, folder: Path) -> Written:
    """Measure in this process, which must be fresh; the file is removed."""
    f = rolled(numpy, size)
    gj.jacrev(rolled(numpy, WARM_SIZE), chunk_size=chunk_size)(grid(WARM_SIZE))
    y, plans = grid(size), []
    path = folder / "jacobian"
    try:
        out = numpy.memmap(path, float, "w+", shape=y.shape * 2)
        with Watch() as watch:
            start = time.perf_counter()
            gj.jacrev(f, chunk_size=chunk_size, out=out, report=plans.append)(y)
            seconds = time.perf_counter() - start
        error = relative_error(out.reshape(y.size, y.size), gj.jvp, f, y)
    finally:
        path.unlink(missing_ok=True)
    plan = plans[-1]
    peaks = [watch.over(name) for name in FIELDS.values()]
    return Written(size, plan.chunk_size, plan.chunks, out.nbytes, seconds, *peaks, error)


def relative_error(jacobian: numpy.ndarray, jvp: Callable[..., Any], f: Callable[..., Any], y: numpy.ndarray) -> float:
    """Return how far rows of the file are from a derivative in one direction."""
    t = numpy.random.default_rng(12).standard_normal(y.shape)
    wanted = jvp(f, (y,), (t,))[1].ravel()
    step = max(1, (64 << 20) // (8 * y.size))
    found = numpy.concatenate([jacobian[i : i + step] @ t.ravel() for i in range(0, y.size, step)])
    return float(numpy.max(numpy.abs(found - wanted)) / numpy.max(numpy.abs(wanted)))


def main(argv: list[str] | None = None) -> int:
    """Run in a fresh process and print a line; return 1 where there is no room or no way to measure."""
    parser = argparse.ArgumentParser(prog="python -m profiling.out_cases", description=__doc__)
    parser.add_argument("--size", type=int, default=SIZE, help="grid points in each direction (default 128)")
    parser.add_argument("--chunk", type=int, default=None, help="rows per sweep, all written out (default: no rows)")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the file is written")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    needed = 8 * (2 * options.size**2) ** 2
    if not STATUS.exists() or shutil.disk_usage(options.folder).free < 1.1 * needed:
        print(f"{needed / 1e9:.1f} GB free in {options.folder} and Linux are needed; try --folder or --size")
        return 1
    if not options.here:
        command = [sys.executable, "-m", "profiling.out_cases", "--here", *(sys.argv[1:] if argv is None else argv)]
        return subprocess.run(command, cwd=environment.ROOT, check=False).returncode
    environment.enter()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(options.size, options.chunk or "auto", Path(folder))
    print(found.text())
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
