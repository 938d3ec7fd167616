"""Measures what an NVTX range costs: with no tool, while a recorder runs, and turned off.

`python -m profiling.range_cost` prints nanoseconds per pair of push and pop; with no tool attached
the design allows 250. Exit code 1 when it costs more.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from gpujac import ranges, settings

LIMIT_NS = 250.0
PAIRS = 20_000


def pair() -> None:
    """One range as the transforms open it."""
    token = ranges.push("chunk", ranges.CHUNK, 3)
    try:
        pass
    finally:
        ranges.pop(token)


def counted() -> None:
    """One range as a kernel launch opens it."""
    token = ranges.push_counted("kernel", ranges.KERNEL, len, (1, 2, 3))
    try:
        pass
    finally:
        ranges.pop(token)


def nothing() -> None:
    """The same without a range, which is taken off."""
    try:
        pass
    finally:
        pass


def cost_ns(f: Callable[[], None], rounds: int = 15) -> float:
    """Return nanoseconds per call of f beyond a call of nothing; the median over rounds."""
    found = []
    for _ in range(rounds):
        times = []
        for g in (nothing, f):
            start = time.perf_counter_ns()
            for _ in range(PAIRS):
                g()
            times.append((time.perf_counter_ns() - start) / PAIRS)
        found.append(times[1] - times[0])
    return statistics.median(found)


def measure() -> dict[str, float]:
    """Return nanoseconds per pair in each state."""
    pair()  # decides whether a tool is attached
    found = {"as it is": cost_ns(pair), "as it is, payload counted": cost_ns(counted)}
    with settings.override(nvtx="off"):
        found["nvtx off"] = cost_ns(pair)
    with ranges.record() as events:
        found["recorded"] = cost_ns(pair, 3)
        events.clear()
    return found


def main() -> int:
    """Print the costs; return 1 when a range costs too much without a tool."""
    print(f"ranges are {ranges.state()}")
    costs = measure()
    for state, nanoseconds in costs.items():
        print(f"{state:28} {nanoseconds:7.0f} ns")
    return int("no tool" in ranges.state() and costs["as it is"] > LIMIT_NS)


if __name__ == "__main__":
    sys.exit(main())
