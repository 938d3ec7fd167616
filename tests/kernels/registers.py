"""The table of registers per kernel and architecture: `python -m tests.kernels.registers --write` renews it.

A kernel that suddenly needs more registers runs fewer threads at a time: the table notices without a
GPU. Renew it when a kernel was changed on purpose, or when the pin of NVRTC moved, and look at the
difference before committing it.
"""

import argparse
import json
from pathlib import Path

from tests.kernels import compiling
from tests.kernels.families import FAMILIES

TABLE = Path(__file__).resolve().parent / "registers.json"


def table() -> dict:
    """The table as it is kept: {"nvrtc": version, family: {label: [registers per architecture]}}."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


def measured() -> dict:
    """The table as this NVRTC makes it."""
    found: dict = {"nvrtc": compiling.VERSION, "architectures": list(compiling.ARCHITECTURES)}
    for name, kernels in FAMILIES.items():
        rows: dict[str, list[int]] = {}
        for architecture in compiling.ARCHITECTURES:
            usages, complaints = compiling.usage_of(kernels(), architecture)
            if complaints:
                raise SystemExit(f"{name} for sm_{architecture}:\n{complaints}")
            for label, usage in usages.items():
                rows.setdefault(label, []).append(usage.registers)
        found[name] = rows
    return found


def text(found: dict) -> str:
    """JSON with one kernel per line."""
    lines = []
    for key, value in found.items():
        if not isinstance(value, dict):
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
            continue
        rows = [f"  {json.dumps(label)}: {json.dumps(counts)}" for label, counts in sorted(value.items())]
        lines.append(f" {json.dumps(key)}: {{\n" + ",\n".join(rows) + "\n }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kernels.registers", description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace the kept table; without it, print the kept one")
    if parser.parse_args().write:
        TABLE.write_text(text(measured()), encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
