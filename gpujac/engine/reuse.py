"""Plans and their memory kept for the next Jacobian of the same program.

Two programs are the same if their entries are: operations, shapes, dtypes, what they read, the kinds of their
coefficients, and the contents of index arrays (by digest). Coefficients themselves are data. Every linearization
is asked for its own key; nothing is assumed from the function that it came from.

Memory that waits for the next call is capped by the setting `plan_memory`; `forget()` frees it. A pool of
memory is used by one sweep at a time, so threads that sweep the same program each have their own.
"""

import threading
from collections import OrderedDict
from hashlib import blake2b
from typing import Any

import numpy as np

from gpujac.core.op import Mask
from gpujac.engine.plan import Plan
from gpujac.engine.replay import Pool
from gpujac.ops.agree import Guarded
from gpujac.program.ir import Apply, Gather, Input, Partial, Program, Scale
from gpujac.settings import get as setting

_MOST_PROGRAMS = 64
_KEPT: "OrderedDict[tuple, Kept]" = OrderedDict()  # least recently used first
_LOCK = threading.Lock()


class Kept:
    """What was settled for one program in one direction.

    `plans`: a plan and its entries for each way in which the variables may begin structured; `pools`:
    memory that no sweep uses now; `row_bytes`: of the first plan, by which chunks are chosen; `latest`:
    the last of `plans` that was used.
    """

    __slots__ = ("plans", "pools", "row_bytes", "latest")

    def __init__(self) -> None:
        self.plans: dict[bytes, Any] = {}
        self.latest: Any = None
        self.pools: list[Pool] = []
        self.row_bytes = 0


def kept_for(key: tuple) -> Kept:
    """What is kept for a key, new where there is nothing."""
    with _LOCK:
        found = _KEPT.pop(key, None)
        _KEPT[key] = found = Kept() if found is None else found
        while len(_KEPT) > _MOST_PROGRAMS:
            _KEPT.popitem(last=False)
        return found


def taken(kept: Kept, plan: Plan, rows: int) -> Pool:
    """Memory for a sweep: a pool that waits, or a new one."""
    with _LOCK:
        for pool in kept.pools:
            if pool.plan is plan and pool.rows == rows:
                kept.pools.remove(pool)
                return pool
    return Pool(plan, rows)


def given_back(kept: Kept, pool: Pool) -> None:
    """Keep the memory of a finished sweep for the next one, within the cap; the least recently used goes first."""
    cap = setting("plan_memory") or 0
    with _LOCK:
        kept.pools.append(pool)
        total = sum([p.nbytes for k in _KEPT.values() for p in k.pools])
        for other in [*_KEPT.values(), kept]:
            while total > cap and other.pools:
                total -= other.pools.pop(0).nbytes


def kept_bytes() -> int:
    """Bytes of all memory that waits for a sweep.

    Example:
        >>> forget()
        >>> kept_bytes()
        0
    """
    with _LOCK:
        return sum([p.nbytes for k in _KEPT.values() for p in k.pools])


def forget() -> None:
    """Free all plans and their memory; the next Jacobian settles its own again.

    Example:
        >>> forget()
    """
    with _LOCK:
        _KEPT.clear()


def key_of(program: Program) -> tuple:
    """What two programs share that can be swept by one plan.

    Cost: about 2 us for each entry, and a digest of each index array.
    """
    return (program.inputs, tuple(program.outputs), *[_entry(e) for e in program.entries])


def _entry(entry: Any) -> tuple:
    kind = entry.__class__
    if kind is Scale:
        coefs = entry.coefs if entry.coefs is not None else entry.resolve()
        return entry.reads, entry.shape, entry.dtype, *[_coefficient(c) for c in coefs]
    if kind is Input:
        return entry.shape, entry.dtype
    if kind is Partial:
        return (entry.op, entry.position, entry.reads, entry.shape, entry.dtype,
                *[_operand(x) for x in entry.operands])  # fmt: skip
    assert kind in (Apply, Gather)
    return entry.op, entry.reads, entry.shape, entry.dtype


def _coefficient(c: Any) -> Any:
    """The kind of a coefficient."""
    if c is None:
        return None
    if type(c) is Mask:
        return "mask", _coefficient(c.factor)
    return "guarded" if type(c) is Guarded else "plain"


def _operand(x: Any) -> Any:
    """The kind of a constant operand, and the contents of an index array."""
    if x is None:
        return None
    x = np.asarray(x)
    if x.dtype.kind not in "iu":
        return x.shape, x.dtype
    return x.shape, x.dtype, blake2b(np.ascontiguousarray(x).data, digest_size=16).digest()
