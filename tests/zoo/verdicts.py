"""Which functions of the zoo run on CuPy arrays in which way, and why the others do not."""

from __future__ import annotations

from typing import NamedTuple

import gpujac as gj


class Verdict(NamedTuple):
    """Ways in which a function does not run, the error, words of it, and what to say in a table."""

    ways: tuple[str, ...]
    error: type[Exception]
    match: str
    reason: str


_HOST = Verdict(
    ("import numpy", "adopt"),
    gj.BackendError,
    "two array libraries",
    "makes arrays of its own, which NumPy puts on the host",
)
FAILS: dict[str, list[Verdict]] = {name: [_HOST] for name in """american_option attention batch_whitening
    epidemic fem_bar filter_response gaussian_process_loo image_warp kalman_step lattice_boltzmann
    lens_system radial_distribution robot_arm von_mises_stress""".split()}  # fmt: skip
FAILS["epidemic"].append(
    Verdict(
        ("import gpujac.cupy", "adopt to cupy"),
        AttributeError,
        "'list' object has no attribute 'ravel'",
        "np.outer of lists, which CuPy's outer does not take",
    )
)
# Checks that call a function on plain CuPy arrays, which it cannot do, and why.
WITHOUT_PLAIN = {"mean_shift_step": "CuPy's arrays have no __array_namespace__"}


def verdict(name: str, way: str) -> Verdict | None:
    """Why a function does not run in a way, or None."""
    return next((v for v in FAILS.get(name, []) if way in v.ways), None)
