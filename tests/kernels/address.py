"""Runs every kernel case with AddressSanitizer: `LD_PRELOAD=libasan.so python -m tests.kernels.address`.

In a process of its own, because the sanitizer must be there before the interpreter; it ends the
process where a kernel touches memory that is not its own.
"""

from gpujac import settings
from gpujac.backends import matrices as mt
from tests.kernels.cases import RUNS, entry_points
from tests.kernels.chains import random_case
from tests.kernels.on_cpu import OnCpu
from tests.kernels.test_chain import check_kernel

CHAINS = 40


def _is_repeated(path: str, name: str) -> bool:
    """Whether the kernel of the widest dtype has the same text: lanes that meet take long under the sanitizer."""
    return path in (mt.LU, mt.SOLVE, mt.CHOLESKY) and not name.endswith("complex128")


def main() -> None:
    with settings.override(sanitize="address"):
        cases = sum(RUNS[path](name, 0) for path, name in entry_points() if not _is_repeated(path, name))
        for seed in range(CHAINS):
            check_kernel(*random_case(seed), OnCpu(seed))
    print(cases + CHAINS, "cases")


if __name__ == "__main__":
    main()
