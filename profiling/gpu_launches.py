"""Counts what each benchmark case of gpujac launches on the card, and how long the card is busy.

`python -m profiling.gpu_launches [--dry]` prints one line of JSON per case. On a card the activity
records of CUPTI are read through torch's profiler, which sees the kernels of every library in the
process; in a dry run the emulated backend counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from profiling.gpu_budget import MISSING
from profiling.gpu_cases import gpu_cases
from profiling.gpu_libraries import GpuLibrary, load_gpujac

CALLS = 3  # how many calls are recorded together


def read_trace(trace: dict[str, Any], calls: int, idle_waits: int = 0) -> dict[str, Any]:
    """Return per call: kernels, copies and fills, waits, seconds in which the card was busy.

    `idle_waits` are those that the recording has also without a call.

    `trace` is in Chrome's format, as torch's profiler writes it: work of the card has the
    categories kernel, gpu_memcpy and gpu_memset, calls of CUDA have cuda_runtime and cuda_driver.
    """
    events = [e for e in trace["traceEvents"] if e.get("ph") == "X"]
    kernels = [e for e in events if e.get("cat") == "kernel"]
    copies = [e for e in events if e.get("cat") in ("gpu_memcpy", "gpu_memset")]
    api = [e["name"] for e in events if e.get("cat") in ("cuda_runtime", "cuda_driver")]
    waits = [name for name in api if "Synchronize" in name or name in ("cudaMemcpy", "cuMemcpyDtoH_v2")]
    names = Counter(e["name"].split("(")[0][:60] for e in kernels)
    return {
        "kernels": len(kernels) / calls,
        "copies": len(copies) / calls,
        "waits": max(0, len(waits) - idle_waits) / calls,
        "busy_s": busy_us([(e["ts"], e["ts"] + e["dur"]) for e in kernels + copies]) / 1e6 / calls,
        "names": {name: count / calls for name, count in names.most_common(12)},
    }


def busy_us(spans: list[tuple[float, float]]) -> float:
    """Return how long at least one of the spans lasts: those that overlap count once."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def recorded(call: Callable[[], Any], library: GpuLibrary) -> dict[str, Any]:
    """Return the counts of a call on a card."""
    torch, profiler = import_module("torch"), import_module("torch.profiler")
    torch.zeros(1, device="cuda")  # the profiler listens to contexts that torch knows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"

        def trace(calls: int) -> dict[str, Any]:
            with profiler.profile(activities=[profiler.ProfilerActivity.CUDA]) as profile:
                for _ in range(calls):
                    call()
                library.wait(())
            profile.export_chrome_trace(str(path))
            return json.loads(path.read_text())

        idle = read_trace(trace(0), 1)["waits"]  # the wait at the end, and the profiler's own
        found = read_trace(trace(CALLS), CALLS, int(idle))
    if not found["kernels"]:
        raise ImportError("it recorded no kernel")
    return found


def counted(call: Callable[[], Any], library: GpuLibrary) -> dict[str, Any]:
    """Return the counts of a call on the emulated backend; it has no time."""
    emulated = import_module("gpujac.backends.emulated")
    with emulated.counting() as n:
        call()
    return {"kernels": n.launches, "copies": n.uploads, "waits": n.syncs, "names": n.by_name}


def main(argv: list[str] | None = None) -> int:
    """Run the cases; return 4 where torch is missing."""
    parser = argparse.ArgumentParser(prog="python -m profiling.gpu_launches", description=__doc__)
    parser.add_argument("--case", action="append", metavar="NAME", help="repeatable; default all")
    parser.add_argument("--dry", action="store_true", help="small sizes, counted by the emulated backend")
    options = parser.parse_args(argv)
    cases, library = gpu_cases(options.dry), load_gpujac(options.dry)
    count = counted if options.dry else recorded
    for name in options.case or cases:
        call = library.prepare(cases[name])
        library.wait(call())  # compiles
        try:
            found = count(call, library)
        except ImportError as error:
            print(json.dumps({"missing": f"counting launches needs torch's profiler: {error}"}))
            return MISSING
        print(json.dumps({"case": name, **found}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
