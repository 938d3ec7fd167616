"""Runs tests on the card: the smoke selection of `make gpu`, and one shard of the whole suite.

`python -m profiling.gpu_tests --shard 1/4` is `make gpu-suite SHARD=1/4`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from profiling import environment, gpu_shard
from profiling.gpu_budget import Budget, Part
from profiling.gpu_device import describe

SHARD_S = 520.0
WORKERS = max(1, min(8, (os.cpu_count() or 1) // 2))  # test processes; each holds a CUDA context
# What a card is asked first: every op on CuPy arrays, and the tests of the transforms on them.
SMOKE = (
    "-k", "cupy", "tests/ops/test_every_op.py", "tests/transforms/test_cupy_again.py",
    "tests/transforms/test_out_cupy.py", "tests/array/test_padding.py", "tests/control/test_control_cupy.py",
    "tests/control/test_custom_cupy.py",
)  # fmt: skip
_WORDS = re.compile(r"(\d+) (passed|failed|skipped|xfailed|xpassed|errors?|deselected)")


def command(dry: bool, workers: int, *what: str) -> list[str]:
    """Return the command that runs tests on the card, or on the emulated backend."""
    spread = ["-n", str(workers)] if workers > 1 and find_spec("xdist") else []
    backend = "emulated" if dry else "cupy"
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE", "--tb=short",
            f"--backend={backend}", *spread, *what]  # fmt: skip


@dataclass(frozen=True)
class Count:
    """What pytest said at the end: numbers by word, and the tests that failed."""

    line: str
    numbers: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def read(output: str) -> Count:
    """Return the counts in pytest's output; none where it did not come to its end."""
    lines = [line for line in output.splitlines() if re.search(r"\d+ (passed|failed|skipped|error)", line)]
    if not lines:
        return Count("no summary")
    numbers = {word.rstrip("s") if word == "errors" else word: int(n) for n, word in _WORDS.findall(lines[-1])}
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    return Count(lines[-1].strip("= "), numbers, failed)


def main(argv: list[str] | None = None) -> int:
    """Run one shard; return 0 when every test of it passed."""
    parser = argparse.ArgumentParser(prog="python -m profiling.gpu_tests", description=__doc__)
    parser.add_argument("--shard", required=True, metavar="I/N", help="which part of the tests, as in 1/4")
    parser.add_argument("--dry", action="store_true", help="on the emulated backend")
    parser.add_argument("--workers", type=int, default=WORKERS, metavar="N", help=f"test processes ({WORKERS})")
    parser.add_argument("--budget", type=float, default=SHARD_S, metavar="S", help="seconds (520)")
    parser.add_argument("--slow", action="store_true", help="the slow tests as well; some of them need a network")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the counts go as JSON; default nowhere")
    parser.add_argument("what", nargs="*", default=["tests"], help="files or folders of tests")
    options = parser.parse_args(argv)
    try:
        index, count = gpu_shard.parse(options.shard)
    except ValueError as error:
        parser.error(f"--shard: {error}")
    shard = ["-p", "profiling.gpu_shard", f"--shard={options.shard}"]
    shard += [] if options.slow else ["-m", "not slow"]
    tests = command(options.dry, options.workers, *shard, *options.what)
    outcome = Budget(options.budget).run(Part("suite", tests, options.budget), environment.ROOT)
    print(outcome.output[-20_000:], outcome.errors, sep="\n")
    found = read(outcome.output)
    print(f"shard {options.shard}: {outcome.status} after {outcome.seconds:.0f} s: {found.line}")
    if options.out is not None:
        facts = describe(options.dry) | {"commit": environment.commit(), "shard": options.shard, "what": options.what,
                                         "status": outcome.status, "seconds": outcome.seconds,
                                         "counts": found.numbers, "failed": found.failed}  # fmt: skip
        keep(options.out, facts, index, count)
    return 0 if outcome.status == "done" else 1


def keep(folder: Path, facts: dict[str, Any], index: int, count: int) -> None:
    """Write the counts of a shard."""
    folder.mkdir(parents=True, exist_ok=True)
    date = datetime.now(UTC).date().isoformat()
    path = folder / f"{date}-{facts['slug']}-suite-{index}of{count}.json"
    path.write_text(json.dumps({"date": date, **facts}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
