"""The list of behaviours is covered by tests, and docs/parity.md is what they say."""

from tests import parity
from tests.parity.__main__ import PAGE, load, page
from tests.parity.codes import ROWS


def test_every_behaviour_that_applies_has_a_test():
    load()
    assert [row.code for row in ROWS if row.mark == "A" and row.code not in parity.SHOWN] == []


def test_what_has_no_test_says_why():
    load()
    assert [row.code for row in ROWS if row.mark in "MNS" and not row.why] == []
    shown = {row.code for row in ROWS if row.mark in "NS"} & set(parity.SHOWN)
    assert not shown, "these are replaced or do not apply, so no test can show them"


def test_codes_are_unique():
    codes = [row.code for row in ROWS]
    assert len(set(codes)) == len(codes)


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.parity"
