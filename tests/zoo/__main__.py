"""Prints the zoo as a table, function by transform: `python -m tests.zoo`.

With `--backend emulated` (or `cupy`, on a card): function by the way in which it meets CuPy arrays.
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.zoo import ZOO
from tests.zoo.checks import BATCHED, CHECKS, run_check
from tests.zoo.entry import Entry


def tried(check, *args):
    """ "ok", or "FAIL" with the reason."""
    try:
        check(*args)
    except Exception as error:  # the table shows every failure, whatever it is
        lines = str(error).strip().splitlines() or [""]
        return "FAIL", f"{type(error).__name__}: {lines[0]}"
    return "ok", ""


def by_transform(entry: Entry) -> list[tuple[str, str, str]]:
    """(transform, verdict, reason) of one function; "-" where values decide the control flow."""
    found = []
    for name in CHECKS:
        unmapped = name in BATCHED and not entry.mappable
        found.append((name, *(("-", "") if unmapped else tried(run_check, entry, name))))
    return found


def table(columns: list[str], row_of) -> list[tuple[Entry, list]]:
    """Prints a line per function as it is known; gives all of them."""
    width, rows = max(len(entry.name) for entry in ZOO), []
    print(" " * width, *columns, sep="  ")
    for entry in ZOO:
        row = row_of(entry)
        rows.append((entry, row))
        cells = [f"{verdict:>{len(name)}}" for name, verdict, _ in row]
        print(f"{entry.name:{width}}", *cells, sep="  ", flush=True)
    print()
    return rows


def reasons(rows: list[tuple[Entry, list]]) -> list[str]:
    """One line for each failure."""
    return [f"{entry.name}, {name}: {why}" for entry, row in rows for name, _, why in row if why]


def on_numpy() -> int:
    """Function by transform; 1 if anything failed."""
    rows = table(list(CHECKS), by_transform)
    fine = [entry for entry, row in rows if not any(why for _, _, why in row)]
    print(f"{sum(e.mappable for e in fine)} of {len(ZOO)} run through every transform with no edit.")
    print(f"{sum(not e.mappable for e in fine)} more run through every transform but batch with vmap's")
    print("method='loop' only, since values decide their branches.")
    print(*reasons(rows), sep="\n")
    return 1 if len(fine) < len(ZOO) else 0


def on_cupy(backend: str) -> int:
    """Function by way, judged by the Jacobian; 1 if a verdict is not the recorded one."""
    os.environ["GPUJAC_TESTS_BACKEND"] = backend
    from tests.zoo import ways  # reads the backend when it is loaded
    from tests.zoo.verdicts import verdict

    rows = table(list(ways.WAYS), lambda e: [(w, *tried(ways.run_check, e, "jacrev", w)) for w in ways.WAYS])
    for way in ways.WAYS:
        count = sum(("ok", way) == (cell[1], cell[0]) for _, row in rows for cell in row)
        print(f"{way}: {count} of {len(ZOO)}")
    none = sum(not any(v == "ok" for _, v, _ in row) for _, row in rows)
    print(f"not at all: {none} of {len(ZOO)}")
    print(*reasons(rows), sep="\n")
    return int(any((v == "ok") != (verdict(e.name, w) is None) for e, row in rows for w, v, _ in row))


def main() -> int:
    """The table that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("--backend", choices=("numpy", "emulated", "cupy"), default="numpy")
    backend = parser.parse_args().backend
    return on_numpy() if backend == "numpy" else on_cupy(backend)


if __name__ == "__main__":
    sys.exit(main())
