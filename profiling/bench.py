"""The entry of `make bench`: run as `python -m profiling.bench` from the repository's root."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from profiling import environment, memory, report
from profiling.cases import Case, jacobian_cases
from profiling.libraries import LOADERS, Library
from profiling.memory_cases import memory_cases
from profiling.protocol import Effort, Timing, numpy_probe, time_case
from profiling.sweep_cases import sweep_cases
from profiling.transform_cases import transform_cases
from profiling.values import difference

RESULTS = environment.ROOT / "profiling" / "results"
QUICK = Effort(rounds=5, batch_s=0.005)


def all_cases() -> dict[str, Case]:
    """Return every timed case by its name, in the order of the table."""
    return {case.name: case for case in jacobian_cases() + transform_cases() + sweep_cases()}


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m profiling.bench", description=__doc__)
    names = [*all_cases(), *memory_cases()]
    parser.add_argument("--case", action="append", choices=names, metavar="NAME", help="repeatable; default all")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds per case (default 21)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all numbers to PATH")
    parser.add_argument("--write", action="store_true", help="keep the results in the repository")
    parser.add_argument("--peers-only", action="store_true", help="leave gpujac out (to work on the harness)")
    options = parser.parse_args(argv)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def load(peers_only: bool) -> dict[str, Library]:
    """Return the libraries that can be imported, gpujac first; say which are missing."""
    libraries = {}
    for name, loader in LOADERS.items():
        if name == "gpujac" and peers_only:
            continue
        try:
            libraries[name] = loader()
        except ImportError as error:
            if name == "gpujac":
                raise
            print(f"{name} is left out: {error}")
    return libraries


def assert_ours() -> None:
    """Print which gpujac is measured; stop when it is not the repository's."""
    found = Path(str(import_module("gpujac").__file__)).resolve()
    print(f"gpujac: {found}")
    if environment.ROOT not in found.parents:
        raise SystemExit(f"this gpujac is not the one of {environment.ROOT}: run from there")


def run_case(case: Case, libraries: dict[str, Library], effort: Effort, probe: Callable[[], float]) -> report.Row:
    """Check that all libraries agree on `case`, then time them."""
    row = report.Row(case.name, case.title, "x" if case.quotient else "s", case.targets, case.ops)
    calls = agreeing_calls(case, libraries, row)
    if row.failed() or not calls:
        return row
    gc.collect()
    gc.freeze()  # what the libraries hold is no work for the collector during a batch
    timing = time_case(calls, effort, probe)
    gc.unfreeze()
    row.values = compared(case, timing)
    row.void = timing.void
    row.details = {
        "rounds_s": timing.rounds_s,
        "probe_before_s": timing.probe_before_s,
        "probe_after_s": timing.probe_after_s,
        "probe_drift": timing.drift,
        "cpu_share": timing.cpu_share,
        "attempts": timing.attempts,
    }
    return row


BESIDE = " beside"  # what the name of a library has behind it where the other case is timed


def compared(case: Case, timing: Timing) -> dict[str, float]:
    """Return the times of `case`, less those of the case beside it or divided by them."""
    medians = timing.medians_s
    if case.beside is None:
        return medians
    pairs = {name: (medians[name], medians[name + BESIDE]) for name in medians if not name.endswith(BESIDE)}
    return {name: a / b if case.quotient else a - b for name, (a, b) in pairs.items()}


def agreeing_calls(case: Case, libraries: dict[str, Library], row: report.Row) -> dict[str, Callable[[], Any]]:
    """Return a call per library; failures and differences from the first one go to `row`."""
    calls: dict[str, Callable[[], Any]] = {}
    reference = None
    for name in case.libraries:
        if name not in libraries:
            continue
        try:
            call = case.prepare(libraries[name])
            result = call()
        except Exception as error:  # any library may fail in any way: report it, go on
            row.errors[name] = f"{type(error).__name__}: {error}"
            continue
        reference = result if reference is None else reference
        differs = difference(reference, result, case.rtol)
        if differs is not None:
            row.differences[name] = differs
        calls[name] = call
        if case.beside is not None:
            calls[name + BESIDE] = case.beside.prepare(libraries[name])
    return calls


def measure(options: argparse.Namespace) -> list[report.Row]:
    """Run the chosen cases one after the other, memory first while this process is small."""
    names = options.case or [*all_cases(), *memory_cases()]
    wanted = tuple(name for name in LOADERS if name != "gpujac" or not options.peers_only)
    rows = {}
    for name in (name for name in memory_cases() if name in names):
        rows[name] = memory.row(name, wanted)
        print(f"{name}: {rows[name].verdict()}", flush=True)
    effort = QUICK if options.quick else Effort()
    if options.rounds is not None:
        effort = Effort(options.rounds, effort.batch_s)
    timed = {name: case for name, case in all_cases().items() if name in names}
    if timed:
        libraries, probe = load(options.peers_only), numpy_probe()
        for name, case in timed.items():
            rows[name] = run_case(case, libraries, effort, probe)
            print(f"{name}: {rows[name].verdict()}", flush=True)
    return [rows[name] for name in [*timed, *memory_cases()] if name in rows]


def keep(rows: list[report.Row], options: argparse.Namespace) -> None:
    """Write the files that were asked for."""
    machine = environment.describe()
    if options.json is not None:
        options.json.write_text(report.as_json(rows, machine))
    if options.write:
        date = datetime.now(UTC).date().isoformat()
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{date}-cpu.json").write_text(report.as_json(rows, machine))
        (RESULTS / f"{date}-cpu.md").write_text(report.as_markdown(rows, machine, date))
        print(f"written: profiling/results/{date}-cpu.json and .md")


def main(argv: list[str] | None = None) -> int:
    """Run; return 0, or 1 when values differ or gpujac fails. A missed target is only shown."""
    options = arguments(argv)
    if options.list:
        print("\n".join([*all_cases(), *memory_cases()]))
        return 0
    environment.enter()
    if not options.peers_only:
        assert_ours()
    rows = measure(options)
    print(report.table(rows))
    print("\n".join(report.notes(rows)))
    keep(rows, options)
    return 1 if any(row.failed() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
