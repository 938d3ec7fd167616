"""Which lanes of vmap take part in the code at work: those whose branch it is, whose loop goes on.

The others compute along, unheard. Per thread, the masks of all such code that is at work, the
innermost last: a traced boolean of shape (), false in the lanes that only watch.
"""

import threading
from typing import Any


class _Taking(threading.local):
    """The masks of this thread."""

    def __init__(self) -> None:
        self.masks: list = []


_TAKING = _Taking()


def mask() -> Any:
    """The innermost mask; None where every lane takes part."""
    return _TAKING.masks[-1] if _TAKING.masks else None


def enter(lanes: Any) -> None:
    """Code for the lanes of a mask begins."""
    _TAKING.masks.append(lanes)


def leave() -> None:
    """It ends."""
    _TAKING.masks.pop()
