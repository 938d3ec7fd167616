"""Tracebacks of errors that leave a user's function: the user's lines, and few of ours between them."""

from types import TracebackType

from gpujac.settings import get as setting

_PACKAGE = __name__.partition(".")[0]


def shorten(error: BaseException) -> None:
    """Cut the runs of our frames in the traceback of an error that is being handled, as far as it has come.

    Of a run between two frames of the user's the first frame stays, which was called; of the last run the
    frame that raised as well; the frame that handles the error goes (`raise` does not put it back).
    `settings.tracebacks="full"` leaves them all.
    """
    if setting("tracebacks") != "short":
        return
    links = _links(error.__traceback__)
    error.__traceback__ = _chained([
        link
        for i, link in enumerate(links)
        if i and (i == len(links) - 1 or not (_is_ours(link) and _is_ours(links[i - 1]) and i > 1))
    ])  # fmt: skip


def _links(traceback: TracebackType | None) -> list[TracebackType]:
    links = []
    while traceback is not None:
        links.append(traceback)
        traceback = traceback.tb_next
    return links


def _is_ours(link: TracebackType) -> bool:
    return str(link.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == _PACKAGE


def _chained(links: list[TracebackType]) -> TracebackType | None:
    """The links as one traceback."""
    rest: TracebackType | None = None
    for link in reversed(links):
        rest = TracebackType(rest, link.tb_frame, link.tb_lasti, link.tb_lineno)
    return rest
