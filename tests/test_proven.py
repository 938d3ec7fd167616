"""The counts of what is proven where: read from results, and told in the documentation."""

import json
import re

import pytest

from tests import device, proven


def write(folder, name, **facts):
    (folder / f"{name}.json").write_text(json.dumps(facts))


def test_only_what_passed_on_a_card_counts_for_a_card(tmp_path):
    assert proven.on_a_card(tmp_path) == 0
    write(tmp_path, "dry", dry=True, tests="900 passed in 3 s")
    write(tmp_path, "cpu", systems={})
    write(tmp_path, "dry-suite", shard="1/1", slug="dry", what=["tests/test_zoo_cupy.py"], counts={"passed": 800})
    write(tmp_path, "suite-of-numpy", shard="1/1", slug="h200", what=["tests"], counts={"passed": 700})
    assert proven.on_a_card(tmp_path) == 0
    write(tmp_path, "card", dry=False, tests="2 failed, 310 passed, 5 skipped in 60 s")
    assert proven.on_a_card(tmp_path) == 310
    write(tmp_path, "suite", shard="1/1", slug="h200", what=["tests/test_zoo_cupy.py"], counts={"passed": 400})
    assert proven.on_a_card(tmp_path) == 400


def page():
    return (proven.ROOT / "docs" / "cupy.md").read_text(encoding="utf-8")


def test_the_documentation_says_how_many_cases_passed_on_a_card():
    (found,) = re.findall(r"\d+ cases on the emulated backend, (\d+) on a card\.", page())
    assert int(found) == proven.on_a_card()


@pytest.mark.slow
@pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
def test_the_documentation_counts_the_emulated_cases_to_a_tenth():
    for part, count in proven.emulated().items():
        (found,) = re.findall(rf"\| {re.escape(part)} \| (\d+) \|", page())
        assert int(found) == pytest.approx(count, rel=0.1), f"{part}: run python -m tests.proven"
