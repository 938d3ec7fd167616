"""Times one Jacobian over chunk sizes, and drives another one out of memory to see that it ends well.

`python -m profiling.gpu_chunks [--dry]` prints lines of JSON. They answer which chunk size saturates
the card, and whether a MemoryError leaves nothing behind.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import Any

import numpy as np

import gpujac as gj
from profiling.cases import elementwise
from profiling.gpu_budget import WRONG
from profiling.gpu_cases import gpu_cases
from profiling.gpu_device import Device, device
from profiling.gpu_libraries import load_gpujac

CASE = "network-wide"
SIZES = (16, 64, 256, 1024, None, "auto")
SLACK_BYTES = 64 << 20  # what a library may keep from its first use: workspaces, handles


def over_sizes(dev: Device, is_dry: bool) -> list[dict[str, Any]]:
    """Return time and chunks per chunk size; "auto" also tells what it chose."""
    case, library = gpu_cases(is_dry)[CASE], load_gpujac(is_dry)
    f = case.program(library.np, **{name: library.array(value) for name, value in case.constants.items()})
    x = library.array(case.inputs[0])
    found = []
    for size in SIZES:
        plans: list[Any] = []
        gj.jacrev(f, chunk_size=size, report=plans.append)(x)
        jacobian = gj.jacrev(f, chunk_size=size)
        time_s = dev.median_s(lambda jacobian=jacobian: jacobian(x))
        found.append({"chunk_size": size, "chosen": plans[0].chunk_size, "chunks": plans[0].chunks, "time_s": time_s})
    return found


def too_large(dev: Device, np_like: Any) -> dict[str, Any]:
    """Ask for a Jacobian of twice the card's memory; it must raise, free everything, and work smaller."""
    pool = dev.xp.get_default_memory_pool()
    total = dev.xp.cuda.runtime.memGetInfo()[1]
    f, before = elementwise(np_like), pool.used_bytes()
    x = dev.array(np.linspace(0.0, 1.0, math.isqrt(2 * total // 8)))
    answer: dict[str, Any] = {"asked_bytes": 8 * x.size**2, "before_bytes": before}
    try:
        gj.jacrev(f)(x)
        return answer | {"error": "no MemoryError was raised"}
    except MemoryError as error:
        answer["message"] = str(error)[:200]
    del x
    answer["held_bytes"] = pool.used_bytes() - before
    if answer["held_bytes"] > SLACK_BYTES:
        return answer | {"error": f"{answer['held_bytes']} bytes are still held after the MemoryError"}
    small = gj.jacrev(f, memory="1MB")(dev.array(np.linspace(0.0, 1.0, 500)))
    wanted = gj.jacrev(elementwise(np))(np.linspace(0.0, 1.0, 500))
    off = float(np.max(np.abs(dev.host(small) - wanted)))
    return answer | ({"error": f"afterwards a Jacobian is off by {off:.2g}"} if off > 1e-9 else {})


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return 3 when running out of memory did not end well."""
    parser = argparse.ArgumentParser(prog="python -m profiling.gpu_chunks", description=__doc__)
    parser.add_argument("--dry", action="store_true", help="small, on the emulated backend; nothing runs out there")
    options = parser.parse_args(argv)
    dev = device(options.dry)
    for line in over_sizes(dev, options.dry):
        print(json.dumps(line), flush=True)
    if options.dry:
        return 0
    limit = too_large(dev, load_gpujac(False).np)
    print(json.dumps({"too_large": limit}))
    return WRONG if "error" in limit else 0


if __name__ == "__main__":
    sys.exit(main())
