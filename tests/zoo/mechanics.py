"""Zoo: mechanics, optics, imaging and circuits, as their users write them."""

import numpy as np

from tests.zoo.entry import Entry


def robot_arm(angles, links):
    """Tool position of an arm of joints that turn about z and x in turn: products of 4 x 4."""

    def joint(angle, length, about_z):
        c, s = np.cos(angle), np.sin(angle)
        one, zero = np.ones_like(angle), np.zeros_like(angle)
        if about_z:
            rows = [[c, -s, zero, length * c], [s, c, zero, length * s], [zero, zero, one, zero]]
        else:
            rows = [[one, zero, zero, length], [zero, c, -s, zero], [zero, s, c, zero]]
        rows.append([zero, zero, zero, one])
        return np.stack([np.stack(row) for row in rows])

    pose = np.eye(4)
    for i in range(len(links)):
        pose = pose @ joint(angles[i], links[i], about_z=i % 2 == 0)
    return pose[:3, 3]


def fem_bar(stiffness, load):
    """Displacement of a bar of linear elements, assembled element by element into K."""
    n = load.shape[0]
    k = np.zeros_like(stiffness, shape=(n + 1, n + 1))
    element = np.array([[1.0, -1.0], [-1.0, 1.0]])
    for e in range(n):
        nodes = np.array([e, e + 1])
        k[np.ix_(nodes, nodes)] += stiffness[e] * element
    return np.linalg.solve(k[1:, 1:], load)


def fem_membrane_force(u, modulus):
    """Internal force of a triangulated membrane, scattered to the nodes with np.add.at."""
    triangles = np.array([[0, 1, 3], [1, 4, 3], [1, 2, 4], [2, 5, 4], [3, 4, 6], [4, 5, 6]])
    corner = u[triangles]
    mean = corner.mean(axis=1, keepdims=True)
    local = modulus[:, None] * (corner - mean) * (1 + (corner - mean) ** 2)
    force = np.zeros_like(u)
    np.add.at(force, triangles, local)
    return force


def truss_force(x):
    """Forces on the nodes of a truss: bars gathered by index, added up bar by bar; x: (5, 2)."""
    bars = [(0, 1), (1, 2), (0, 3), (1, 3), (1, 4), (2, 4), (3, 4)]
    force = np.zeros_like(x)
    for i, j in bars:
        d = x[j] - x[i]
        length = np.linalg.norm(d)
        pull = 3.0 * (length - 1.0) * d / length
        force[i] += pull
        force[j] -= pull
    return force


def rosenbrock(x):
    """The banana valley."""
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def lens_system(focal, gap):
    """Height and slope of a ray behind thin lenses, by 2 x 2 transfer matrices."""
    ray = np.array([1.0, 0.05])
    for i in range(focal.shape[0]):
        one, zero = np.ones_like(focal[i]), np.zeros_like(focal[i])
        lens = np.stack([np.stack([one, zero]), np.stack([-1 / focal[i], one])])
        travel = np.stack([np.stack([one, gap[i]]), np.stack([zero, one])])
        ray = travel @ (lens @ ray)
    return ray


def radial_distribution(values, slopes):
    """Cubic Hermite table of a pair potential, read at given distances and summed."""
    knots = np.linspace(0.5, 3.0, 6)
    r = np.array([0.7, 0.9, 1.31, 1.8, 2.2, 2.9])
    i = np.clip(np.searchsorted(knots, r) - 1, 0, len(knots) - 2)
    h = knots[i + 1] - knots[i]
    t = (r - knots[i]) / h
    left, right = np.take(values, i), np.take(values, i + 1)
    down, up = np.take(slopes, i), np.take(slopes, i + 1)
    return (
        (1 + 2 * t) * (1 - t) ** 2 * left
        + t * (1 - t) ** 2 * h * down
        + t**2 * (3 - 2 * t) * right
        + t**2 * (t - 1) * h * up
    )


