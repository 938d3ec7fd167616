"""Prints the zoo as a table, function by transform: `python -m tests.zoo`."""

from __future__ import annotations

import sys

from tests.zoo import ZOO
from tests.zoo.checks import BATCHED, CHECKS, run_check


def verdict(entry, name):
    """ "ok", "-" where values decide the control flow, or "FAIL" with the reason."""
    if name in BATCHED and not entry.mappable:
        return "-", ""
    try:
        run_check(entry, name)
    except Exception as error:  # the table shows every failure, whatever it is
        lines = str(error).strip().splitlines() or [""]
        return "FAIL", f"{entry.name}, {name}: {type(error).__name__}: {lines[0]}"
    return "ok", ""


def main() -> int:
    """Prints the table and the reasons of failures; 1 if anything failed."""
    width = max(len(entry.name) for entry in ZOO)
    print(" " * width, *(f"{name:>{len(name)}}" for name in CHECKS), sep="  ")
    reasons, whole, by_value = [], 0, 0
    for entry in ZOO:
        cells = [(name, *verdict(entry, name)) for name in CHECKS]
        print(f"{entry.name:{width}}", *(f"{c:>{len(n)}}" for n, c, _ in cells), sep="  ", flush=True)
        failed = [reason for _, _, reason in cells if reason]
        reasons += failed
        whole += not failed and entry.mappable
        by_value += not failed and not entry.mappable
    print()
    print(f"{whole} of {len(ZOO)} run through every transform with no edit.")
    print(f"{by_value} more run through every transform but batch with vmap's method='loop' only,")
    print("since values decide their branches.")
    print(*reasons, sep="\n")
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
