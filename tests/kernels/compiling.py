"""Kernels compiled by NVRTC, without a GPU: the log, the registers and the spills of each."""

import os
import re
from typing import NamedTuple

from gpujac.backends.kernels import Kernel

try:
    from cupy_backends.cuda.libs import nvrtc

    VERSION = "{}.{}".format(*nvrtc.getVersion())
except (ImportError, RuntimeError) as error:
    nvrtc, VERSION, _PROBLEM = None, "", str(error)

# Without NVRTC these tests skip, but in continuous integration they fail.
MISSING = nvrtc is None and not os.environ.get("CI")
WHY = "needs the wheels cupy-cuda13x and nvidia-cuda-nvrtc (Linux); in continuous integration that is a failure"
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 103, 120)
OPTIONS = ("-std=c++17", "-ftz=true", "--device-as-default-execution-space")  # as CuPy passes them
_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>[^']+)'.*?(?P<spilled>\d+) bytes spill stores, (?P<filled>\d+) bytes spill "
    r"loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


class Usage(NamedTuple):
    """What one entry point needs."""

    registers: int
    spill_bytes: int


def compiled(source: str, architecture: int) -> tuple[dict[str, Usage], str]:
    """What each entry point of a text needs on an architecture, and what the compiler complains about."""
    if nvrtc is None:
        raise RuntimeError(f"NVRTC is missing: {_PROBLEM}")
    program = nvrtc.createProgram(source, "kernel.cu", (), ())
    try:
        nvrtc.compileProgram(program, (*OPTIONS, f"-arch=sm_{architecture}", "--ptxas-options=-v"))
        assert nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError as error:
        return {}, f"{error}\n{nvrtc.getProgramLog(program)}"
    finally:
        log = nvrtc.getProgramLog(program)
        nvrtc.destroyProgram(program)
    usages = {
        e["name"]: Usage(int(e["registers"]), int(e["spilled"]) + int(e["filled"])) for e in _ENTRY.finditer(log)
    }
    complaints = [line for line in log.splitlines() if line.strip(" \0") and not line.startswith("ptxas ")]
    complaints += [line for line in log.splitlines() if re.match(r"ptxas\s+(warning|error)", line)]
    return usages, "\n".join(complaints)


def usage_of(family: dict[str, Kernel], architecture: int) -> tuple[dict[str, Usage], str]:
    """What the kernels of a family need by label, each text compiled once, and the complaints."""
    by_source: dict[str, dict[str, Usage]] = {}
    complaints = []
    for kernel in family.values():
        if kernel.source not in by_source:
            by_source[kernel.source], log = compiled(kernel.source, architecture)
            complaints += [log] if log else []
    if complaints:
        return {}, "\n".join(complaints)
    return {label: by_source[kernel.source][kernel.name] for label, kernel in family.items()}, ""
