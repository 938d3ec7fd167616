"""A pytest plugin: keeps one shard of the tests, `-p profiling.gpu_shard --shard 1/4`.

A test belongs to a shard by the hash of its identifier, so the shards are the same on every
machine, in every order and beside any other selection, and together they are all tests.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import pytest


def parse(text: str) -> tuple[int, int]:
    """Return (index, count) of a shard written as `1/4`; shards count from 1."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= index <= count:
        raise ValueError(f"shard {text!r} is none; write i/n with i from 1 to n, as in 1/4")
    return index, count


def shard_of(identifier: str, count: int) -> int:
    """Return which of `count` shards, from 1, a test belongs to."""
    return zlib.crc32(identifier.encode()) % count + 1


def pytest_addoption(parser: Any) -> None:
    """Add the option."""
    parser.addoption("--shard", metavar="I/N", help="run only the I-th of N parts of the tests")


def pytest_configure(config: Any) -> None:
    """Refuse a wrong shard at once, as every other wrong option."""
    text = config.getoption("--shard")
    if text is not None:
        try:
            parse(text)
        except ValueError as error:
            raise pytest.UsageError(f"--shard: {error}") from error


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave the tests of the other shards out."""
    text = config.getoption("--shard")
    if text is None:
        return
    index, count = parse(text)
    kept = [item for item in items if shard_of(item.nodeid, count) == index]
    dropped = [item for item in items if shard_of(item.nodeid, count) != index]
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept
