"""Puts the process on one thread and one core, and says on what machine it runs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SINGLE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_ENABLE_X64": "1",
    "JAX_PLATFORMS": "cpu",
}

PACKAGES = ("numpy", "optree", "array-api-compat", "torch", "jax", "jaxlib", "autograd")


def missing_variables(environment: dict[str, str]) -> dict[str, str]:
    """Return the variables of `SINGLE_THREAD` that `environment` lacks or sets otherwise."""
    return {name: value for name, value in SINGLE_THREAD.items() if environment.get(name) != value}


def enter() -> None:
    """Start this process anew with the one-thread variables, if it has them not, and pin it.

    The numeric libraries read these variables when they are imported, so they must be in the
    environment before the first import: hence a new start instead of `os.environ[...] = ...`.
    """
    wanted = missing_variables(dict(os.environ))
    if wanted:
        sys.stdout.flush()
        arguments = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, **wanted})
    pin()


def pin() -> int | None:
    """Bind the process to its last allowed core (interrupts prefer the first); return it."""
    if sys.platform != "linux":  # only Linux has sched_setaffinity
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def processor() -> str:
    """Return the name of the CPU model, as the system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the version of Python and of each package that is measured or measures."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str:
    """Return the commit that is measured, marked when files differ from it.

    A copy of the tree without its history has it from the variable COMMIT.
    """
    head = _git("rev-parse", "HEAD")
    if not head:
        return os.environ.get("COMMIT", "unknown")
    return f"{head} with changes" if _git("status", "--porcelain", "--", "gpujac") else head


def describe(packages: tuple[str, ...] = PACKAGES) -> dict[str, object]:
    """Return all that a reader needs to judge the numbers; holds no path and no host name."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": 1,
        "versions": versions(packages),
        "commit": commit(),
        "settings": {k: v for k, v in sorted(os.environ.items()) if k.startswith("GPUJAC_")},
    }


def _git(*arguments: str) -> str:
    try:
        answer = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
