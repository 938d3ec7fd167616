"""Pictures of the demo and of timelines. The one file that imports matplotlib; the command line loads it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gpujac.timeline import Span

__all__ = ["pattern", "solution", "timeline"]

_COLORS = {"transform": "#76b900", "trace": "#5b8db8", "chunk": "#e0a030", "replay": "#9a6fb0", "kernel": "#c05050"}


def pattern(matrix: np.ndarray) -> Figure:
    """Where a matrix is not zero, whole and near its upper left corner.

    Args:
        matrix: (m, n) array.

    Returns:
        A figure with two plots; the caller saves it.
    """
    figure = Figure(figsize=(10, 5), layout="constrained", dpi=120)
    whole, corner = figure.subplots(1, 2)
    near = min(80, *matrix.shape)
    for axes, part in ((whole, matrix), (corner, matrix[:near, :near])):
        rows, columns = np.nonzero(part)
        axes.plot(columns, rows, ".", color="#3b6fa0", markersize=300 / max(part.shape))
        axes.set(xlim=(-0.5, part.shape[1] - 0.5), ylim=(part.shape[0] - 0.5, -0.5))
        axes.set(aspect="equal", xlabel="input", ylabel="output")
    share = 100 * np.count_nonzero(matrix) / matrix.size
    whole.set_title(f"Jacobian, {matrix.shape[0]} x {matrix.shape[1]}, {share:.2g} % nonzero")
    corner.set_title(f"first {near} rows and columns")
    return figure


def solution(times: Sequence[float], states: Sequence[np.ndarray]) -> Figure:
    """The model's first field at four times, and the means of both fields over time.

    Args:
        times: the time of each state.
        states: (2, N, N) arrays, one per time.

    Returns:
        A figure; the caller saves it.
    """
    figure = Figure(figsize=(11, 5.5), layout="constrained", dpi=120)
    grid = figure.add_gridspec(2, 4)
    for i, wanted in enumerate((0.0, 0.13, 0.43, 1.0)):
        k = round(wanted * (len(times) - 1))
        axes = figure.add_subplot(grid[0, i])
        image = axes.imshow(states[k][0].T, origin="lower", extent=(0, 1, 0, 1), cmap="viridis")
        axes.set_title(f"u at t = {times[k]:.2f}")
        axes.set(xticks=(0, 1), yticks=(0, 1))
        figure.colorbar(image, ax=axes, shrink=0.9)
    axes = figure.add_subplot(grid[1, :])
    means = np.array([state.mean(axis=(1, 2)) for state in states])
    axes.plot(times, means[:, 0], color="#3b6fa0", label="mean u")
    axes.plot(times, means[:, 1], color="#c0703a", label="mean v")
    axes.set(xlabel="time", ylabel="concentration", xlim=(times[0], times[-1]))
    axes.legend()
    return figure


def timeline(host: Sequence[Span], device: Sequence[Span], title: str) -> Figure:
    """The ranges of one call as bars, the outer ones on top.

    Args:
        host: the bars in host time.
        device: the bars in device time; empty where there is no device.
        title: what was recorded.

    Returns:
        A figure with one plot for the host and one for the device; the caller saves it.
    """
    tracks = [("host", host), *([("device", device)] if device else [])]
    depth = 1 + max((span.event.depth for span in host), default=0)
    figure = Figure(figsize=(10, 0.8 + len(tracks) * (0.6 + 0.32 * depth)), layout="constrained", dpi=100)
    plots = figure.subplots(len(tracks), 1, sharex=True, squeeze=False)[:, 0]
    end_s = max((span.end_s for _, spans in tracks for span in spans), default=1.0)
    for axes, (name, spans) in zip(plots, tracks, strict=True):
        for span in spans:
            _bar(axes, span, end_s)
        axes.set(ylim=(depth - 0.5, -0.5), yticks=(), ylabel=name, xlim=(0, 1e3 * end_s))
    plots[0].set_title(title)
    plots[-1].set_xlabel("time in ms")
    present = {span.event.category for span in host}
    keys = [Rectangle((0, 0), 1, 1, color=color) for name, color in _COLORS.items() if name in present]
    figure.legend(keys, [name for name in _COLORS if name in present], loc="outside lower center", ncols=5)
    return figure


def _bar(axes: Any, span: Span, end_s: float) -> None:
    """One range, with its name and payload where they fit into it."""
    left, width = 1e3 * span.start_s, 1e3 * (span.end_s - span.start_s)
    event = span.event
    color = _COLORS[event.category]
    axes.barh(event.depth, width, left=left, height=0.9, color=color, edgecolor="white", linewidth=0.5)
    text = event.name if event.payload is None else f"{event.name} {event.payload}"
    if width > 1e3 * end_s * 0.011 * len(text):
        axes.text(left + width / 2, event.depth, text, ha="center", va="center", fontsize=8, clip_on=True)
