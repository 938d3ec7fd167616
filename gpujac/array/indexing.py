"""Reading and writing by index: basic keys, integer and boolean arrays, take, take_along_axis."""

import math
import operator
from functools import lru_cache
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import shape as sh
from gpujac.array.views import become, check_alive, check_fits, check_storable, link, write_positions
from gpujac.backends.choose import HOST_TYPES, backend_of
from gpujac.core.aval import dtype_of, kind, shape_of
from gpujac.core.source import asked_at
from gpujac.core.trace import Tracer, concrete, is_mapped, payload
from gpujac.errors import ConcretizationError
from gpujac.ops import elementwise as ew
from gpujac.ops import indexing as ix
from gpujac.ops import structure as st
from gpujac.ops.batching import harmless
from gpujac.ops.overwrite import set_slice


def getitem(x: Any, key: Any) -> Any:
    """`x[key]` by NumPy's rules."""
    single = key.__class__ is int  # in a loop over the entries: the short way
    key = key if key.__class__ is tuple else (key,)
    plan = _plan(x.shape, key) if single else _plan_of(x.shape, key)
    view = isinstance(x, Tracer)
    if plan is None:
        view = view and all(isinstance(k, (Tracer, np.generic)) or _is_basic(k) for k in key)  # NumPy copies
        key = tuple([_plain(k) for k in key])
        if not all(_is_basic(k) for k in key):
            return _advanced(x, key)
        plan = _plan_of(x.shape, key)
    result = _selected(x, *plan)
    if view and (result.shape != () or Ellipsis in key or _entry_is_view(x, result)):
        link(x, result, key, _SLICED)
    return result


def _entry_is_view(x: Any, entry: Any) -> bool:
    """Whether one entry of an array still is a part of it: in NumPy it is a number, in CuPy a view."""
    plain = payload(x)
    if type(plain) in HOST_TYPES or getattr(plain, "strides", None) is None:
        return False
    return bool(backend_of(plain).shares_memory(plain, payload(entry)))


def setitem(x: Tracer, key: Any, value: Any) -> None:
    """`x[key] = value`: a functional update behind the name."""
    if isinstance(value, Tracer) and _is_that_view(x, key, value):
        return  # x[key] += v has already written through the view
    value = c.lift(value, x)
    check_storable(dtype_of(value), x.dtype) if type(value) not in (int, float, bool) else None
    if type(value) is float and kind(x.dtype) not in "fc":
        check_storable(np.dtype(float), x.dtype)
    if not isinstance(key, tuple):
        key = (key,)
    key = tuple([_plain(k) for k in key])
    become(x, _written(x, key, value))


def _is_that_view(x: Tracer, key: Any, value: Tracer) -> bool:
    if value.origin is None or value.origin[0] is not x or value.origin[2] is not _SLICED:
        return False
    taken, key = value.origin[1], key if isinstance(key, tuple) else (key,)
    return len(taken) == len(key) and all(_is_basic(k) and k == t for k, t in zip(key, taken, strict=True))


def _written(x: Any, key: tuple, value: Any) -> Any:
    if all(_is_basic(k) for k in key):
        src, basic, new = _normalize(x.shape, key)
        lead = tuple(x.shape[: len(x.shape) - len(src)])
        return set_slice(src, basic)(x, _fitted(value, lead + new, lead + ix.slice_of(src, basic).dst, x))
    mask = _whole_mask(x, key)
    if mask is not None and shape_of(value) == ():
        return ew.where(mask, _weak(value, x), x)
    return _write_flat(x, key, value)


def _weak(value: Any, x: Any) -> Any:
    return value if type(value) in (int, float, complex) else c.astype(value, x.dtype)


