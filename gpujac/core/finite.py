"""The first operation that makes a NaN or an infinity out of finite numbers, named with its operands.

`settings.debug_nans` asks for it. Whether all is finite is one question to the device, and a wait for it,
per operation; only for the error are arrays brought to the host.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpujac.backends.choose import HOST_TYPES, backend_of
from gpujac.core import taking
from gpujac.core.aval import dtype_of, is_one_of, shape_of
from gpujac.core.source import Line
from gpujac.core.trace import Trace, Tracer, open_traces
from gpujac.errors import NonFiniteError


class Seen(NamedTuple):
    """The innermost array behind a value, and where its mapped axes are (from the end, outermost vmap first)."""

    array: Any
    lanes: tuple[int, ...]
    vmaps: tuple[Trace, ...] = ()  # whose axes they are


def held(x: Any, mapped: tuple[Tracer, ...] = (), tangent: bool = False) -> list[tuple[bool, Seen]]:
    """The arrays behind a value that can hold a NaN, and whether each is a tangent; without a value none."""
    if not isinstance(x, Tracer):
        return [] if x is None or not _is_inexact(x) else [(tangent, _seen(x, mapped))]
    found: list = []
    if x.aux is not None and x.owner.batches:
        mapped = (*mapped, x)
    elif x.aux is not None and x.owner.dual:
        found = held(x.aux, mapped, True)
    return held(x.value, mapped, tangent) + found


def _seen(array: Any, mapped: tuple[Tracer, ...]) -> Seen:
    """An array behind tracers with mapped axes, the innermost vmap first."""
    return Seen(array, physical(tuple([x.aux for x in mapped])), tuple([x.owner for x in reversed(mapped)]))


def physical(axes: tuple[int, ...]) -> tuple[int, ...]:
    """Mapped axes of one array, each counted without the lanes of the vmaps outside of it, as they are in it."""
    lanes: list[int] = []
    for axis in reversed(axes):
        for inner in sorted(lanes, reverse=True):
            axis -= axis <= inner
        lanes.append(axis)
    return tuple(lanes)


def _is_inexact(x: Any) -> bool:
    return is_one_of("fc", x)  # an operand of a function with rules may be anything


def is_finite(x: Seen) -> bool:
    """Whether every entry is finite; waits for a device."""
    array = x.array
    if array.__class__ in HOST_TYPES:
        return bool(np.isfinite(np.asarray(array)).all())
    xp = backend_of(array).xp
    return bool(xp.all(xp.isfinite(array)))


def on_host(x: Any) -> np.ndarray:
    """An array as NumPy's."""
    if x.__class__ in HOST_TYPES:
        return np.asarray(x)
    return np.asarray(getattr(backend_of(x).xp, "asnumpy", np.asarray)(x))


def check(what: str, given: list, y: Any, known: list, elementwise: bool, where: str,
          line: Callable[[], Line | None]) -> None:  # fmt: skip
    """Raise if `y`, made of `given`, has a NaN or an infinity where those have none.

    Args:
        what: what messages call `y`.
        given: what `y` was made of; what is not finite there excuses `y`.
        known: (name, value) pairs whose statistics the message has.
        elementwise: compare entry by entry. Mapped values are compared lane by lane, others as a whole.
        where, line: which transform or sweep is at work, and the user's line.
    """
    results = [(tangent, x) for tangent, x in held(y) if not is_finite(x)]
    if not results:
        return
    before = [x for v in given for _, x in held(v) if not is_finite(x)]
    for tangent, x in results:
        place = _first_new(x, before, elementwise)
        if place is not None:
            raise _error(f"the tangent of {what}" if tangent else what, place, known, x, where, line())


