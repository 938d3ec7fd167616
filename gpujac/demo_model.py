"""The demo's model, plain NumPy: the 2-D Brusselator, two chemicals that react and diffuse.

    u' = B + u^2 v - (A + 1) u + ALPHA laplacian(u) + supply(x, y, t)
    v' =     A u - u^2 v       + ALPHA laplacian(v)

on the unit square with periodic edges. All quantities are dimensionless, as in the chemistry
papers: lengths in sides of the square, times in units of the slow reaction.

Source: E. Hairer, G. Wanner, Solving Ordinary Differential Equations II, section IV.10.
"""

import numpy as np

A = 3.4  # amount of the first raw material; above 1 + B^2 the reaction oscillates
B = 1.0  # amount of the second raw material
ALPHA = 0.1  # diffusion coefficient of both chemicals; on a fine grid it makes the model stiff
SUPPLY = 5.0  # extra inflow of u inside a small disc ...
SUPPLY_START = 1.1  # ... from this time on
END = 11.5  # end of the simulated time, about one and a half oscillations


def rate(state, t):
    """Time derivative of both concentrations.

    Args:
        state: (2, N, N) float; concentrations u and v on the grid points (i / N, j / N).
        t: float; the time.

    Returns:
        (2, N, N) array of du/dt and dv/dt.
    """
    u, v = state
    reaction = u**2 * v
    du = B + reaction - (A + 1) * u + ALPHA * laplacian(u)
    dv = A * u - reaction + ALPHA * laplacian(v)
    if t >= SUPPLY_START:
        du = du + supply(u.shape[0])
    return np.stack([du, dv])


def laplacian(w):
    """5-point Laplacian of a periodic field on the unit square; w: (N, N)."""
    dx = 1.0 / w.shape[0]
    neighbors = np.roll(w, 1, 0) + np.roll(w, -1, 0) + np.roll(w, 1, 1) + np.roll(w, -1, 1)
    return (neighbors - 4 * w) / dx**2


def supply(size):
    """Extra inflow of u: a disc of radius 0.1 around (0.3, 0.6); (size, size) array."""
    x, y = grid(size)
    return SUPPLY * ((x - 0.3) ** 2 + (y - 0.6) ** 2 <= 0.1**2)


def start(size):
    """Concentrations at time 0; (2, size, size) array."""
    x, y = grid(size)
    return np.stack([22.0 * (y * (1 - y)) ** 1.5, 27.0 * (x * (1 - x)) ** 1.5])


def grid(size):
    """Coordinates x and y of the grid points, (size, size) each."""
    points = np.arange(size) / size
    return np.meshgrid(points, points, indexing="ij")
