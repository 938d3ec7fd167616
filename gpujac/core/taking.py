"""Which lanes of vmap take part in the code at work: those whose branch it is, whose loop goes on.

The others compute along, unheard. Per thread, the masks of all such code that is at work, the
innermost last: a traced boolean of shape (), false in the lanes that only watch. Beside each stands
the same with its entries on the host, so that nobody waits for a device again.
"""

import threading
from collections.abc import Callable
from typing import Any


class _Taking(threading.local):
    """The masks of this thread: pairs of one and the same on the host."""

    def __init__(self) -> None:
        self.masks: list[tuple[Any, Any]] = []


TAKING = _Taking()  # read by the hot paths of custom operations, else through the functions below


def mask() -> Any:
    """The innermost mask; None where every lane takes part."""
    masks = TAKING.masks
    return masks[-1][0] if masks else None


def on_host() -> Any:
    """The innermost mask with its entries on the host; None where every lane takes part."""
    masks = TAKING.masks
    return masks[-1][1] if masks else None


def enter(lanes: Any, host: Any) -> None:
    """Code for the lanes of a mask begins."""
    TAKING.masks.append((lanes, host))


def leave() -> None:
    """It ends."""
    TAKING.masks.pop()


def among(masks: list, f: Callable, *args: Any) -> Any:
    """What `f` gives for the lanes of these masks: those of an earlier time, when `f` was made."""
    aside, TAKING.masks = TAKING.masks, list(masks)
    try:
        return f(*args)
    finally:
        TAKING.masks = aside


def put_aside(level: int) -> list:
    """Code below the trace of this level begins, which masks of that trace say nothing to: until `put_back`."""
    aside = TAKING.masks
    if aside:
        TAKING.masks = [pair for pair in aside if pair[0].owner.level < level]
    return aside


def put_back(aside: list) -> None:
    """The masks are those again that `put_aside` returned."""
    TAKING.masks = aside