def image_warp(image, shift):
    """Image seen through a displacement field, bilinear; shift: (2, h, w)."""
    height, width = image.shape
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    y = np.clip(rows + shift[0], 0.0, height - 1.001)
    x = np.clip(columns + shift[1], 0.0, width - 1.001)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    a, b = y - top, x - left
    return (
        (1 - a) * (1 - b) * image[top, left]
        + (1 - a) * b * image[top, left + 1]
        + a * (1 - b) * image[top + 1, left]
        + a * b * image[top + 1, left + 1]
    )


def camera_projection(camera, points):
    """Bundle adjustment: Rodrigues rotation, translation, focal length, radial distortion."""
    rotation, translation, focal, k1 = camera[:3], camera[3:6], camera[6], camera[7]
    angle = np.linalg.norm(rotation)
    axis = rotation / angle
    along = (points @ axis)[:, None]
    cross = np.stack(
        [
            axis[1] * points[:, 2] - axis[2] * points[:, 1],
            axis[2] * points[:, 0] - axis[0] * points[:, 2],
            axis[0] * points[:, 1] - axis[1] * points[:, 0],
        ],
        axis=1,
    )
    turned = np.cos(angle) * points + np.sin(angle) * cross + (1 - np.cos(angle)) * along * axis
    p = turned + translation
    plane = -p[:, :2] / p[:, 2:]
    squared = np.sum(plane**2, axis=1, keepdims=True)
    return focal * (1 + k1 * squared) * plane


def filter_response(components):
    """Gain in dB of an RLC low-pass filter over frequencies: real in and out, complex inside."""
    r, inductance, c = components
    omega = 2j * np.pi * np.array([0.05, 0.1, 0.2, 0.4])
    coil, capacitor = omega * inductance, 1 / (omega * c)
    gain = capacitor / (r + coil + capacitor)
    return 20 * np.log10(np.abs(gain))


def total_variation(image, noisy):
    """Denoising energy: smoothed total variation plus the distance to the noisy image."""
    dx, dy = np.diff(image, axis=1)[:-1, :], np.diff(image, axis=0)[:, :-1]
    return np.sum(np.sqrt(dx**2 + dy**2 + 1e-3)) + 0.5 * np.sum((image - noisy) ** 2)


def thermal_network(temperature, conductance):
    """Heat flows in a network with radiation, matrix form; temperature: (nodes,)."""
    symmetric = np.triu(conductance, 1) + np.triu(conductance, 1).T
    exchange = symmetric * (temperature[None, :] - temperature[:, None])
    radiation = 5.67e-8 * (300.0**4 - temperature**4)
    return exchange.sum(axis=1) + 0.9 * radiation


def lattice_boltzmann(f):
    """One collide-and-stream step of the D2Q9 lattice Boltzmann method; f: (9, nx, ny)."""
    c = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1], [1, 1], [-1, 1], [-1, -1], [1, -1]])
    w = np.array([4 / 9] + [1 / 9] * 4 + [1 / 36] * 4)
    density = f.sum(axis=0)
    velocity = np.tensordot(c.T, f, axes=1) / density
    along = np.tensordot(c, velocity, axes=1)
    squared = np.einsum("dij,dij->ij", velocity, velocity)
    rest = w[:, None, None] * density * (1 + 3 * along + 4.5 * along**2 - 1.5 * squared)
    f = f + 0.8 * (rest - f)
    return np.stack([np.roll(f[i], tuple(c[i]), axis=(0, 1)) for i in range(9)])


def von_mises_stress(strain, modulus):
    """Von Mises stress of an elastic body at each point; strain: (points, 3, 3)."""
    poisson = 0.3
    symmetric = 0.5 * (strain + np.swapaxes(strain, -1, -2))
    volume = np.trace(symmetric, axis1=-2, axis2=-1)[:, None, None] * np.eye(3)
    stress = modulus / (1 + poisson) * (symmetric + poisson / (1 - 2 * poisson) * volume)
    pressure = np.trace(stress, axis1=-2, axis2=-1)[:, None, None] / 3
    return np.sqrt(1.5) * np.linalg.norm(stress - pressure * np.eye(3), axis=(-2, -1))


