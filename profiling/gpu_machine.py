"""Measures the card itself: what a launch costs, how fast it copies, how fast it multiplies.

`python -m profiling.gpu_machine [--dry]` prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy

from gpujac.backends.kernels import Kernel
from profiling.gpu_device import Device, device

EMPTY = Kernel('extern "C" __global__ void gj_empty() {\n}\n', "gj_empty")


def launches(dev: Device) -> dict[str, float]:
    """Return microseconds per launch: what the host spends, and what passes on the device."""
    x = dev.array(numpy.ones(1024, numpy.float32))
    out = dev.array(numpy.ones(1024, numpy.float32))
    calls: dict[str, Callable[[], object]] = {
        "own_kernel": lambda: dev.backend.launch(EMPTY, (1,), (32,), ()),
        "ufunc": lambda: dev.xp.add(x, x),
        "ufunc_out": lambda: dev.xp.add(x, x, out=out),
        "sum": lambda: dev.xp.sum(x),
    }
    found = {}
    for name, call in calls.items():
        found[f"{name}_host_us"] = 1e6 * dev.submit_s(call)
        found[f"{name}_device_us"] = 1e6 * dev.median_s(call)
    return found


def copy_rate(dev: Device, is_dry: bool) -> float:
    """Return bytes per second that a device-to-device copy reads and writes together."""
    size = 2**16 if is_dry else 2**28
    source = dev.xp.zeros(size, numpy.float32)
    target = dev.xp.empty_like(source)

    def copy() -> None:
        target[...] = source

    return 2 * source.nbytes / dev.median_s(copy)


def stream_rate(dev: Device, is_dry: bool) -> float:
    """Return bytes per second of an elementwise kernel of CuPy's that reads two and writes one."""
    size = 2**16 if is_dry else 2**27
    x, y = (dev.xp.zeros(size, numpy.float32) for _ in range(2))
    out = dev.xp.empty_like(x)
    return 3 * x.nbytes / dev.median_s(lambda: dev.xp.add(x, y, out=out))


def matmul_rate(dev: Device, dtype: str, is_dry: bool) -> float:
    """Return floating-point operations per second of a square matrix product."""
    size = 64 if is_dry else 8192
    rng = numpy.random.default_rng(0)
    matrix = dev.array(rng.standard_normal((size, size)).astype(dtype))
    return 2 * size**3 / dev.median_s(lambda: dev.xp.matmul(matrix, matrix))


def measure(is_dry: bool) -> dict[str, Any]:
    """Return all measurements of this part."""
    dev = device(is_dry)
    return {
        **launches(dev),
        "copy_bytes_per_s": copy_rate(dev, is_dry),
        "stream_bytes_per_s": stream_rate(dev, is_dry),
        "matmul_float32_flop_per_s": matmul_rate(dev, "float32", is_dry),
        "matmul_float64_flop_per_s": matmul_rate(dev, "float64", is_dry),
    }


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m profiling.gpu_machine", description=__doc__)
    parser.add_argument("--dry", action="store_true", help="on the emulated backend: the times mean nothing")
    options = parser.parse_args(argv)
    print(json.dumps(measure(options.dry)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
