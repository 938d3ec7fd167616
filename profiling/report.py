"""Turns measurements into rows, compares them with the targets, and writes tables."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

COLUMNS = ("gpujac", "autograd", "torch", "jax")
PEERS = COLUMNS[1:]


@dataclass(frozen=True)
class Target:
    """What is asked: `ratio` to a library, microseconds per op, or the value itself (`value`, `times`)."""

    kind: Literal["ratio", "us_per_op", "value", "times"]
    at_most: float
    library: str = ""

    def __str__(self) -> str:
        suffix = {"ratio": f"x {self.library}", "us_per_op": "us/op", "value": "x J", "times": "x"}[self.kind]
        return f"<= {self.at_most:g} {suffix}"


@dataclass
class Row:
    """One line of the table: a case, its medians (seconds) or memory ratios, and its fate."""

    name: str
    title: str
    unit: Literal["s", "x J", "x"]
    targets: tuple[Target, ...]
    ops: int | None = None
    values: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    differences: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    void: bool = False

    def ratio(self, library: str) -> float | None:
        """Return gpujac over `library`, or None where one of the two is missing."""
        if library not in self.values or "gpujac" not in self.values:
            return None
        return self.values["gpujac"] / self.values[library]

    def us_per_op(self, library: str = "gpujac") -> float | None:
        """Return microseconds per operation, where the case counts operations."""
        if self.ops is None or library not in self.values:
            return None
        return self.values[library] * 1e6 / self.ops

    def measured(self, target: Target) -> float | None:
        """Return the number that `target` speaks of."""
        if target.kind == "ratio":
            return self.ratio(target.library)
        if target.kind == "us_per_op":
            return self.us_per_op()
        return self.values.get("gpujac")

    def verdict(self) -> str:
        """Return `yes`, `no` with what missed, or why nothing can be said."""
        if self.differences:
            return "VALUES DIFFER"
        if self.errors.get("gpujac"):
            return "failed"
        if self.void:
            return "void"
        found = [(target, self.measured(target)) for target in self.targets]
        missed = [f"{number:.2f} {target}" for target, number in found if _misses(target, number)]
        if missed:
            return "no: " + ", ".join(missed)
        return "yes" if all(number is not None for _, number in found) else "-"

    def failed(self) -> bool:
        """Tell whether the run must end with an error: wrong values, or none from gpujac."""
        return bool(self.differences) or "gpujac" in self.errors


def _misses(target: Target, number: float | None) -> bool:
    return number is not None and number > target.at_most


def duration(seconds: float) -> str:
    """Return a time with three digits and a unit: `412 us`, `1.70 ms`."""
    for factor, unit in ((1e6, "us"), (1e3, "ms"), (1.0, "s")):
        number = seconds * factor
        if number < 999.5 or unit == "s":
            return f"{_three_digits(number)} {unit}"
    raise AssertionError("the last unit takes every number")


def _three_digits(number: float) -> str:
    if number >= 99.95:
        return f"{number:.0f}"
    return f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"


def cells(row: Row) -> list[str]:
    """Return the texts of one row: name, values, ratios, time per op, targets, verdict."""
    return [
        row.name,
        *(_value(row, library) for library in COLUMNS),
        *(_number(row.ratio(library)) for library in PEERS),
        _number(row.us_per_op()),
        ", ".join(str(target) for target in row.targets),
        row.verdict(),
    ]


def _value(row: Row, library: str) -> str:
    if library in row.errors:
        return "failed"
    if library not in row.values:
        return "-"
    value = row.values[library]
    return duration(value) if row.unit == "s" else f"{value:.2f} {row.unit}"


def _number(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:.3f}" if number < 0.1 else f"{number:.2f}"


HEADER = [
    "case",
    *COLUMNS,
    *(f"/ {library}" for library in PEERS),
    "us/op",
    "target",
    "met",
]


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table with aligned columns, readable in a terminal too."""
    lines = [HEADER, *(cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    numeric = range(1, len(HEADER) - 2)

    def text(line: list[str]) -> str:
        padded = (
            cell.rjust(width) if i in numeric else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "| " + " | ".join(padded) + " |"

    rule = [("-" * (w - 1) + ":") if i in numeric else "-" * w for i, w in enumerate(widths)]
    return "\n".join([text(lines[0]), text(rule), *(text(line) for line in lines[1:])])


def notes(rows: list[Row]) -> list[str]:
    """Return one line for each thing that went wrong or proves nothing."""
    lines = []
    for row in rows:
        lines += [f"{row.name}: {library}: {why}" for library, why in row.differences.items()]
        lines += [f"{row.name}: {library}: {why}" for library, why in row.errors.items()]
        if row.void:
            moved, share = row.details["probe_drift"], row.details["cpu_share"]
            lines.append(f"{row.name}: void, the probe moved by {moved:.0%}, the process had {share:.0%} of its core")
    return lines


def as_json(rows: list[Row], machine: dict[str, Any]) -> str:
    """Return everything that was measured as JSON text."""
    data = [asdict(row) | {"verdict": row.verdict()} for row in rows]
    return json.dumps({"machine": machine, "rows": data}, indent=1) + "\n"


def as_markdown(rows: list[Row], machine: dict[str, Any], date: str) -> str:
    """Return the page that is kept: machine, versions, commit, table, titles, notes."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    facts = [
        f"- machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']}; one thread on one core for all",
        f"- versions: {versions}",
        f"- commit: {machine['commit']}",
        f"- settings: {machine['settings'] or 'defaults'}",
    ]
    parts = [
        f"# make bench, {date}, CPU\n",
        "\n".join(facts) + "\n",
        "Medians; columns `/ x` are gpujac's time over x's: below 1 gpujac is faster. "
        "JAX is compiled (jit) and warm.\n",
        table(rows) + "\n",
        "\n".join(f"- `{row.name}`: {row.title}" for row in rows) + "\n",
    ]
    remarks = notes(rows)
    if remarks:
        parts.append("Notes:\n\n" + "\n".join(f"- {line}" for line in remarks) + "\n")
    return "\n".join(parts)
