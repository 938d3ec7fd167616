"""Arrays over files: what was written goes to the disk, and its pages leave the process.

Pages of a shared map count as resident until the system needs their room. They are let go after each flush,
so that a result larger than the memory is written without crowding out anything.
"""

import mmap
from typing import Any

import numpy as np

_DONTNEED = getattr(mmap, "MADV_DONTNEED", None)  # not on every system


def write_back(x: Any) -> None:
    """Flush an array: a memmap's pages to its file and out of the process; another by its own `flush`."""
    shared = _map_of(x) if isinstance(x, np.ndarray) else None
    if shared is None:
        x.flush()
        return
    shared.flush()
    if _DONTNEED is not None:  # of a shared map: the file keeps what was written
        shared.madvise(_DONTNEED)


def _map_of(x: Any) -> mmap.mmap | None:
    """The map behind an array where writes to it reach a file; None for a private one, which only it holds."""
    mode = None
    while isinstance(x, np.ndarray):
        mode = getattr(x, "mode", mode)
        x = x.base
    return x if isinstance(x, mmap.mmap) and mode in ("r+", "w+") else None
