"""Writes docs/parity.md from the list of behaviours, the refused calls and the tests that show them."""

import importlib
import re
from pathlib import Path

from tests import parity
from tests.parity.codes import GROUPS, QUIRKS, Row
from tests.parity.refusals import CUSTOM, ELSEWHERE
from tests.parity.refusals import ROWS as REFUSED

FOLDER = Path(__file__).parent
CONTROL = FOLDER.parent / "control"
PAGE = FOLDER.parents[1] / "docs" / "parity.md"

HEAD = """\
# What torch.func promises, and what holds here

Written by `python -m tests.parity`; do not edit by hand. Each row is a behaviour that torch.func's own
tests ask for, in our words. "Holds" means that the tests named beside it carry its code: `jvp::strict` is
`test_strict` in `tests/parity/test_jvp.py`. "Ours" and "torch's" name the classes of errors.

{counts}

"""


def load() -> None:
    """Import every module whose tests carry codes."""
    for path in sorted(FOLDER.glob("test_*.py")):
        importlib.import_module(f"tests.parity.{path.stem}")


def state(row: Row) -> str:
    """What becomes of a behaviour."""
    tests = len(parity.SHOWN.get(row.code, ()))
    if row.mark == "S":
        return f"ours instead: {row.why}"
    if row.mark == "N":
        return f"torch's own: {row.why}"
    if not tests and row.mark == "M":
        assert row.why.startswith("does not apply"), f"{row.code} is translated, so a test must show it"
        return row.why
    if not tests:
        return "**missing**"
    return "holds" if row.mark == "A" else f"translated: {row.why}"


def counts(rows: list[Row]) -> str:
    """How many behaviours of each kind hold."""
    tell = lambda mark: [row for row in rows if row.mark == mark]
    held = lambda mark: sum(row.code in parity.SHOWN for row in tell(mark))
    return "\n".join((
        f"- Behaviours that apply as they are: {held('A')} of {len(tell('A'))} hold.",
        f"- Behaviours that apply after translation: {held('M')} of {len(tell('M'))} are translated; the others "
        "say why they do not apply.",
        f"- Replaced by a convention of ours: {len(tell('S'))}. About torch alone: {len(tell('N'))}.",
    ))  # fmt: skip


def short(names: set[str]) -> str:
    """Names of tests without what all of them share."""
    return ", ".join(f"`{name.replace('test_', '')}`" for name in sorted(names))


def table(rows: list[Row]) -> list[str]:
    """One row per behaviour."""
    lines = ["| code | behaviour | here | ours | torch's | tests |", "|---|---|---|---|---|---|"]
    shown = lambda row: short(parity.SHOWN.get(row.code, set()))
    return lines + [f"| {r.code} | {r.says} | {state(r)} | {r.ours} | {r.torch} | {shown(r)} |" for r in rows]


def of_custom() -> dict[str, set[str]]:
    """The tests in tests/control of each code of a custom function or operation, which their names hold."""
    found: dict[str, set[str]] = {}
    for path in CONTROL.glob("test_custom*.py"):
        for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8")):
            for code in re.findall(r"e\d+(?=_)", name):
                found.setdefault(code.upper(), set()).add(f"{path.stem}::{name}")
    return found


def refused() -> list[str]:
    """The table of errors: one row per code, its first call and the classes of all."""
    lines = ["| code | what is wrong | ours | torch's | tests |", "|---|---|---|---|---|"]
    first = {row.code: row for row in reversed(REFUSED)}
    classes = {c: ", ".join(dict.fromkeys(r.ours.__name__ for r in REFUSED if r.code == c)) for c in first}
    tests = of_custom()
    cells = {c: f"| {c} | {r.says} | {classes[c]} | {r.torch} | `refusals::refused[{c}]` |" for c, r in first.items()}
    cells |= {c: f"| {c} | {' | '.join(says)} | {short(tests[c])} |" for c, says in CUSTOM.items()}
    cells |= {code: f"| {code} | {why} | | | |" for code, why in ELSEWHERE.items()}
    return lines + [cells[code] for code in sorted(cells, key=lambda code: int(code[1:]))]


def page() -> str:
    """The whole page."""
    load()
    every = [row for rows in GROUPS.values() for row in rows]
    parts = [HEAD.format(counts=counts(every))]
    for name, rows in GROUPS.items():
        parts += [f"## {name}\n\n", "\n".join(table(rows)), "\n\n"]
    parts += ["## Where torch.func errs\n\n", "\n".join(table(QUIRKS)), "\n\n"]
    parts += ["## What is refused\n\n", "Tests of custom functions and operations are in `tests/control/`.\n\n"]
    parts += ["\n".join(refused()), "\n"]
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
