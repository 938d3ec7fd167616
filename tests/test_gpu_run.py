"""Claims about `make gpu` that need no card: its budget, its list of cases, its shards, its report."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gpujac import arrays
from profiling import gpu, gpu_bench, gpu_kernels, gpu_launches, gpu_report, gpu_shard, gpu_tests
from profiling.gpu_budget import Budget, Outcome, Part
from profiling.gpu_cases import gpu_cases
from profiling.gpu_device import DRY_EFFORT
from profiling.gpu_libraries import LOADERS, GpuLibrary, load_numpy
from profiling.libraries import same
from tests import device

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# ---------------------------------------------------------------- the budget


def test_a_part_may_run_as_long_as_it_asks_or_as_is_left() -> None:
    clock = Clock()
    budget = Budget(100.0, clock)
    part = Part("p", [], at_most_s=60.0, at_least_s=5.0)
    assert budget.allowed_s(part) == 60.0
    clock.now = 50.0
    assert budget.allowed_s(part) == 50.0
    clock.now = 94.0
    assert budget.allowed_s(part) == 6.0
    clock.now = 96.0
    assert budget.allowed_s(part) == 0.0
    clock.now = 130.0
    assert budget.left_s() == 0.0


def test_a_part_without_time_left_is_skipped_and_nothing_is_started() -> None:
    outcome = Budget(1.0, Clock()).run(Part("p", ["no such program"], 60.0), ROOT)
    assert (outcome.status, outcome.code) == ("skipped", None)


def test_a_part_that_takes_too_long_is_stopped_with_its_children_and_keeps_what_it_said(tmp_path: Path) -> None:
    child = "import pathlib, sys, time; time.sleep(2); pathlib.Path(sys.argv[1]).touch()"
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}, {str(tmp_path / 'late')!r}])\n"
        "print('begun', flush=True)\ntime.sleep(60)\n"
    )
    budget = Budget(60.0)
    outcome = budget.run(Part("p", [PYTHON, "-c", code], at_most_s=1.0, at_least_s=0.1), ROOT)
    assert (outcome.status, outcome.output) == ("stopped", "begun\n")
    assert outcome.seconds < 30
    time.sleep(2)
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize(("code", "status"), [(0, "done"), (1, "done"), (3, "failed")])
def test_the_exit_code_of_a_part_says_whether_it_did_its_work(code: int, status: str) -> None:
    program = f"import sys; print('why', file=sys.stderr); sys.exit({code})"
    outcome = Budget(60.0).run(Part("p", [PYTHON, "-c", program], 60.0, good_codes=(0, 1)), ROOT)
    assert (outcome.status, outcome.code, outcome.errors) == (status, code, "why\n")


def test_a_part_gets_its_variables() -> None:
    part = Part("p", [PYTHON, "-c", "import os; print(os.environ['GPUJAC_KERNELS'])"], 60.0,
                variables={"GPUJAC_KERNELS": "off"})  # fmt: skip
    assert Budget(60.0).run(part, ROOT).output == "off\n"


# ---------------------------------------------------------------- the list of cases


def test_a_dry_run_has_the_same_parts_and_cases_as_a_run_on_a_card() -> None:
    def names(dry: bool) -> list[str]:
        return [part.name for part in gpu.parts(dry, Path(), 1)]

    assert names(True) == names(False)
    assert list(gpu_cases(True)) == list(gpu_cases(False))


def test_a_chosen_benchmark_brings_its_reference_along() -> None:
    assert gpu.arguments(["--part", "bench gpujac"]).part == ["bench gpujac", "bench reference"]
    assert gpu.arguments(["--part", "machine"]).part == ["machine"]
    with pytest.raises(SystemExit):
        gpu.arguments(["--part", "kernel"])


def test_every_part_fits_into_the_budget_and_the_budget_into_nine_minutes() -> None:
    assert gpu.BUDGET_S < 9 * 60 - 20
    assert all(part.at_least_s < part.at_most_s <= gpu.BUDGET_S for part in gpu.parts(False, Path(), 1))


def test_every_library_of_the_tables_is_run() -> None:
    benches = {part.name.removeprefix("bench ") for part in gpu.parts(False, Path(), 1) if "bench" in part.name}
    assert benches == {"reference", *gpu_report.LIBRARIES}
    assert {"numpy", "gpujac", "torch", "torch.compile", "jax"} == set(LOADERS)


def test_the_small_cases_are_small() -> None:
    for case in gpu_cases(True).values():
        arrays = [*case.inputs, *case.constants.values()]
        assert sum(np.asarray(a).size for a in arrays) <= 60_000, case.name


# ---------------------------------------------------------------- the benchmark of one library


def wrong_library() -> GpuLibrary:
    """Return gpujac on NumPy with a Jacobian that is off by one part in a million."""
    right = load_numpy(True)
    transforms = {**right.transforms, "jacrev": lambda f: lambda x: right.transforms["jacrev"](f)(x) * (1 + 1e-6)}
    return GpuLibrary("wrong", np, transforms, same, np.asarray, same)


def run_layers(library: GpuLibrary, folder: Path) -> dict:
    return gpu_bench.run_case(library, gpu_cases(True)["layers-jacrev"], folder, DRY_EFFORT)


def test_values_are_compared_before_anything_is_timed(tmp_path: Path) -> None:
    run_layers(load_numpy(True), tmp_path)
    found = run_layers(wrong_library(), tmp_path)
    assert "differs by" in found["difference"]
    assert "median_s" not in found


def test_a_library_that_agrees_is_timed_round_by_round(tmp_path: Path) -> None:
    run_layers(load_numpy(True), tmp_path)
    library = GpuLibrary("again", np, load_numpy(True).transforms, same, np.asarray, same)
    found = run_layers(library, tmp_path)
    assert len(found["wall_s"]) == DRY_EFFORT.rounds
    assert found["median_s"] > 0
    assert found["clock"] == "wall"


def test_a_library_that_fails_says_how_and_the_next_case_runs(tmp_path: Path) -> None:
    library = GpuLibrary("broken", np, {}, same, np.asarray, same)
    assert run_layers(library, tmp_path)["error"].startswith("KeyError")


def test_a_case_that_hangs_is_given_up() -> None:
    with pytest.raises(gpu_bench.CaseTimeoutError, match="not done after"), gpu_bench.limit(0.05):
        while True:
            pass


# ---------------------------------------------------------------- shards


@pytest.mark.parametrize("count", [1, 4, 7])
def test_shards_are_a_partition_of_the_tests(count: int) -> None:
    names = [f"tests/test_{i % 13}.py::test_claim[{i}-float64]" for i in range(3000)]
    shards = [{n for n in names if gpu_shard.shard_of(n, count) == i} for i in range(1, count + 1)]
    assert set().union(*shards) == set(names)
    assert sum(map(len, shards)) == len(names)
    assert all(len(shard) > 0.7 * len(names) / count for shard in shards)


@pytest.mark.parametrize("text", ["", "0/4", "5/4", "1", "a/b", "1/4/2", "-1/4", "1/0"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is none; write i/n"):
        gpu_shard.parse(text)


def collected(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """Return what pytest collects in a folder with our plugin."""
    command = [PYTHON, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "profiling.gpu_shard",
               "-c", str(folder / "pytest.ini"), f"--rootdir={folder}", *options, str(folder)]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_pytest_runs_each_test_in_exactly_one_shard(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_many.py").write_text(
        "import pytest\n@pytest.mark.parametrize('i', range(40))\ndef test_it(i): pass\n"
    )
    seen: list[str] = []
    for i in (1, 2, 3):
        done = collected(tmp_path, "--shard", f"{i}/3")
        assert done.returncode == 0, done.stderr
        seen += [line for line in done.stdout.splitlines() if "::" in line]
    assert len(seen) == len(set(seen)) == 40
    refused = collected(tmp_path, "--shard", "4/3")
    assert refused.returncode == 4
    assert "i from 1 to n" in refused.stderr


def test_the_counts_of_a_shard_are_read_from_pytest() -> None:
    output = "...F\nFAILED tests/a.py::test_b[x] - assert 0\n===== 1 failed, 3 passed, 2 skipped in 1.5s =====\n"
    found = gpu_tests.read(output)
    assert found.numbers == {"failed": 1, "passed": 3, "skipped": 2}
    assert found.failed == ["tests/a.py::test_b[x]"]
    assert found.line == "1 failed, 3 passed, 2 skipped in 1.5s"
    assert gpu_tests.read("killed").line == "no summary"


# ---------------------------------------------------------------- the report


def results(**changes: object) -> gpu_report.Results:
    """Return the results of a small run in which nothing is wrong."""
    facts: dict = {
        "date": "2030-01-02",
        "machine": {
            "card": "Card X", "slug": "card-x", "compute_capability": "9.0", "memory_bytes": 8e9,
            "driver_cuda": "13.0", "runtime_cuda": "12.9", "cpu": "CPU", "cores": 8, "system": "Linux x86_64",
            "versions": {"numpy": "2.4"}, "commit": "abc", "settings": {},
        },
        "dry": False,
        "seconds": 321.0,
        "parts": [Outcome("machine", "done", 9.0, 0)],
        "tests": "12 passed in 3.4s",
        "rates": {"own_kernel_host_us": 3.25, "copy_bytes_per_s": 4e12, "matmul_float32_flop_per_s": 5e13},
        "kernels": [{"family": "gather", "case": "large", "time_s": 1e-3, "bytes": 2_000_000_000, "plain_s": 2e-3},
                    {"family": "gather", "case": "odd"}],
        "titles": {"c": "jacrev of c"},
        "launches": {"c": {"kernels": 7.0, "copies": 2.0, "waits": 0.0, "busy_s": 2.5e-4,
                           "names": {"gemm": 2.0, "gj_chain": 5.0}}},
        "bench": {"c": {"gpujac": {"median_s": 1e-3, "peak_bytes": 5_000_000}, "torch": {"median_s": 4e-3}}},
    }  # fmt: skip
    return gpu_report.Results(**(facts | changes))


def test_the_tables_show_shares_and_ratios() -> None:
    text = gpu_report.summary(results())
    assert "2 of 2 cases equal their oracle" in text
    assert "50%" in text  # 2 GB in 1 ms beside 4 TB/s
    assert "| 2.0 x |" in text
    assert "4.000 TB/s" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| c ")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["c", "1.00 ms", "-", "4.00 ms", "-", "-", "0.25", "-", "-", "9", "5.0 MB", "-"]
    assert text.splitlines()[-1] == "make gpu: all that ran is right"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"parts": [Outcome("tests", "failed", 5.0, 1)]}, "tests: exit code 1"),
        ({"kernels": [{"family": "gather", "case": "odd", "error": "differs"}]}, "kernel gather odd: differs"),
        ({"bench": {"c": {"jax": {"difference": "differs by 1"}}}}, "c: jax: differs by 1"),
        ({"bench": {"c": {"gpujac": {"error": "KernelError: no"}}}}, "c: gpujac: KernelError: no"),
        ({"too_large": {"error": "no MemoryError was raised"}},
         "a Jacobian larger than the memory: no MemoryError was raised"),
    ],
)
def test_what_is_wrong_makes_the_run_fail(changes: dict, reason: str) -> None:
    found = results(**changes)
    assert found.wrong() == [reason]
    assert f"WRONG: {reason}" in gpu_report.summary(found)
    assert f"WRONG: {reason}" in gpu_report.as_markdown(found)
    assert gpu_report.summary(found).endswith("make gpu: FAILED")


def test_what_is_missing_is_told_and_is_no_failure() -> None:
    found = results(
        parts=[Outcome("bench jax", "skipped"), Outcome("bench torch.compile", "stopped", 33.0)],
        missing={"torch": "No module named 'torch'"},
        bench={"c": {"jax": {"error": "RuntimeError: out of memory"}}},
        kernels=[{"family": "gather", "case": "long", "skipped": "needs 12 GB of memory"}],
    )
    assert found.wrong() == []
    assert found.remarks() == [
        "bench jax: no time left, skipped",
        "bench torch.compile: stopped after 33 s",
        "torch is left out: No module named 'torch'",
        "c: jax: RuntimeError: out of memory",
        "kernel gather long: needs 12 GB of memory",
    ]
    assert "note: bench jax: no time left, skipped" in gpu_report.summary(found)
    assert gpu_report.summary(found).endswith("all that ran is right; 2 parts did not run to their end")


def test_the_page_has_the_chunk_sizes() -> None:
    lines = [{"chunk_size": "auto", "chosen": 256, "chunks": 8, "time_s": 3e-3}]
    text = gpu_report.as_markdown(results(chunks=lines))
    assert "| auto       |  256 |      8 | 3.00 ms |" in text


def test_the_page_tells_how_busy_the_card_is() -> None:
    (line,) = [line for line in gpu_report.launch_table(results()).splitlines() if line.startswith("| c ")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["c", "7", "2", "0", "250 us", "25%", "5 x gj_chain"]
    assert line in gpu_report.as_markdown(results())


def test_launches_are_counted_per_call_and_overlapping_work_is_busy_once() -> None:
    def event(cat: str, name: str, ts: float, dur: float) -> dict:
        return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur}

    trace = {"traceEvents": [
        event("kernel", "gj_chain(double*)", 0.0, 10.0), event("kernel", "gj_chain(double*)", 5.0, 10.0),
        event("kernel", "gemm", 100.0, 20.0), event("gpu_memcpy", "Memcpy DtoD", 110.0, 5.0),
        event("cuda_runtime", "cudaStreamSynchronize", 0.0, 1.0), event("cuda_runtime", "cudaLaunchKernel", 0.0, 1.0),
        event("cuda_runtime", "cudaDeviceSynchronize", 0.0, 1.0), {"ph": "M", "name": "process_name"},
    ]}  # fmt: skip
    assert gpu_launches.read_trace(trace, 2, idle_waits=1) == {
        "kernels": 1.5, "copies": 0.5, "waits": 0.5, "busy_s": 35e-6 / 2, "names": {"gj_chain": 1.0, "gemm": 0.5},
    }  # fmt: skip


def test_half_a_line_of_a_stopped_part_is_left_out() -> None:
    assert gpu_report.read_lines('warning\n{"case": "a"}\n[1]\n{"case": "b') == [{"case": "a"}]


def test_the_page_names_card_versions_commit_and_every_case() -> None:
    text = gpu_report.as_markdown(results())
    for expected in ("# make gpu, 2030-01-02, Card X", "compute capability 9.0, 8 GB", "commit: abc", "numpy 2.4",
                     "- `c`: jacrev of c", "| machine | done   |  9 s |"):  # fmt: skip
        assert expected in text
    data = json.loads(gpu_report.as_json(results()))
    assert data["bench"]["c"]["gpujac"]["median_s"] == 1e-3
    assert data["wrong"] == []


def test_results_are_collected_from_what_the_parts_print() -> None:
    found = results(parts=[], bench={}, kernels=[], rates={}, tests="")
    lines = {
        "machine": '{"copy_bytes_per_s": 1.0}',
        "kernels gather": '{"case": "odd"}',
        "tests": "...\n====== 1 failed, 3 passed in 1s ======",
        "bench reference": '{"case": "c", "library": "numpy"}',
        "bench kernels off": '{"case": "c", "library": "gpujac", "median_s": 2.0}',
        "bench torch": '{"library": "torch", "missing": "no torch"}',
    }
    for name, output in lines.items():
        gpu.collect(found, Outcome(name, "done", 1.0, 0, output))
    assert found.rates == {"copy_bytes_per_s": 1.0}
    assert found.kernels == [{"family": "gather", "case": "odd"}]
    assert found.tests == "1 failed, 3 passed in 1s"
    assert list(found.bench) == ["c"]
    assert list(found.bench["c"]) == ["kernels off"]
    assert found.missing == {"torch": "no torch"}


def test_every_file_of_the_smoke_tests_exists() -> None:
    paths = [text for text in gpu_tests.SMOKE if text.startswith("tests/")]
    assert paths
    assert all((ROOT / path).is_file() for path in paths)


def test_a_part_that_breaks_is_never_taken_for_one_that_did_its_work() -> None:
    """Python ends with 1 after an exception, argparse with 2 after a wrong option."""
    for part in gpu.parts(False, Path(), 1):
        assert not {1, 2} & set(part.good_codes), part.name


@pytest.mark.slow
@pytest.mark.skipif(bool(device.MISSING), reason="the dry run needs CuPy, which is not installed here")
def test_a_dry_run_passes_and_writes_both_files(tmp_path: Path) -> None:
    """All parts but the tests, which run anyway: every case right on the emulated backend."""
    names = [part.name for part in gpu.parts(True, Path(), 1) if part.name != "tests"]
    options = [text for name in names for text in ("--part", name)]
    command = [PYTHON, "-m", "profiling.gpu", "--dry", "--out", str(tmp_path), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("make gpu: all that ran is right\n")
    (page,) = tmp_path.glob("*-dry.md")
    data = json.loads(page.with_suffix(".json").read_text())
    assert {part["name"]: part["status"] for part in data["parts"]} == dict.fromkeys(names, "done")
    assert list(data["bench"]) == list(gpu_cases(True))
    assert all("median_s" in answers["gpujac"] for answers in data["bench"].values())
    families = {kernel["family"] for kernel in data["kernels"]}
    assert families == set(gpu_kernels.FAMILIES)


@pytest.mark.skipif(arrays.chosen().name == "cupy", reason="there is a card here")
def test_without_a_card_the_run_says_so_and_checks_nothing() -> None:
    done = subprocess.run([PYTHON, "-m", "profiling.gpu"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no CUDA device can be used" in done.stderr
    assert "make gpu DRY=1" in done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed here")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpu", "WHEELS=no-such-folder"], "WHEELS=no-such-folder holds no .whl files"),
        (["gpu", "GPU_NEEDS=no_such_module"], "No module named 'no_such_module'"),
        (["gpu-suite"], "say which part, as in SHARD=1/4"),
    ],
)
def test_make_gpu_names_what_is_missing(arguments: list[str], message: str) -> None:
    command = ["make", *arguments, f"PYTHON={PYTHON}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
