"""Behaviours of torch.func as tests: `@parity("J29")` says which behaviours a test shows to hold.

The list of all behaviours is in `codes.py`; `python -m tests.parity` writes docs/parity.md from both.
"""

from collections.abc import Callable

from tests.parity.codes import ROWS

KNOWN = {row.code for row in ROWS}
SHOWN: dict[str, set[str]] = {}  # code -> the tests that show it, as "file::name"


def parity(*codes: str) -> Callable:
    """Marks a test as the proof of some behaviours."""
    unknown = [code for code in codes if code not in KNOWN]
    assert not unknown, f"tests/parity/codes.py has no {unknown}"

    def mark(test: Callable) -> Callable:
        if ":" not in test.__module__:  # the same text once more, on the arrays of another library
            for code in codes:
                SHOWN.setdefault(code, set()).add(f"{test.__module__.rpartition('.')[2]}::{test.__name__}")
        return test

    return mark