def _fitted(value: Any, shape: tuple, target: tuple, x: Any) -> Any:
    """`value` cast and broadcast to the selected shape, as an array of x's library."""
    check_fits(shape_of(value), shape)
    if not isinstance(value, Tracer) and (type(value) in (int, float, complex, bool) or dtype_of(value) != x.dtype):
        like = value if payload(x) is None else payload(x)  # a linear function is recorded without values
        value = backend_of(like).asarray(value, x.dtype, like)
    elif payload(x) is not None:
        value = c.onto(value, payload(x))
    value = c.astype(value, x.dtype)
    while len(value.shape) > len(shape):
        value = sh.reshape(value, value.shape[1:])
    value = c.broadcast(value, shape)
    return sh.reshape(value, target) if value.shape != target else value


def _plain(k: Any) -> Any:
    """A traced index as its value where it has one; lists as arrays."""
    if isinstance(k, slice):
        return _plain_slice(k)
    if k is None or k is Ellipsis or (isinstance(k, int) and not isinstance(k, bool)):
        return k
    if isinstance(k, Tracer):
        _check_index(k)
        if is_mapped(k):
            return k
        try:
            k = concrete(k)
        except ConcretizationError:
            return k
    if isinstance(k, (list, tuple, bool)):
        k = np.asarray(k) if k != [] and k != () else np.zeros(0, np.intp)
    _check_index(k)
    if isinstance(k, np.integer) or (shape_of(k) == () and kind(dtype_of(k)) in "iu"):
        return operator.index(k)
    return np.asarray(k) if isinstance(k, np.generic) else k


def _check_index(k: Any) -> None:
    """Raise unless `k` is an array or number of integers or booleans."""
    found = type(k).__name__ if isinstance(k, (str, bytes, float, complex)) else str(dtype_of(k))
    if isinstance(k, (str, bytes, float, complex)) or kind(dtype_of(k)) in "fc":
        raise IndexError(
            f"an index must be made of integers, slices, None, ... or arrays of integers or booleans, not {found}"
        )


def _plain_slice(k: slice) -> slice:
    return slice(*[v if v is None else operator.index(v) for v in (k.start, k.stop, k.step)])


def _is_basic(k: Any) -> bool:
    return (isinstance(k, (int, slice)) and not isinstance(k, bool)) or k is None or k is Ellipsis


def _expand(shape: tuple, key: tuple) -> list:
    """The key with its Ellipsis written out, one entry per axis, None kept."""
    used = sum(_axes_of(k) for k in key)
    if used > len(shape):
        raise IndexError(f"too many indices: {used} for an array of shape {shape}")
    full: list = []
    seen = False
    for k in key:
        if k is Ellipsis:
            if seen:
                raise IndexError("an index can only have a single ellipsis ('...')")
            seen = True
            full += [slice(None)] * (len(shape) - used)
        else:
            full.append(k)
    if not seen:
        full += [slice(None)] * (len(shape) - used)
    return full


def _axes_of(k: Any) -> int:
    if k is None or k is Ellipsis:
        return 0
    if isinstance(k, (int, slice)) and not isinstance(k, bool):
        return 1
    return len(shape_of(k)) if kind(dtype_of(k)) == "b" else 1


def _normalize(shape: tuple, key: tuple) -> tuple[tuple, tuple, tuple]:
    """Trailing shape and basic key from the first touched axis on, and the selected shape."""
    full = _expand(shape, key)
    basic: list = []
    selected: list[int] = []
    axis = 0
    touched = len(shape)
    for k in full:
        if k is None:
            touched = min(touched, axis)
            selected.append(1)
            continue
        n = shape[axis]
        if isinstance(k, int):
            if not -n <= k < n:
                raise IndexError(f"index {k} is out of bounds for axis {axis} with size {n}")
            basic.append(k % n if n else 0)
        else:
            start, stop, step = k.indices(n)
            count = len(range(start, stop, step))
            basic.append((start, stop, step) if count else (0, 0, 1))
            selected.append(count)
        if basic[-1] != (0, n, 1):
            touched = min(touched, axis)
        axis += 1
    # axes before the first touched one stay outside the op; new axes among them too
    return tuple(shape[touched:]), tuple(basic[touched:]), tuple(selected[touched:])


