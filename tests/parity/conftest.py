"""What the tests of this folder share."""

from collections.abc import Callable
from typing import Any

import pytest

from gpujac.core import trace
from gpujac.ops.contract import Contract


@pytest.fixture
def open_levels() -> Callable[[], int]:
    """How many transforms are open in this thread."""
    return lambda: len(trace.OPEN.traces)


@pytest.fixture
def ranks_of_products(monkeypatch: pytest.MonkeyPatch) -> list:
    """The ranks of both operands of each product of arrays that is made from now on."""
    seen: list = []
    evaluate = Contract.evaluate

    def watched(op: Contract, be: Any, a: Any, b: Any) -> Any:
        seen.append((a.ndim, b.ndim))
        return evaluate(op, be, a, b)

    monkeypatch.setattr(Contract, "evaluate", watched)
    return seen