def _first_new(result: Seen, before: list[Seen], elementwise: bool) -> tuple[tuple, tuple] | None:
    """Lane and index of the first entry of `result` that is not finite where nothing of `before` is."""
    bad: Any = _in_front(result)
    count = len(result.lanes)
    lanes = _taking_part(result)
    if lanes is not None:
        bad = bad & lanes.reshape(lanes.shape + (1,) * (bad.ndim - count))
    for x in before:
        old: Any = _in_front(x)
        if count and len(x.lanes) == count:
            old = old.any(axis=tuple(range(count, old.ndim)))
            bad = bad & ~old.reshape(old.shape + (1,) * (bad.ndim - count))
        elif elementwise and not count and old.ndim <= bad.ndim:
            bad = bad & ~old  # as the operation broadcast it
        else:
            return None
    if not bad.any():
        return None
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    return place[:count], place[count:]


def _taking_part(x: Seen) -> np.ndarray | None:
    """In which lanes of `x` the code at work counts, its mapped axes as they are in front; None: in all."""
    mask, mapped = taking.mask(), []
    if mask is None:
        return None
    while isinstance(mask, Tracer):
        if mask.aux is not None and mask.owner.batches:
            mapped.append(mask)
        mask = mask.value
    found = _seen(mask, tuple(mapped))
    if any([v not in open_traces() for v in found.vmaps]):
        return np.zeros((1,) * len(x.lanes), bool)  # plain code below the vmaps: no lane can be told from another
    flags: Any = np.moveaxis(on_host(found.array), found.lanes, range(len(found.lanes)))
    flags = flags.any(axis=tuple([i for i, v in enumerate(found.vmaps) if v not in x.vmaps]))
    both = [v for v in found.vmaps if v in x.vmaps]
    order = [v for v in x.vmaps if v in both]
    flags = flags.transpose([both.index(v) for v in order])
    sizes = dict(zip(order, flags.shape, strict=True))
    return flags.reshape([sizes.get(v, 1) for v in x.vmaps])


def _in_front(x: Seen) -> np.ndarray:
    """Which entries are not finite, the mapped axes in front."""
    bad = ~np.isfinite(on_host(x.array))
    return np.moveaxis(bad, x.lanes, range(len(x.lanes))) if x.lanes else bad


def statistics(x: Any) -> str:
    """Shape, dtype, range and how many entries are zero, NaN or infinite, in one line."""
    found = x if isinstance(x, Seen) else next((s for tangent, s in held(x) if not tangent), None)
    if found is None:
        return repr(x) if type(x) in (int, bool, type(None)) else f"shape {tuple(shape_of(x))}, {dtype_of(x)}"
    values = on_host(found.array)
    mapped = {axis % values.ndim for axis in found.lanes}
    text = f"shape {tuple([n for i, n in enumerate(values.shape) if i not in mapped])}, {values.dtype}, "
    if mapped:
        text += " x ".join([str(values.shape[axis]) for axis in found.lanes]) + " lanes, "
    finite = values[np.isfinite(values)]
    if values.dtype.kind == "c":
        finite, text = np.abs(finite), text + "moduli "
    text += f"from {finite.min():.4g} to {finite.max():.4g}" if finite.size else "nothing finite"
    counts = {"zero": (values == 0).sum(), "NaN": np.isnan(values).sum(), "infinite": np.isinf(values).sum()}
    return f"{text}; " + ", ".join([f"{n} {name}" for name, n in counts.items()])


def _error(what: str, place: tuple[tuple, tuple], known: list, result: Seen, where: str,
           line: Line | None) -> NonFiniteError:  # fmt: skip
    lane, index = place
    places = [f"in lane {lane[0] if len(lane) == 1 else lane}"] if lane else []
    places += [f"at index {list(index)}"] if index else []
    text = "".join([f"\n  {name}: {statistics(x)}" for name, x in (*known, ("result", result))])
    return NonFiniteError(
        f"{what} is not finite{' ' * bool(places)}{' '.join(places)}, and was made of finite numbers, "
        f"in {where}{text}" + (f"\n  {line}" if line else "")
    )
