"""Counts the cases that run on CuPy arrays: `python -m tests.proven`.

A case counts for the emulated backend if it is in one of `CASES`, and for a card only if it passed on
one: that number is read from what `make gpu` and `make gpu-suite` left in profiling/results.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "profiling" / "results"
# Parts of the table: what is proven, the files, and words that a case's identifier has.
CASES = {
    "ops": (("tests/ops/test_every_op.py",), "cupy"),
    "calls of CuPy's functions, hazards, payloads": (
        ("tests/array/test_cupy_dispatch.py", "tests/array/test_cupy_hazards.py",
         "tests/array/test_cupy_namespace.py", "tests/array/test_cupy_payloads.py", "tests/test_adopt.py"), ""),
    "transforms": (
        ("tests/transforms/test_cupy.py", "tests/transforms/test_cupy_again.py",
         "tests/transforms/test_cupy_note.py", "tests/transforms/test_out_cupy.py"), ""),
    "control flow, custom functions and operations": (
        ("tests/control/test_control_cupy.py", "tests/control/test_custom_cupy.py",
         "tests/control/test_custom_kernels.py"), ""),
    "parity with torch.func": (("tests/parity/test_on_cupy.py",), ""),
    "zoo": (("tests/test_zoo_cupy.py",), ""),
    "random programs, 20 each": (("tests/test_fuzz_cupy.py",), ""),
}  # fmt: skip


def collected() -> list[str]:
    """The identifiers of all cases in the files of `CASES`, slow ones included."""
    files = [name for names, _ in CASES.values() for name in names]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "::" in line]


def emulated() -> dict[str, int]:
    """How many cases of each part run on the emulated backend."""
    cases = collected()
    return {
        part: sum(case.startswith(names) and word in case for case in cases)
        for part, (names, word) in CASES.items()
    }


def on_a_card(folder: Path = RESULTS) -> int:
    """How many cases passed on a card, in the one result that has the most of them."""
    best = 0
    for path in sorted(folder.glob("*.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts.get("dry") is False:  # what `make gpu` writes: its smoke selection
            found = re.search(r"(\d+) passed", facts.get("tests") or "")
            best = max(best, int(found[1]) if found else 0)
        elif "shard" in facts and facts.get("slug") != "dry" and _ours(facts.get("what", [])):
            best = max(best, facts["counts"].get("passed", 0))
    return best


def _ours(what: list[str]) -> bool:
    files = {name for names, word in CASES.values() for name in names if not word}
    return bool(what) and set(what) <= files


def table() -> str:
    """The two counts as a table for docs/cupy.md."""
    counts = emulated()
    rows = [f"| {part} | {n} |" for part, n in counts.items()]
    total = f"{sum(counts.values())} cases on the emulated backend, {on_a_card()} on a card."
    return "\n".join(["| cases | emulated |", "|---|---|", *rows, "", total])


if __name__ == "__main__":
    print(table())
