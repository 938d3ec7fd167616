"""The entry of `make gpu`: everything that needs a card, in one command of less than 9 minutes.

`python -m profiling.gpu --dry` runs the same parts and the same cases, small, on the emulated
backend.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from profiling import environment, gpu_kernels, gpu_tests
from profiling.gpu_budget import MISSING, WRONG, Budget, Outcome, Part
from profiling.gpu_cases import gpu_cases
from profiling.gpu_device import describe
from profiling.gpu_report import Results, as_json, as_markdown, read_lines, summary

BUDGET_S = 510.0
RESULTS = environment.ROOT / "profiling" / "results"
DRY_RESULTS = environment.ROOT / "build" / "gpu-dry"
PACKAGES = ("numpy", "cupy-cuda12x", "cupy-cuda13x", "optree", "torch", "jax", "jaxlib")
VARIABLES = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # JAX would take most of the card's memory at once
    "JAX_ENABLE_X64": "1",
}


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m profiling.gpu", description=__doc__)
    parser.add_argument("--dry", action="store_true", help="the same cases, small, on the emulated backend")
    parser.add_argument("--list", action="store_true", help="print the parts and the cases")
    parser.add_argument("--part", action="append", metavar="NAME", help="repeatable; default all")
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="S", help="seconds for all (510)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where JSON and Markdown go")
    parser.add_argument("--workers", type=int, default=gpu_tests.WORKERS, metavar="N",
                        help=f"test processes ({gpu_tests.WORKERS})")  # fmt: skip
    options = parser.parse_args(argv)
    names = [part.name for part in parts(options.dry, Path(), 1)]
    for name in options.part or ():
        if name not in names:
            parser.error(f"--part {name}: there are {', '.join(names)}")
    options.part = options.part or names
    if any(name.startswith("bench ") for name in options.part):
        options.part.append("bench reference")  # what the others are compared with
    return options


def parts(dry: bool, reference: Path, workers: int) -> list[Part]:
    """Return all parts in the order of worth: what comes last is what a short budget loses."""
    python, flag = sys.executable, ["--dry"] if dry else []
    ours = {"GPUJAC_BACKEND": "emulated"} if dry else {}

    def bench(library: str, name: str, at_most_s: float, **variables: str) -> Part:
        command = [python, "-m", "profiling.gpu_bench", library, "--reference", str(reference), *flag]
        return Part(f"bench {name}", command, at_most_s, 10.0, VARIABLES | variables, (0, MISSING))

    kernels = [
        Part(f"kernels {family}", [python, "-m", "profiling.gpu_kernels", family, *flag], 75.0, good_codes=(0, WRONG))
        for family in gpu_kernels.FAMILIES
    ]
    smoke = gpu_tests.command(dry, workers, "-m", "not slow", *gpu_tests.SMOKE)
    return [
        Part("machine", [python, "-m", "profiling.gpu_machine", *flag], 60.0),
        *kernels,
        bench("numpy", "reference", 60.0),
        bench("gpujac", "gpujac", 90.0, **ours),
        Part("chunks", [python, "-m", "profiling.gpu_chunks", *flag], 60.0, 10.0, ours, (0, WRONG)),
        Part("launches", [python, "-m", "profiling.gpu_launches", *flag], 60.0, 10.0, ours, (0, MISSING)),
        Part("tests", smoke, 180.0, 20.0),
        bench("torch", "torch", 60.0),
        bench("jax", "jax", 90.0),
        bench("gpujac", "kernels off", 60.0, GPUJAC_KERNELS="off", **ours),
        bench("torch.compile", "torch.compile", 240.0),
    ]  # fmt: skip


def collect(results: Results, outcome: Outcome) -> None:
    """Read what a part printed into the results."""
    results.parts.append(outcome)
    found = read_lines(outcome.output)
    kind, _, name = outcome.name.partition(" ")
    if kind == "machine" and found:
        results.rates = found[-1]
    elif kind == "kernels":
        results.kernels += [{"family": name, **line} for line in found]
    elif kind == "chunks":
        results.chunks = [line for line in found if "time_s" in line]
        results.too_large = next((line["too_large"] for line in found if "too_large" in line), {})
    elif kind == "launches":
        results.launches = {line["case"]: line for line in found if "case" in line}
        for line in found:
            results.missing |= {"launches": line["missing"]} if "missing" in line else {}
    elif kind == "tests":
        results.tests = gpu_tests.read(outcome.output).line if outcome.status != "skipped" else ""
    elif kind == "bench" and name != "reference":
        for line in found:
            if "missing" in line:
                results.missing[name] = line["missing"]
            else:
                results.bench.setdefault(line["case"], {})[name] = line


def run(options: argparse.Namespace) -> Results:
    """Run the parts that fit into the budget and return what they found."""
    budget = Budget(options.budget)
    cases = gpu_cases(options.dry)
    machine = environment.describe(PACKAGES) | describe(options.dry)
    machine["versions"] = {name: v for name, v in machine["versions"].items() if v != "not installed"}
    results = Results(
        date=datetime.now(UTC).date().isoformat(),
        machine=machine,
        dry=options.dry,
        titles={name: case.title for name, case in cases.items()},
    )
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for part in parts(options.dry, Path(folder), options.workers):
            if part.name not in options.part:
                continue
            outcome = budget.run(part, environment.ROOT)
            collect(results, outcome)
            print(f"{part.name}: {outcome.status}, {outcome.seconds:.0f} s", flush=True)
            if outcome.status == "failed":
                print(outcome.output[-2000:], outcome.errors, sep="\n", flush=True)
    results.seconds = time.monotonic() - started
    return results


def keep(results: Results, folder: Path) -> None:
    """Write JSON and Markdown; the names carry the date and the card."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{results.date}-{results.machine['slug']}"
    (folder / f"{stem}.json").write_text(as_json(results))
    (folder / f"{stem}.md").write_text(as_markdown(results))
    print(f"written: {stem}.json and {stem}.md")


def main(argv: list[str] | None = None) -> int:
    """Run; return 0 when all that ran is right, 1 otherwise, 2 where there is no card."""
    options = arguments(argv)
    if options.list:
        print("\n".join(part.name for part in parts(options.dry, Path(), 1)))
        print("\n".join(f"{name}: {case.title}" for name, case in gpu_cases(options.dry).items()))
        return 0
    try:
        describe(options.dry)
    except Exception as error:  # CuPy absent, no driver, no device: each says it in its own way
        print(f"make gpu: no CUDA device can be used: {type(error).__name__}: {error}", file=sys.stderr)
        print("nothing was checked; `make gpu DRY=1` runs the same cases without a card", file=sys.stderr)
        return 2
    results = run(options)
    keep(results, options.out or (DRY_RESULTS if options.dry else RESULTS))
    print(summary(results))
    return 1 if results.wrong() else 0


if __name__ == "__main__":
    sys.exit(main())
