"""Turns what the parts of `make gpu` printed into JSON, a Markdown page and the short last table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from profiling.gpu_budget import Outcome
from profiling.report import duration

LIBRARIES = ("gpujac", "kernels off", "torch", "torch.compile", "jax")
PEERS = ("torch", "torch.compile", "jax")


@dataclass
class Results:
    """All that one run found. `bench[case][library]` and `kernels` hold what the parts printed."""

    date: str
    machine: dict[str, Any]
    dry: bool
    seconds: float = 0.0
    parts: list[Outcome] = field(default_factory=list)
    tests: str = ""
    rates: dict[str, float] = field(default_factory=dict)
    kernels: list[dict[str, Any]] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)
    bench: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    launches: dict[str, dict[str, Any]] = field(default_factory=dict)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    too_large: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def wrong(self) -> list[str]:
        """Return what makes the run a failure: wrong values, failed tests, parts that broke.

        A peer that fails or is not installed is reported, and is no failure of ours.
        """
        lines = [f"{part.name}: exit code {part.code}" for part in self.parts if part.status == "failed"]
        lines += [f"kernel {k['family']} {k['case']}: {k['error']}" for k in self.kernels if k.get("error")]
        if "error" in self.too_large:
            lines.append(f"a Jacobian larger than the memory: {self.too_large['error']}")
        for case, answers in self.bench.items():
            for library, answer in answers.items():
                if "difference" in answer:
                    lines.append(f"{case}: {library}: {answer['difference']}")
                elif "error" in answer and library not in PEERS:
                    lines.append(f"{case}: {library}: {answer['error']}")
        return lines

    def remarks(self) -> list[str]:
        """Return what is missing from the tables, and why."""
        lines = [f"{part.name}: no time left, skipped" for part in self.parts if part.status == "skipped"]
        lines += [f"{part.name}: stopped after {part.seconds:.0f} s" for part in self.parts if part.status == "stopped"]
        lines += [f"{name} is left out: {why}" for name, why in self.missing.items()]
        for case, answers in self.bench.items():
            lines += [f"{case}: {name}: {answers[name]['error']}" for name in PEERS if "error" in answers.get(name, {})]
        lines += [f"kernel {k['family']} {k['case']}: {k['skipped']}" for k in self.kernels if k.get("skipped")]
        return lines


def read_lines(output: str) -> list[dict[str, Any]]:
    """Return the JSON objects that a part printed, one per line; other lines are not ours.

    A part that was stopped may end in half a line.
    """
    found = []
    for line in output.splitlines():
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return rows, the first one the header, as a Markdown table readable in a terminal too.

    The first `left` columns are texts, the rest numbers.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def text(row: Sequence[str]) -> str:
        cells = (c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        return "| " + " | ".join(cells) + " |"

    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([text(rows[0]), text(rule), *(text(row) for row in rows[1:])])


def machine_table(results: Results) -> str:
    """Return what the card itself does."""
    rates = results.rates
    rows = [("measured", "value")]
    for key, value in rates.items():
        name = key.removesuffix("_us")
        if key.endswith("_us"):
            rows.append((name.replace("_", " ") + " time per launch", f"{value:.2f} us"))
        elif key.endswith("bytes_per_s"):
            rows.append((key.split("_bytes")[0] + " bandwidth, read and written", f"{value / 1e12:.3f} TB/s"))
        else:
            rows.append((key.split("_flop")[0].replace("_", " "), f"{value / 1e12:.2f} TFLOP/s"))
    return aligned(rows)


def kernel_table(results: Results) -> str:
    """Return each timed kernel: its time, its share of the copy bandwidth, and CuPy's own way."""
    copy_rate = results.rates.get("copy_bytes_per_s")
    rows = [("kernel", "right", "time", "of copy", "CuPy alone", "gain")]
    for k in results.kernels:
        if "time_s" not in k:
            continue
        share = f"{k['bytes'] / k['time_s'] / copy_rate:.0%}" if copy_rate else "-"
        plain = k.get("plain_s")
        rows.append((
            f"{k['family']} {k['case']}", "no" if k.get("error") else "yes", duration(k["time_s"]), share,
            duration(plain) if plain else "-", f"{plain / k['time_s']:.1f} x" if plain else "-",
        ))  # fmt: skip
    return aligned(rows)


def kernel_count(results: Results) -> str:
    """Return how many kernel cases equal their oracle."""
    ran = [k for k in results.kernels if not k.get("skipped")]
    return f"{sum(not k.get('error') for k in ran)} of {len(ran)} cases equal their oracle"


def bench_table(results: Results) -> str:
    """Return the Jacobian benchmark: medians, gpujac's time over each peer's, peak memory."""
    rows = [("case", *LIBRARIES, *(f"/ {name}" for name in PEERS), "launches", "peak", "torch peak")]
    for case, answers in results.bench.items():
        ours = answers.get("gpujac", {}).get("median_s")
        rows.append((
            case,
            *(_time(answers.get(name)) for name in LIBRARIES),
            *(_ratio(ours, answers.get(name, {}).get("median_s")) for name in PEERS),
            _launches(results.launches.get(case)),
            _bytes(answers.get("gpujac", {}).get("peak_bytes")),
            _bytes(answers.get("torch", {}).get("peak_bytes")),
        ))  # fmt: skip
    return aligned(rows)


def _time(answer: dict[str, Any] | None) -> str:
    if answer is None:
        return "-"
    if "difference" in answer:
        return "DIFFERS"
    return "failed" if "error" in answer else duration(answer["median_s"])


