"""What this process runs on: versions, backends, device and memory, in words."""

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import gpujac
from gpujac import ranges, settings
from gpujac.backends import choose
from gpujac.backends.driver import cuda_version
from gpujac.errors import BackendError

__all__ = ["bytes_text", "info", "memory_now_bytes", "memory_peak_bytes", "restart_peak"]

_CUPY = re.compile(r"cupy(-cuda\w+|-rocm\w+)?", re.IGNORECASE)
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def info() -> list[tuple[str, str]]:
    """Lines of `python -m gpujac info`: what each is, and its value."""
    names = ("numpy", "optree", "array-api-compat", "nvtx", "tqdm")
    chosen = ", ".join(f"{name}={value!r}" for name, value in settings.show().items())
    return [
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("gpujac", f"{gpujac.__version__} in {Path(__file__).parent}"),
        *((name, _version(name)) for name in names),
        ("cupy", _cupy_version()),
        ("driver", _driver()),
        ("backends", ", ".join(_backends())),
        ("device", _device()),
        ("gpu", _gpu()),
        ("memory", _memory()),
        ("nvtx ranges", ranges.state()),
        ("settings", chosen),
    ]


def bytes_text(size: float) -> str:
    """A size for people, in powers of 1000.

    Example:
        >>> bytes_text(999), bytes_text(33554432), bytes_text(2e9)
        ('999 B', '33.6 MB', '2.0 GB')
    """
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def memory_now_bytes() -> int | None:
    """Main memory that this process holds now, None where the system does not tell."""
    return _status("VmRSS")


def memory_peak_bytes() -> int | None:
    """The most main memory this process held since `restart_peak`; None where unknown."""
    return _status("VmHWM")


def restart_peak() -> None:
    """Makes `memory_peak_bytes` count from here on; does nothing where the system cannot."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def _status(field: str) -> int | None:
    """One memory line of /proc (Linux); resource.ru_maxrss counts the parent's peak as well."""
    try:
        text = _STATUS.read_text()
    except OSError:
        return None
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cupy_version() -> str:
    """CuPy's distributions carry the CUDA version in their name."""
    found = {
        f"{d.metadata['Name']} {d.version}"
        for d in metadata.distributions()
        if _CUPY.fullmatch(d.metadata["Name"] or "")
    }
    return ", ".join(sorted(found)) or "not installed"


def _backends() -> list[str]:
    return ["numpy", *(["cupy"] if _cupy_loads() else []), "any array-API namespace"]


def _cupy_loads() -> bool:
    try:
        choose.load("cupy")
    except BackendError:
        return False
    return True


def _device() -> str:
    cores = os.cpu_count() or 1
    return f"{platform.machine()}, {cores} cores, NumPy with {_blas()}"


def _driver() -> str:
    version = cuda_version()
    return "no NVIDIA driver found" if version is None else f"NVIDIA, for CUDA {version[0]}.{version[1]}"


def _gpu() -> str:
    """The current card through CuPy, how many there are and what is free; or why there is none."""
    if not _cupy_loads():
        return "none: CuPy is not installed"
    be: Any = choose.load("cupy")
    problem = be.problem()
    if problem is not None:
        return f"none: {problem}"
    free = bytes_text(be.memory_free_bytes())
    return f"{be.describe()}; {be.devices()} device{'s' * (be.devices() != 1)}, {free} free"


def _blas() -> str:
    build = np.show_config(mode="dicts")
    blas = (build or {}).get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'its own BLAS')} {blas.get('version', '')}".strip()


def _memory() -> str:
    free = choose.load("numpy").memory_free_bytes()
    now = memory_now_bytes()
    parts = [f"{bytes_text(free)} free" if free is not None else "free memory unknown"]
    if now is not None:
        parts.append(f"this process holds {bytes_text(now)}")
    return ", ".join(parts)