def _plan_of(shape: tuple, key: tuple) -> Any:
    """(op or None, final shape or None) for a key of ints, slices, None and Ellipsis; else None."""
    signature: list = []
    for k in key:
        cls = k.__class__
        if cls is int or k is None or k is Ellipsis:
            signature.append(k)
        elif cls is slice:
            signature.append((k.start, k.stop, k.step))
        else:
            return None
    try:
        return _plan(shape, tuple(signature))
    except TypeError:  # a bound that cannot be hashed, such as a traced integer
        return None


@lru_cache(1 << 14)
def _plan(shape: tuple, signature: tuple) -> tuple[Any, Any]:
    key = tuple([slice(*k) if k.__class__ is tuple else k for k in signature])
    src, basic, selected = _normalize(shape, key)
    lead = shape[: len(shape) - len(src)]
    final = lead + selected
    if all(k == (0, n, 1) for k, n in zip(basic, src, strict=True)):
        return None, (None if final == shape else final)
    op = ix.slice_of(src, basic)
    return op, (None if lead + op.dst == final else final)


def _selected(x: Any, op: Any, final: Any) -> Any:
    y = _alias(x) if op is None else op(x)
    # not sh.reshape: `x` is the view's parent, not `y`
    return y if final is None else st.reshape(tuple(y.shape), final)(y)


def _basic(x: Any, key: tuple) -> Any:
    """`x[key]` for a basic key, again."""
    return _selected(x, *(_plan_of(x.shape, key) or ()))


def _alias(x: Any) -> Any:
    """A new traced array with the same payload: `x[...]` and `x[:]`."""
    check_alive(x)
    return type(x)(x.owner, x.value, x.aux, x.shape, x.dtype) if isinstance(x, Tracer) else x


def _whole_mask(x: Any, key: tuple) -> Any:
    """The mask, if the key is one boolean array that covers the leading axes of `x`."""
    if len(key) != 1 or _is_basic(key[0]) or kind(dtype_of(key[0])) != "b":
        return None
    mask, rank = c.placed(key[0], x) if isinstance(key[0], np.ndarray) else key[0], len(x.shape)
    if mask.shape != x.shape[: len(mask.shape)]:
        raise IndexError(f"boolean index of shape {mask.shape} does not match an array of shape {x.shape}")
    extra = rank - len(mask.shape)
    return sh.reshape(mask, mask.shape + (1,) * extra) if extra else mask


def _advanced(x: Any, key: tuple) -> Any:
    full = _expand(x.shape, key)
    single = _single_axis(full)
    if single is not None:
        axis, index = single
        return _take(x, _positions(index, x.shape[axis], axis), axis)
    flat = _kept(_flat_index(x, key), x)
    size = math.prod(x.shape)
    return ix.take(size, 0)(sh.reshape(x, (size,)), flat)


def _kept(index: Any, x: Any) -> Any:
    """An index as the derivative keeps it: on the device of `x`, so that no sweep uploads it again."""
    return c.placed(index, x) if isinstance(index, np.ndarray) else index


def _single_axis(full: list) -> tuple[int, Any] | None:
    """(axis, index) if one 1-axis advanced index stands among whole slices."""
    special = [i for i, k in enumerate(full) if not (isinstance(k, slice) and k == slice(None))]
    if len(special) != 1:
        return None
    k = full[special[0]]
    if k is None or isinstance(k, (int, slice)) or (kind(dtype_of(k)) == "b" and len(shape_of(k)) != 1):
        return None
    return special[0], k


def _positions(index: Any, size: int, axis: int) -> Any:
    """An integer or boolean index array as positions along `axis` of length `size`."""
    if kind(dtype_of(index)) == "b":
        return _true_positions(index, size, axis)[0]
    index = harmless(index)
    target = payload(index)
    if isinstance(target, np.ndarray) and target.size and (target.max() >= size or target.min() < -size):
        bad = target[(target >= size) | (target < -size)].flat[0]
        raise IndexError(f"index {bad} is out of bounds for axis {axis} with size {size}")
    return index