def _ratio(ours: float | None, theirs: float | None) -> str:
    return "-" if ours is None or theirs is None else f"{ours / theirs:.2f}"


def launch_table(results: Results) -> str:
    """Return what one call of each case launches, and how much of its time the card is busy."""
    rows = [("case", "kernels", "copies", "waits", "busy", "of the time", "most frequent kernel")]
    for case, found in results.launches.items():
        busy_s = found.get("busy_s")
        whole_s = results.bench.get(case, {}).get("gpujac", {}).get("median_s")
        names = sorted(found["names"].items(), key=lambda item: -item[1])
        rows.append((
            case, *(f"{found[key]:g}" for key in ("kernels", "copies", "waits")),
            "-" if busy_s is None else duration(busy_s),
            f"{busy_s / whole_s:.0%}" if busy_s is not None and whole_s else "-",
            f"{names[0][1]:g} x {names[0][0]}" if names else "-",
        ))  # fmt: skip
    return aligned(rows)


def chunk_table(results: Results) -> str:
    """Return the time of one Jacobian over chunk sizes."""
    rows = [("chunk size", "rows", "chunks", "time")]
    rows += [
        (str(line["chunk_size"]), str(line["chosen"]), str(line["chunks"]), duration(line["time_s"]))
        for line in results.chunks
    ]
    return aligned(rows)


def _launches(found: dict[str, Any] | None) -> str:
    return "-" if found is None else f"{found['kernels'] + found['copies']:g}"


def _bytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.1f} MB"


def facts(results: Results) -> list[str]:
    """Return the lines that a reader needs to judge the numbers."""
    machine = results.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    card = machine["card"]
    if "compute_capability" in machine:
        card += (
            f", compute capability {machine['compute_capability']}, {machine['memory_bytes'] / 1e9:.0f} GB, "
            f"driver for CUDA {machine['driver_cuda']}, runtime {machine['runtime_cuda']}"
        )
    return [
        f"card: {card}",
        f"host: {machine['cpu']}, {machine['cores']} cores, {machine['system']}",
        f"versions: {versions}",
        f"commit: {machine['commit']}",
        f"settings: {machine['settings'] or 'defaults'}",
        f"time: {results.seconds:.0f} s",
    ]


def summary(results: Results) -> str:
    """Return the short table that ends the run, and what is wrong or missing."""
    lines = [f"make gpu, {results.date}, {results.machine['card']}, {results.seconds:.0f} s"]
    lines.append(f"tests    {results.tests or 'not run'}")
    lines.append(f"kernels  {kernel_count(results)}")
    lines.append("")
    if results.rates:
        lines += [machine_table(results), ""]
    if results.kernels:
        lines += [kernel_table(results), ""]
    lines.append(bench_table(results))
    lines += [f"note: {line}" for line in results.remarks()]
    lines += [f"WRONG: {line}" for line in results.wrong()]
    if results.dry:
        lines.append("dry run on the emulated backend: the values are checked, the times mean nothing")
    lines.append(verdict(results))
    return "\n".join(lines)


def verdict(results: Results) -> str:
    """Return the last line."""
    if results.wrong():
        return "make gpu: FAILED"
    short = sum(part.status in ("skipped", "stopped") for part in results.parts)
    rest = f"; {short} parts did not run to their end" if short else ""
    return "make gpu: all that ran is right" + rest


def as_json(results: Results) -> str:
    """Return everything as JSON text."""
    data = asdict(results)
    for part in data["parts"]:
        del part["output"]
    data["wrong"], data["remarks"] = results.wrong(), results.remarks()
    return json.dumps(data, indent=1) + "\n"


def as_markdown(results: Results) -> str:
    """Return the page that is kept."""
    parts = [("part", "result", "time")]
    parts += [(part.name, part.status, f"{part.seconds:.0f} s") for part in results.parts]
    sections = [
        f"# make gpu, {results.date}, {results.machine['card']}\n",
        "\n".join(f"- {line}" for line in facts(results)) + "\n",
        f"Tests on the device: {results.tests or 'not run'}. Kernels: {kernel_count(results)}.\n",
        "## The card\n\n" + machine_table(results) + "\n",
        "## Kernels\n\nTime on the device, warm. `of copy` is the share of the measured copy bandwidth; "
        "`CuPy alone` is the same work with kernels=\"off\".\n\n" + kernel_table(results) + "\n",
        "## Jacobians\n\nMedians, warm: CUDA events around a batch of calls (JAX: wall time until the last "
        "result is ready). Columns `/ x` are gpujac's time over x's: below 1 gpujac is faster. Every library "
        "first reproduced the values that gpujac has on NumPy. `peak` is what one call allocated at most, "
        "result included.\n\n" + bench_table(results) + "\n",
        "One call of gpujac, as the card saw it: kernels, copies and fills, waits of the host, the time in "
        "which at least one of them ran.\n\n" + launch_table(results) + "\n",
        "\n".join(f"- `{name}`: {title}" for name, title in results.titles.items()) + "\n",
        "## Chunk sizes of `network-wide`\n\n" + chunk_table(results) + "\n",
        "## Parts\n\n" + aligned(parts, 2) + "\n",
    ]
    notes = [*(f"WRONG: {line}" for line in results.wrong()), *results.remarks()]
    if notes:
        sections.append("Notes:\n\n" + "\n".join(f"- {line}" for line in notes) + "\n")
    return "\n".join(sections)
