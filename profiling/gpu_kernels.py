"""Each kernel of ours against its NumPy oracle on large and odd shapes, then its time.

`python -m profiling.gpu_kernels FAMILY [--dry]` prints one line of JSON per case and ends with 3
when a kernel is wrong. One process per family: an illegal access kills a CUDA context for good.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from gpujac import settings
from profiling.gpu_budget import WRONG
from profiling.gpu_chain_cases import chain_cases
from profiling.gpu_device import Device, device
from profiling.gpu_kernel_cases import KernelCase, gather_cases, scatter_cases
from profiling.gpu_matrix_cases import matrix_cases
from profiling.values import difference

FAMILIES: dict[str, Callable[[bool], list[KernelCase]]] = {
    "gather": gather_cases,
    "scatter_add": scatter_cases,
    "chain": chain_cases,
    "matrices": matrix_cases,
}


def run_case(case: KernelCase, dev: Device, free_bytes: int | None) -> dict[str, Any]:
    """Compare one case with its oracle; time it if it is right and large, kernels on and off."""
    answer: dict[str, Any] = {"case": case.name}
    if free_bytes is not None and case.needs_bytes > free_bytes:
        return answer | {"skipped": f"needs {case.needs_bytes / 1e9:.0f} GB of memory"}
    job = case.build(dev, np.random.default_rng(len(case.name)))
    found = job.call()
    host = tuple(dev.host(x) for x in found) if isinstance(found, tuple) else dev.host(found)
    wrong = difference(job.expected, host, job.rtol)
    if wrong is not None:
        return answer | {"error": wrong}
    if case.timed:
        answer |= {"time_s": dev.median_s(job.call), "bytes": job.bytes}
        with settings.override(kernels="off"):
            answer["plain_s"] = dev.median_s(job.call)
    return answer


def main(argv: list[str] | None = None) -> int:
    """Run one family; return 3 when a kernel is wrong."""
    parser = argparse.ArgumentParser(prog="python -m profiling.gpu_kernels", description=__doc__)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--only", default="", metavar="TEXT", help="the cases whose names hold TEXT")
    parser.add_argument("--dry", action="store_true", help="small, on the emulated backend")
    options = parser.parse_args(argv)
    dev = device(options.dry)
    wrong = False
    for case in FAMILIES[options.family](options.dry):
        if options.only not in case.name:
            continue
        answer = run_case(case, dev, dev.backend.memory_free_bytes())
        wrong |= "error" in answer
        print(json.dumps(answer), flush=True)
    return WRONG if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