def _true_positions(mask: Any, size: int, axis: int) -> tuple:
    """Where a mask is true, one index array per axis of it."""
    if isinstance(mask, Tracer):
        raise ConcretizationError(
            "a boolean mask that differs between the lanes of vmap selects a different number of "
            "entries in each; use gpujac.numpy.where(mask, x, 0) instead" + asked_at()
        )
    if mask.shape[0] != size:
        raise IndexError(f"boolean index of length {mask.shape[0]} for axis {axis} with size {size}")
    return c.true_positions(mask)


def _take(x: Any, index: Any, axis: int) -> Any:
    rest = len(x.shape) - 1 - axis
    if not isinstance(dtype_of(index), np.dtype) and isinstance(index, Tracer) and kind(index.dtype) == "u":
        index = c.astype(index, np.int64)
    return ix.take(x.shape[axis], rest)(x, _kept(index, x))


def _flat_index(x: Any, key: tuple) -> Any:
    """Positions in the raveled array that the key selects, in the shape of the result."""
    far = next((k for k in key if not _is_basic(k) and not isinstance(k, np.ndarray)), None)
    if far is not None:
        return _computed_flat_index(x.shape, key, far)
    grid = np.arange(math.prod(x.shape)).reshape(x.shape)
    return grid[tuple(np.asarray(k) if not _is_basic(k) else k for k in key)]


def _computed_flat_index(shape: tuple, key: tuple, like: Any) -> Any:
    """The same by arithmetic on positions, for index arrays that differ between lanes or lie on a device as `like`."""
    entries = _entries(shape, key)
    arrays = [i for i, (k, _) in enumerate(entries) if not isinstance(k, (slice, type(None)))]
    special = [i for i, k in enumerate(key) if not (k is None or k is Ellipsis or isinstance(k, slice))]
    apart = special[-1] - special[0] + 1 != len(special)  # then the arrays' axes come first
    wide = c.broadcast_shapes(*(tuple(shape_of(entries[i][0])) for i in arrays))
    first = 0 if apart else arrays[0]
    others = [i for i in range(len(entries)) if i not in arrays]
    order: list = [*(i for i in others if not apart and i < first), None,
                   *(i for i in others if apart or i > first)]  # fmt: skip
    sizes = {i: _length(entries[i], shape) for i in others}
    result = tuple(n for i in order for n in (wide if i is None else (sizes[i],)))
    total: Any = 0  # of entries that differ between lanes or lie on a device
    plain: Any = np.zeros((), np.int64)  # of slices and of NumPy's arrays
    behind = len(result)
    for i in order:
        if i is None:
            behind -= len(wide)
            for a in arrays:
                part = _placed(entries[a], shape, behind)
                if isinstance(part, np.ndarray):
                    plain = plain + part
                else:
                    total = total + part
            continue
        behind -= 1
        k, axis = entries[i]
        if k is not None:
            positions = np.arange(shape[axis])[k] * math.prod(shape[axis + 1 :])
            plain = plain + positions.reshape((-1,) + (1,) * behind)
    return c.broadcast(total + c.placed(plain, like), result)


def _entries(shape: tuple, key: tuple) -> list:
    """(entry, its axis) for every entry of the key, masks as index arrays."""
    entries: list = []
    axis = 0
    for k in _expand(shape, key):
        if k is None:
            entries.append((None, axis))
        elif not isinstance(k, (int, slice)) and kind(dtype_of(k)) == "b":
            covered = shape[axis : axis + len(k.shape)]
            if tuple(k.shape) != tuple(covered):
                raise IndexError(f"boolean index of shape {tuple(k.shape)} for axes of sizes {tuple(covered)}")
            for part in _true_positions(k, shape[axis], axis):
                entries.append((part, axis))
                axis += 1
        else:
            entries.append((k, axis))
            axis += 1
    return entries


