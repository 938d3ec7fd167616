"""A progress bar over chunks, on stderr, only when asked for."""

from types import TracebackType
from typing import Any

from tqdm import tqdm


class _Silent:
    """A bar that shows nothing."""

    total = 0

    def update(self, n: int) -> None:
        """Count nothing."""

    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        return None


def progress_bar(chunks: int, options: Any) -> Any:
    """A tqdm bar of `chunks` steps, or a silent one."""
    if not options.progress:
        return _Silent()
    return tqdm(total=chunks, desc=options.what, unit="chunk")
