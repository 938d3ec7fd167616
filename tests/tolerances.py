"""How closely two numbers must agree, per dtype: the one table of tolerances.

An error is measured against the largest entry of what is wanted, but at least against one.
On a card there is a second set: CuPy compiles with -ftz=true (float32 numbers below 1.2e-38 are
zero) and fuses multiply-adds, its functions differ from NumPy's by a unit or two in the last place,
and its sums and matrix products add in another order.
"""

from typing import Any, NamedTuple


class Tolerance(NamedTuple):
    """Allowed errors, relative to the largest entry wanted."""

    same: float  # two routes to the same number: another mode, a loop, NumPy's own function
    step: float  # a derivative against differences or complex steps taken in double precision
    curve: float  # a second derivative against differences of a first one


TOLERANCES = {
    "float32": Tolerance(same=3e-5, step=2e-4, curve=3e-3),
    "float64": Tolerance(same=1e-11, step=2e-8, curve=2e-7),
    "complex64": Tolerance(same=3e-5, step=2e-4, curve=3e-3),
    "complex128": Tolerance(same=1e-11, step=2e-8, curve=2e-7),
}
ON_A_CARD = {
    "float32": Tolerance(same=1e-4, step=4e-4, curve=6e-3),
    "float64": Tolerance(same=1e-10, step=4e-8, curve=4e-7),
    "complex64": Tolerance(same=1e-4, step=4e-4, curve=6e-3),
    "complex128": Tolerance(same=1e-10, step=4e-8, curve=4e-7),
}
TABLES = {"cupy": ON_A_CARD}  # of backends that compute otherwise than NumPy; "emulated" is NumPy


def tolerance(*dtypes: Any, backend: str = "numpy") -> Tolerance:
    """The tolerance of the least precise of some dtypes (integers and booleans count as exact)."""
    table = TABLES.get(backend, TOLERANCES)
    found = [table[name] for name in (str(d).rpartition(".")[2] for d in dtypes) if name in table]
    return max(found, key=lambda t: t.same) if found else Tolerance(0.0, 0.0, 0.0)
