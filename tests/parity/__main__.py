"""Writes docs/parity.md from the list of behaviours, the refused calls and the tests that show them."""

import importlib
from pathlib import Path

from tests import parity
from tests.parity.codes import GROUPS, QUIRKS, Row
from tests.parity.refusals import CUSTOM, ELSEWHERE
from tests.parity.refusals import ROWS as REFUSED

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs" / "parity.md"

HEAD = """\
# What torch.func promises, and what holds here

Written by `python -m tests.parity`; do not edit by hand. Each row is a behaviour that torch.func's own
tests ask for, in our words. "Holds" means that tests in `tests/parity/` carry its code. "Ours" and
"torch's" name the classes of errors.

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
    if not tests:
        return row.why if row.mark == "M" else "**missing**"
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


def table(rows: list[Row]) -> list[str]:
    """One row per behaviour."""
    lines = ["| code | behaviour | here | ours | torch's |", "|---|---|---|---|---|"]
    return lines + [f"| {r.code} | {r.says} | {state(r)} | {r.ours} | {r.torch} |" for r in rows]


def refused() -> list[str]:
    """The table of errors: one row per code, its first call."""
    lines = ["| code | what is wrong | ours | torch's |", "|---|---|---|---|"]
    first = {row.code: row for row in reversed(REFUSED)}
    cells = {c: f"| {c} | {r.says} | {r.ours.__name__} | {r.torch} |" for c, r in first.items()}
    cells |= {code: f"| {code} | {says} | {ours} | {torch} |" for code, (says, ours, torch) in CUSTOM.items()}
    cells |= {code: f"| {code} | {why} | | |" for code, why in ELSEWHERE.items()}
    return lines + [cells[code] for code in sorted(cells, key=lambda code: int(code[1:]))]


def page() -> str:
    """The whole page."""
    load()
    every = [row for rows in GROUPS.values() for row in rows]
    parts = [HEAD.format(counts=counts(every))]
    for name, rows in GROUPS.items():
        parts += [f"## {name}\n\n", "\n".join(table(rows)), "\n\n"]
    parts += ["## Where torch.func errs\n\n", "\n".join(table(QUIRKS)), "\n\n"]
    parts += ["## What is refused\n\n", "\n".join(refused()), "\n"]
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
