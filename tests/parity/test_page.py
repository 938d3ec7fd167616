"""The list of behaviours is covered by tests, and docs/parity.md is what they say."""

import ast
import re

from tests import parity
from tests.parity.__main__ import CONTROL, FOLDER, PAGE, load, of_custom, page
from tests.parity.codes import ROWS
from tests.parity.refusals import CUSTOM


def test_every_behaviour_that_applies_has_a_test():
    load()
    assert [row.code for row in ROWS if row.mark == "A" and row.code not in parity.SHOWN] == []


def test_what_has_no_test_says_why():
    load()
    assert [row.code for row in ROWS if row.mark in "MNS" and not row.why] == []
    shown = {row.code for row in ROWS if row.mark in "NS"} & set(parity.SHOWN)
    assert not shown, "these are replaced or do not apply, so no test can show them"


def test_the_classes_of_a_row_are_those_that_its_tests_expect():
    """What the column "ours" says stands in one of the tests beside it, as a class that is expected."""
    load()
    texts = sources()
    rows = {row.code: (row.ours, parity.SHOWN.get(row.code, set())) for row in ROWS if row.mark != "S"}
    rows |= {code: (ours, of_custom()[code]) for code, (_, ours, _) in CUSTOM.items()}
    wrong = [
        (code, name)
        for code, (ours, tests) in rows.items()
        for name in filter(None, ours.split(", "))
        if not any(re.search(rf"\b{name}\b", texts[test]) for test in tests)
    ]
    assert wrong == []


def sources():
    """The text of every test that may stand in the page, with its decorators."""
    found = {}
    for path in [*FOLDER.glob("test_*.py"), *CONTROL.glob("test_custom*.py")]:
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                first = min([node.lineno, *[d.lineno for d in node.decorator_list]])
                found[f"{path.stem}::{node.name}"] = "\n".join(text.splitlines()[first - 1 : node.end_lineno])
    return found


def test_codes_are_unique():
    codes = [row.code for row in ROWS]
    assert len(set(codes)) == len(codes)


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.parity"
