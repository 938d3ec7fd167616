"""Zoo: right-hand sides, time steppers and energies, as their users write them."""

import numpy as np

from tests.zoo.entry import Entry


def heat_rod(u, conductivity):
    """Heat equation on a rod, fixed ends, conductivity given on the cell faces."""
    dx = 1.0 / (u.shape[0] - 1)
    du = np.zeros_like(u)
    flux = conductivity * (u[1:] - u[:-1]) / dx
    du[1:-1] = (flux[1:] - flux[:-1]) / dx
    return du


def burgers(u):
    """Viscous Burgers equation, periodic, upwind by the sign of u, written in place."""
    nu, dx = 0.01, 1.0 / len(u)
    back = np.empty_like(u)
    back[1:] = (u[1:] - u[:-1]) / dx
    back[0] = (u[0] - u[-1]) / dx
    ahead = np.empty_like(u)
    ahead[:-1] = back[1:]
    ahead[-1] = back[0]
    du = -u * np.where(u > 0, back, ahead)
    du += nu * (ahead - back) / dx
    return du


def brusselator(u, v):
    """2-D Brusselator, periodic 5-point Laplacian by np.roll; one derivative for each field."""
    a, b, alpha = 3.4, 1.0, 0.1
    dx = 1.0 / u.shape[0]

    def laplacian(w):
        up, down = np.roll(w, 1, axis=0), np.roll(w, -1, axis=0)
        left, right = np.roll(w, 1, axis=1), np.roll(w, -1, axis=1)
        return (up + down + left + right - 4 * w) / dx**2

    du = b + u**2 * v - (a + 1) * u + alpha * laplacian(u)
    dv = a * u - u**2 * v + alpha * laplacian(v)
    return du, dv


def lorenz96(x, forcing):
    """Lorenz-96 model of the atmosphere on a circle."""
    return (np.roll(x, -1) - np.roll(x, 2)) * np.roll(x, 1) - x + forcing


def robertson(y, k):
    """Robertson's three stiff chemical reactions."""
    y1, y2, y3 = y
    k1, k2, k3 = k
    r1, r2, r3 = k1 * y1, k2 * y2**2, k3 * y2 * y3
    return np.stack([-r1 + r3, r1 - r3 - r2, r2])


