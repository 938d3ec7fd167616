"""Every refused call raises our class with words that say what is wrong (the E rows)."""

import builtins

import pytest

import gpujac as gj
from tests.parity.__main__ import of_custom
from tests.parity.refusals import CUSTOM, ELSEWHERE, PLAIN, ROWS

NUMBERED = [(f"{row.code}-{number}", row) for number, row in enumerate(ROWS)]
NAMES = [*range(1, 19), *range(20, 32), *range(40, 48), *range(50, 73), *range(80, 88), *range(90, 119)]


@pytest.mark.parametrize("row", ROWS, ids=[name for name, _ in NUMBERED])
def test_refused(row):
    with pytest.raises(row.ours, match=row.words) as found:
        row.call()
    assert found.type is row.ours, "docs/parity.md names the class itself, not one that it is derived from"
    assert not PLAIN.any(), "what was refused was not written either"


@pytest.mark.parametrize("row", ROWS, ids=[name for name, _ in NUMBERED])
def test_our_class_is_also_the_builtin_that_users_catch(row):
    if issubclass(row.ours, gj.GpujacError):
        assert any(issubclass(row.ours, vars(builtins)[n]) for n in ("ValueError", "TypeError", "RuntimeError"))


def test_every_row_is_here_or_says_why_not():
    here = {row.code for row in ROWS}
    assert not here & set(ELSEWHERE)
    assert {f"E{n}" for n in NAMES} - here == set(ELSEWHERE) | set(CUSTOM)


def test_rows_of_custom_operations_are_named_by_tests():
    assert sorted(set(CUSTOM) - set(of_custom())) == []