def _length(entry: tuple, shape: tuple) -> int:
    """How long the axis of the result is that a slice or None makes."""
    k, axis = entry
    return 1 if k is None else len(range(*k.indices(shape[axis])))


def _placed(entry: tuple, shape: tuple, behind: int) -> Any:
    """What one index array adds to the flat positions, with `behind` axes of the result after it."""
    k, axis = entry
    k = np.asarray(k) if isinstance(k, int) else k
    k = _positions(k, shape[axis], axis) % max(shape[axis], 1) * math.prod(shape[axis + 1 :])
    return sh.reshape(k, tuple(k.shape) + (1,) * behind) if behind and shape_of(k) else k


def _write_flat(x: Any, key: tuple, value: Any) -> Any:
    """Advanced write: for each position the last value that names it, the old one elsewhere."""
    flat = _flat_index(x, key)
    value = _fitted(value, tuple(shape_of(flat)), tuple(shape_of(flat)), x)
    return write_positions(x, flat, value)


def scattered(x: Any, key: Any, value: Any) -> Any:
    """Zeros of the shape of `x` with `value` added where the key points, repetitions adding up."""
    key = tuple([_plain(k) for k in (key if isinstance(key, tuple) else (key,))])
    flat = _kept(_flat_index(x, key), x)
    width = len(shape_of(flat))
    size = math.prod(x.shape)
    value = _fitted(c.lift(value, x), tuple(shape_of(flat)), tuple(shape_of(flat)), x)
    return sh.reshape(ix.scatter_add(size, 0, width)(value, flat), x.shape)


def take(x: Any, indices: Any, axis: Any = None, out: Any = None, mode: str = "raise") -> Any:
    """Entries of `x` at integer positions along `axis` (of the raveled array by default)."""
    c.refuse("take", out=out)
    if axis is None:
        x, axis = sh.ravel(x), 0
    a = c.axis_of(axis, len(x.shape), "take") + len(x.shape)
    n = x.shape[a]
    index = _plain(c.lift(indices))
    if mode in ("wrap", "clip"):
        index = index % n if mode == "wrap" else ew.clip(index, 0, n - 1)
    if isinstance(index, int):
        return c.unshared(getitem(x, (slice(None),) * a + (index,)))
    return _take(x, _positions(index, n, a), a)


def take_along_axis(x: Any, indices: Any, axis: Any = -1) -> Any:
    """Entries of `x` at `indices` along `axis`, the other axes matched."""
    if axis is None:
        x, axis = sh.ravel(x), 0
    a = c.axis_of(axis, len(x.shape), "take_along_axis") + len(x.shape)
    index = _plain(indices)
    others = list(x.shape)
    others[a] = 1
    wide = list(c.broadcast_shapes(tuple(others), tuple(n if i != a else 1 for i, n in enumerate(index.shape))))
    wide[a] = index.shape[a]
    shape = list(x.shape)
    for i, n in enumerate(wide):
        if i != a and n != shape[i]:
            x = sh.broadcast_to(x, tuple(n if j == i else m for j, m in enumerate(shape)))
            shape = list(x.shape)
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    if isinstance(index, np.ndarray):
        _positions(index, shape[a], a)
    base: Any = np.zeros((), np.int64)
    for i, n in enumerate(shape):
        if i != a:
            base = base + (np.arange(n) * strides[i]).reshape((-1,) + (1,) * (len(shape) - i - 1))
    if not isinstance(index, np.ndarray):
        base = backend_of(payload(index)).asarray(base, index.dtype, payload(index))
    size = math.prod(shape)
    return ix.take(size, 0)(sh.reshape(x, (size,)), _kept(index % shape[a] * strides[a] + base, x))


_SLICED = (_basic, _written)  # how a view by a basic key is taken, and written back