def lotka_volterra_rk4(y0, rates):
    """Predator and prey by classical Runge-Kutta; returns the whole trajectory, (steps + 1, 2)."""

    def rhs(y):
        prey, predator = y[0], y[1]
        return np.stack(
            [
                rates[0] * prey - rates[1] * prey * predator,
                rates[2] * prey * predator - rates[3] * predator,
            ]
        )

    h, y = 0.1, y0
    trajectory = [y]
    for _ in range(6):
        k1 = rhs(y)
        k2 = rhs(y + h / 2 * k1)
        k3 = rhs(y + h / 2 * k2)
        k4 = rhs(y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        trajectory.append(y)
    return np.stack(trajectory)


def van_der_pol_implicit(y0, mu):
    """Five implicit Euler steps of the stiff van der Pol oscillator, Newton inside each."""
    h, y = 0.05, y0
    for _ in range(5):
        z = y
        while True:
            x, v = z[0], z[1]
            residual = z - y - h * np.stack([v, mu * (1 - x**2) * v - x])
            if np.linalg.norm(residual) < 1e-10:
                break
            one = np.ones_like(x)
            rows = [
                np.stack([one, -h * one]),
                np.stack([h * (1 + 2 * mu * x * v), 1 - h * mu * (1 - x**2)]),
            ]
            z = z - np.linalg.solve(np.stack(rows), residual)
        y = z
    return y


def kepler(mean_anomaly, eccentricity):
    """Position on an ellipse: Kepler's equation by Newton until the step is small."""
    anomaly = mean_anomaly
    step = np.ones_like(mean_anomaly)
    while abs(step) > 1e-13:
        wrong = anomaly - eccentricity * np.sin(anomaly) - mean_anomaly
        step = wrong / (1 - eccentricity * np.cos(anomaly))
        anomaly = anomaly - step
    return np.stack([np.cos(anomaly) - eccentricity, np.sqrt(1 - eccentricity**2) * np.sin(anomaly)])


def nbody_acceleration(x, mass):
    """Gravity among all bodies with softening; x: (bodies, 3)."""
    softening = 0.05
    d = x[None, :, :] - x[:, None, :]
    r2 = (d**2).sum(axis=-1) + softening**2
    return (mass[None, :, None] * d / r2[..., None] ** 1.5).sum(axis=1)


def leapfrog_orbit(x0, v0):
    """A planet by leapfrog, position and velocity updated in place as in a simulation loop."""
    h = 0.1
    x, v = x0.copy(), v0.copy()
    v += 0.5 * h * (-x / np.sum(x**2) ** 1.5)
    for _ in range(8):
        x += h * v
        v += h * (-x / np.sum(x**2) ** 1.5)
    return np.concatenate([x, v])


def spring_chain_energy(x):
    """Elastic and gravitational energy of a hanging chain of springs; x: (beads, 2)."""
    stretch = np.sqrt(np.sum(np.diff(x, axis=0) ** 2, axis=1)) - 0.8
    return 0.5 * 40.0 * np.sum(stretch**2) + 9.81 * 0.1 * np.sum(x[:, 1])


def lennard_jones(x):
    """Energy of a Lennard-Jones cluster over all pairs; x: (atoms, 3)."""
    i, j = np.triu_indices(x.shape[0], k=1)
    d = x[i] - x[j]
    s6 = 1.0 / (d * d).sum(axis=1) ** 3
    return 4.0 * (s6**2 - s6).sum()


def upwind_advection(c, speed):
    """Ten explicit steps of a tracer on a ring; the scheme picks its side from the wind."""
    courant = 0.2 * speed
    for _ in range(10):
        if courant > 0:
            c = c - courant * (c - np.roll(c, 1))
        else:
            c = c - courant * (np.roll(c, -1) - c)
    return c


def _grid_points(rng, n):
    """Points near a cubic lattice, so that no two of them come close."""
    lattice = np.stack(np.meshgrid(*[np.arange(2.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return 1.2 * lattice[:n] + 0.1 * rng.standard_normal((n, 3))


ENTRIES = [
    Entry(heat_rod, lambda r: (r.standard_normal(8), r.uniform(0.5, 2.0, 7)), (0, 1)),
    Entry(burgers, lambda r: (np.sin(np.arange(9.0)) + 0.2 * r.uniform(size=9),)),
    Entry(
        brusselator,
        lambda r: (r.uniform(1, 3, (3, 4)), r.uniform(1, 3, (3, 4))),
        (0, 1),
        kind="tree",
    ),
    Entry(lorenz96, lambda r: (r.standard_normal(10), np.float64(8.0)), (0, 1)),
    Entry(
        robertson,
        lambda r: (r.uniform([0.8, 1e-5, 0.1], [1, 4e-5, 0.2]), np.array([0.04, 3e7, 1e4])),
        sizes=(1.0, 1e-5, 0.1),
    ),
    Entry(lotka_volterra_rk4, lambda r: (r.uniform(1, 2, 2), r.uniform(0.5, 1.5, 4)), (0, 1)),
    Entry(
        van_der_pol_implicit,
        lambda r: (r.uniform(1.5, 2, 2), np.float64(5.0)),
        (0, 1),
        mappable=False,
    ),
    Entry(
        kepler,
        lambda r: (np.float64(r.uniform(1, 2)), np.float64(r.uniform(0.1, 0.6))),
        (0, 1),
        mappable=False,
    ),
    Entry(nbody_acceleration, lambda r: (_grid_points(r, 4), r.uniform(1, 2, 4)), (0, 1)),
    Entry(
        leapfrog_orbit,
        lambda r: (np.array([1.0, 0.1]) + 0.1 * r.uniform(size=2), np.array([0.0, 1.1])),
        (0, 1),
    ),
    Entry(
        spring_chain_energy,
        lambda r: (np.arange(6.0)[:, None] * [0.9, 0.3] + 0.1 * r.standard_normal((6, 2)),),
        kind="scalar",
    ),
    Entry(lennard_jones, lambda r: (_grid_points(r, 5),), kind="scalar"),
    Entry(
        upwind_advection,
        lambda r: (r.standard_normal(8), np.float64(r.uniform(0.5, 1.5))),
        (0, 1),
        mappable=False,
    ),
]
