"""A timeline of one transform: its ranges as Chrome's trace format, and what a GPU did meanwhile.

The format is the "JSON Object Format" of the Trace Event Format, which https://ui.perfetto.dev and
chrome://tracing open: one complete event ("ph": "X") per range, times in microseconds from the
start of the recording.

Source: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from gpujac import ranges
from gpujac.arrays import Arrays
from gpujac.ranges import CHUNK, KERNEL, REPLAY, TRANSFORM, Event

__all__ = ["Span", "device_spans", "host_spans", "recorded", "trace"]

HOST = 1  # process numbers of the two tracks
DEVICE = 2
# What the payload of a category counts; the payload of a vmap is its lanes, of a sweep its rows.
_PAYLOAD = {TRANSFORM: "rows", REPLAY: "rows", CHUNK: "index", KERNEL: "bytes"}


@dataclass(frozen=True)
class Span:
    """One bar: a range in host time, or in device time; seconds from the start of the recording."""

    event: Event
    start_s: float
    end_s: float


def recorded(call: Callable[[], Any], arrays: Arrays) -> tuple[list[Span], list[Span]]:
    """The ranges of one call.

    Args:
        call: runs the transformed function.
        arrays: the library that it runs on; a device adds the second list.

    Returns:
        The bars in host time, and in device time: between the moments at which the device's
        queue came to the two ends of a range. Where nothing is queued the second list is empty.
    """
    device = arrays.device
    arrays.wait()
    base = None if device is None else device.mark()
    start_ns = perf_counter_ns()
    with ranges.record(None if device is None else device.mark) as events:
        call()
    arrays.wait()
    return host_spans(events, start_ns), [] if device is None else device_spans(events, base, device.elapsed_s)


def host_spans(events: Sequence[Event], start_ns: int) -> list[Span]:
    """The bars in host time; a range that is still open has none."""
    return [Span(e, (e.start_ns - start_ns) / 1e9, (e.end_ns - start_ns) / 1e9) for e in events if e.end_ns is not None]


def device_spans(events: Sequence[Event], base: Any, elapsed_s: Callable[[Any, Any], float]) -> list[Span]:
    """The bars in device time, from the marks at both ends of each range.

    Args:
        events: what a recorder with a mark saw.
        base: the mark at the start of the recording.
        elapsed_s: seconds between two marks.
    """
    closed = [e for e in events if e.marks is not None and len(e.marks) == 2]
    return [Span(e, elapsed_s(base, e.marks[0]), elapsed_s(base, e.marks[1])) for e in closed if e.marks]


def trace(host: Sequence[Span], device: Sequence[Span] = (), about: dict[str, Any] | None = None) -> dict[str, Any]:
    """The two tracks in Chrome's trace format, ready for json.dump.

    Args:
        host, device: the bars.
        about: facts for the file's own description, strings by name.

    Example:
        >>> with ranges.record() as events, ranges.opened("jacrev", TRANSFORM, 3):
        ...     pass
        >>> found = trace(host_spans(events, events[0].start_ns))["traceEvents"][-1]
        >>> found["name"], found["ph"], found["cat"], found["ts"], found["args"]
        ('jacrev', 'X', 'transform', 0.0, {'rows': 3})
    """
    threads = {thread: number for number, thread in enumerate(dict.fromkeys(s.event.thread for s in host), 1)}
    tracks = [(HOST, "host: Python", host)]
    if device:
        tracks.append((DEVICE, "device: when its queue came to each range", device))
    events: list[dict[str, Any]] = []
    for process, name, spans in tracks:
        events.append({"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": name}})
        events += [
            {"ph": "M", "name": "thread_name", "pid": process, "tid": n, "args": {"name": f"thread {n}"}}
            for n in threads.values()
        ]
        events += [_complete(span, process, threads[span.event.thread]) for span in spans]
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": about or {}}


def _complete(span: Span, process: int, thread: int) -> dict[str, Any]:
    event = span.event
    what = "lanes" if event.name == "vmap" else _PAYLOAD.get(event.category, "payload")
    return {
        "ph": "X",
        "name": event.name,
        "cat": event.category,
        "ts": round(span.start_s * 1e6, 3),
        "dur": round((span.end_s - span.start_s) * 1e6, 3),
        "pid": process,
        "tid": thread,
        "args": {} if event.payload is None else {what: event.payload},
    }
