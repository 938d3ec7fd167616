"""Claim: scientific functions written with plain NumPy run on CuPy arrays, most of them unedited."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gpujac as gj
from tests import device
from tests.zoo import ZOO
from tests.zoo.checks import BATCHED, CHECKS
from tests.zoo.verdicts import FAILS, WITHOUT_PLAIN, verdict
from tests.zoo.ways import WAYS, run_check

FUSED = ("vjp", "linearize", "jacrev", "jacfwd", "hessian", "vmap of derivatives")

pytestmark = pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
every_function = pytest.mark.parametrize("entry", ZOO, ids=lambda e: e.name)
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(autouse=True, params=device.KERNELS)
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """What CuPy does by itself, and our kernels."""
    with gj.settings.override(kernels=request.param):
        yield request.param


def possible(name: str, given: dict[str, Any]) -> bool:
    """Whether there is something to test: a function that runs, and kernels once for all ways in."""
    if "goes_through_every_transform" not in name:
        return True
    runs = verdict(given["entry"].name, given["way"]) is None
    return runs and (given["kernels"] != "auto" or given["way"] == "import gpujac.cupy")


@every_function
@every_way
def test_a_function_runs_on_cupy_arrays_or_fails_as_recorded(entry, way):
    """The Jacobian agrees with differences; a function that begins to work is noticed, too."""
    expected = verdict(entry.name, way)
    if expected is None:
        run_check(entry, "jacrev", way)
        return
    with pytest.raises(expected.error, match=re.escape(expected.match)):
        run_check(entry, "jacrev", way)


@pytest.mark.slow
@every_function
@every_way
def test_a_function_that_runs_goes_through_every_transform(entry, way, kernels):
    # g++ compiles each kernel where there is no card: there those checks whose sweeps are fused, once
    fused = kernels == "auto" and device.NAME != "cupy"
    for name in FUSED if fused else CHECKS:
        if name in BATCHED and not entry.mappable:
            continue
        if name == "vmap by loop" and entry.name in WITHOUT_PLAIN:
            with pytest.raises(AttributeError, match="__array_namespace__"):
                run_check(entry, name, way)
            continue
        run_check(entry, name, way)


def test_the_documentation_counts_them():
    """docs/cupy.md says how many functions run in each way."""
    columns = ("import numpy", "import gpujac.cupy", "adopt to cupy")
    counts = [sum(verdict(entry.name, way) is None for entry in ZOO) for way in columns]
    never = sum(all(verdict(entry.name, way) for way in WAYS) for entry in ZOO)
    page = (Path(__file__).parents[1] / "docs" / "cupy.md").read_text(encoding="utf-8")
    assert f"| {len(ZOO)} | {' | '.join(map(str, counts))} | {never} |" in page


def test_verdicts_name_functions_and_ways_that_exist():
    assert set(FAILS) | set(WITHOUT_PLAIN) <= {entry.name for entry in ZOO}
    assert {way for verdicts in FAILS.values() for v in verdicts for way in v.ways} <= set(WAYS)
