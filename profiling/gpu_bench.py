"""Runs the GPU benchmark of one library in this process: right values first, then times.

`python -m profiling.gpu_bench LIBRARY --reference DIR` prints one line of JSON per case, as soon as
the case is done. The library "numpy" writes the reference values into DIR; each other one is
compared with them before it is timed.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy

from profiling.gpu_budget import MISSING
from profiling.gpu_cases import GpuCase, gpu_cases
from profiling.gpu_device import DRY_EFFORT, Effort
from profiling.gpu_libraries import LOADERS, GpuLibrary
from profiling.values import difference

CASE_S = 60.0  # after so long a case is given up, compilation included


class CaseTimeoutError(Exception):
    """A case took longer than it may."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise `CaseTimeoutError` in the block after `seconds`."""

    def stop(signum: int, frame: Any) -> None:
        raise CaseTimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 2.0)  # again: the first may fall where it is swallowed
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def wall_s(library: GpuLibrary, call: Callable[[], Any], count: int) -> float:
    """Return wall seconds per call of `count` calls in a row, the last one waited for."""
    start = time.perf_counter()
    for _ in range(count - 1):
        call()
    library.wait(call())
    return (time.perf_counter() - start) / count


def event_s(library: GpuLibrary, call: Callable[[], Any], count: int) -> float | None:
    """Return seconds per call between two CUDA events; None for a library without events."""
    if library.record is None or library.elapsed_s is None:
        return None
    start = library.record()
    for _ in range(count):
        call()
    return library.elapsed_s(start, library.record()) / count


def timed(library: GpuLibrary, call: Callable[[], Any], effort: Effort) -> dict[str, Any]:
    """Return rounds of wall times and of event times, in turn, and their medians."""
    count = 1
    while (taken_s := wall_s(library, call, count) * count) < effort.batch_s / 2 and count < 4096:
        count *= 2
    count = max(1, round(count * effort.batch_s / taken_s))
    walls, events = [], []
    for _ in range(effort.rounds):
        gc.collect()
        walls.append(wall_s(library, call, count))
        events.append(event_s(library, call, count))
    seen = [time_s for time_s in events if time_s is not None]
    return {
        "calls_per_round": count,
        "wall_s": walls,
        "event_s": seen,
        "median_s": statistics.median(seen or walls),
        "clock": "events" if seen else "wall",
    }


def run_case(library: GpuLibrary, case: GpuCase, reference: Path, effort: Effort) -> dict[str, Any]:
    """Run one case: first call, comparison, memory, times. A failure is part of the answer."""
    answer: dict[str, Any] = {"case": case.name, "library": library.name}
    try:
        with limit(CASE_S):
            start = time.perf_counter()
            call = library.prepare(case)
            result = call()
            library.wait(result)
            answer["first_call_s"] = time.perf_counter() - start
            value = library.host(result)
            path = reference / f"{case.name}.npy"
            if library.name == "numpy":
                numpy.save(path, value)
                return answer
            del result
            differs = difference(numpy.load(path), value, case.rtol)
            if differs is not None:
                return answer | {"difference": differs}
            answer["peak_bytes"] = library.peak_bytes(call)
            return answer | timed(library, call, effort)
    except Exception as error:  # a library may fail in any way: say how, and go on
        lines = str(error).strip().splitlines() or [""]
        return answer | {"error": f"{type(error).__name__}: {lines[0][:300]}"}


def main(argv: list[str] | None = None) -> int:
    """Run the cases; return 4 when the library cannot be loaded."""
    parser = argparse.ArgumentParser(prog="python -m profiling.gpu_bench", description=__doc__)
    parser.add_argument("library", choices=LOADERS)
    parser.add_argument("--reference", type=Path, required=True, metavar="DIR")
    parser.add_argument("--case", action="append", metavar="NAME", help="repeatable; default all")
    parser.add_argument("--dry", action="store_true", help="small sizes on the emulated backend")
    options = parser.parse_args(argv)
    cases = gpu_cases(options.dry)
    effort = DRY_EFFORT if options.dry else Effort()
    try:
        library = LOADERS[options.library](options.dry)
    except ImportError as error:
        print(json.dumps({"library": options.library, "missing": str(error)}), flush=True)
        return MISSING
    for name in options.case or cases:
        print(json.dumps(run_case(library, cases[name], options.reference, effort)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
