"""Checks of derivatives, batching and custom operations, for users who write rules and for our own tests.

>>> import numpy as np
>>> from gpujac.testing import check_derivatives
>>> check_derivatives(lambda x: np.sin(x) * x.sum(), (np.array([0.3, -1.2]),), order=2)
"""

from gpujac.testing.batching import check_batching
from gpujac.testing.derivatives import check_derivatives
from gpujac.testing.ops import check_op
from gpujac.testing.report import TOLERANCES, Tolerance

__all__ = ["TOLERANCES", "Tolerance", "check_batching", "check_derivatives", "check_op"]
