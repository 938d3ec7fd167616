"""Work in chunks that are halved where memory runs out."""

from collections.abc import Callable
from typing import Any

_MARK = "gpujac: "


def in_chunks(total: int, step: int, work: Callable[[int, int, int], None],
              halved: Callable[[int, int, int], None], advice: Callable[[], str], start: int = 0,
              first: int | None = None) -> None:  # fmt: skip
    """Call `work(index, start, stop)` for chunks of `step` from `start` to `total`, one after the other.

    A chunk that ends in a MemoryError is halved and done again from where it started, as are those
    after it; before, `halved(index, start, step)` puts away what it left half made. A chunk of one
    raises, with a note that says what was tried and then `advice()`. `first`: the size of a chunk that
    was tried before.
    """
    index, first = 0, step if first is None else first
    while start < total:
        stop = min(start + step, total)
        try:
            work(index, start, stop)
        except MemoryError as error:
            if stop - start == 1:
                tried = f"chunks of {first} down to 1 were tried, " if first > 1 else ""
                where = f"out of memory in the chunk that begins at {start} of {total}"
                error.add_note(f"{_MARK}{where}; {tried}{advice()}")
                raise
        else:
            start, index = stop, index + 1
            continue
        # the error is gone, and with it the arrays of its frames; what outer transforms wrote down stays,
        # for coefficients that were computed on the way are kept
        step = (stop - start) // 2
        halved(index, start, step)


def note(error: BaseException, text: str) -> None:
    """Add a note of ours to an error, unless it has one that knows more."""
    if not any([n.startswith(_MARK) for n in getattr(error, "__notes__", ())]):
        error.add_note(_MARK + text)


def readable(count_bytes: int) -> str:
    """A number of bytes as a text."""
    size: Any = float(count_bytes)
    unit = 0
    while size >= 1000 and unit < 4:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"
