"""Pictures for the demo. The one file that imports matplotlib; only the command line loads it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

__all__ = ["pattern", "solution"]


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