def snow_pack(temperature, precipitation):
    """Degree-day snow model: cold days pile up, warm days melt what is there; daily runoff."""
    snow = np.zeros_like(precipitation[0])
    runoff = np.zeros_like(precipitation)
    for day in range(len(precipitation)):
        cold = temperature[day] < 0.0
        snow = snow + np.where(cold, precipitation[day], 0.0)
        melt = np.minimum(snow, 3.0 * np.maximum(temperature[day], 0.0))
        snow -= melt
        runoff[day] = melt + np.where(cold, 0.0, precipitation[day])
    return runoff


def saturated_flow(head, conductivity):
    """Groundwater flow out of each cell; dry cells are switched off by a boolean mask."""
    k = np.sqrt(conductivity[1:] * conductivity[:-1])
    flow = k * np.diff(head)
    out = np.pad(flow, (0, 1)) - np.pad(flow, (1, 0))
    out[head < 0.0] = 0.0
    return out


def _camera_sample(rng):
    camera = np.array([0.3, -0.2, 0.4, 0.1, 0.2, -5.0, 2.0, 0.05])
    return camera + 0.05 * rng.standard_normal(8), rng.uniform(-1, 1, (3, 3))


ENTRIES = [
    Entry(robot_arm, lambda r: (r.standard_normal(4), r.uniform(0.5, 1.5, 4)), (0, 1)),
    Entry(fem_bar, lambda r: (r.uniform(1, 2, 5), r.standard_normal(5)), (0, 1)),
    Entry(fem_membrane_force, lambda r: (r.standard_normal(7), r.uniform(1, 2, 6)), (0, 1)),
    Entry(
        truss_force,
        lambda r: (np.array([[0, 0], [1, 0], [2, 0], [0.5, 0.9], [1.5, 0.9]]) + 0.1 * r.standard_normal((5, 2)),),
    ),
    Entry(rosenbrock, lambda r: (r.standard_normal(6),), kind="scalar"),
    Entry(lens_system, lambda r: (r.uniform(1, 3, 3), r.uniform(0.5, 1, 3)), (0, 1)),
    Entry(radial_distribution, lambda r: (r.standard_normal(6), r.standard_normal(6)), (0, 1)),
    Entry(
        image_warp,
        lambda r: (r.uniform(size=(3, 4)), 0.05 + 0.4 * r.uniform(size=(2, 3, 4))),
        (0, 1),
    ),
    Entry(camera_projection, _camera_sample, (0, 1)),
    Entry(lattice_boltzmann, lambda r: (r.uniform(0.5, 1.0, (9, 2, 3)),)),
    Entry(
        von_mises_stress,
        lambda r: (r.standard_normal((3, 3, 3)), np.float64(r.uniform(1, 2))),
        (0, 1),
    ),
    Entry(
        snow_pack,
        lambda r: (r.uniform(-1, 1, (5, 3)), r.uniform(0.5, 2, (5, 3))),
        (0, 1),
    ),
    Entry(
        saturated_flow,
        lambda r: (r.standard_normal(7), r.uniform(0.5, 2, 7)),
        (0, 1),
    ),
    Entry(filter_response, lambda r: (r.uniform([0.5, 0.5, 0.2], [1, 1, 0.5]),)),
    Entry(
        total_variation,
        lambda r: (r.standard_normal((4, 3)), r.standard_normal((4, 3))),
        (0, 1),
        kind="scalar",
    ),
    Entry(thermal_network, lambda r: (r.uniform(280, 320, 4), r.uniform(0.5, 2, (4, 4))), (0, 1)),
]
