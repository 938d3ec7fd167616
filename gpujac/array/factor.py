"""Factorizations with NumPy's signatures: det, cholesky, eigh, svd, qr, pinv, lstsq and what they make up."""

import math
from typing import Any, NamedTuple

import numpy as np

from gpujac.array import common as c
from gpujac.array import reduce as red
from gpujac.array import shape as sh
from gpujac.core.aval import dtype_of, shape_of
from gpujac.core.trace import Tracer, concrete, is_mapped
from gpujac.errors import ArgumentError, DispatchError, ShapeError
from gpujac.ops import contract as ct
from gpujac.ops import determinant as dt
from gpujac.ops import elementwise as ew
from gpujac.ops import factor as fa
from gpujac.ops import linalg as la
from gpujac.ops.batching import harmless


class SlogdetResult(NamedTuple):
    """Sign of a determinant and logarithm of its size."""

    sign: Any
    logabsdet: Any


class EighResult(NamedTuple):
    """Eigenvalues, rising, and eigenvectors as columns."""

    eigenvalues: Any
    eigenvectors: Any


class SVDResult(NamedTuple):
    """Singular vectors as columns of U, values, and vectors as rows of Vh."""

    U: Any
    S: Any
    Vh: Any


class QRResult(NamedTuple):
    """A matrix with orthonormal columns and an upper triangle."""

    Q: Any
    R: Any


def matrix(a: Any, what: str, square: bool = True) -> Any:
    """`a` in a floating dtype, refused unless its last two axes are (square) matrices."""
    a = c.floating(c.lift(a))
    if square and (len(a.shape) < 2 or a.shape[-1] != a.shape[-2]):
        raise ShapeError(f"{what}: the last two axes of shape {tuple(a.shape)} are not square")
    if len(a.shape) < 2:
        raise ShapeError(f"{what}: an array of shape {tuple(a.shape)} holds no matrices")
    return harmless(a, np.eye(*a.shape[-2:])) if is_mapped(a) else a


def det(a: Any) -> Any:
    """The determinant; its derivative is the matrix of cofactors, also where `a` is singular."""
    return dt.DET(matrix(a, "det"))


def slogdet(a: Any) -> SlogdetResult:
    """Sign and logarithm of the size of the determinant; a derivative needs an invertible `a`."""
    y = dt.SLOGDET(matrix(a, "slogdet"))
    return SlogdetResult(y[..., 0], red.real(y[..., 1]))


def cholesky(a: Any, /, *, upper: bool = False) -> Any:
    """The triangular factor of the Hermitian part of `a`."""
    lower = fa.CHOLESKY(matrix(a, "cholesky"))
    return red.conj(sh.matrix_transpose(lower)) if upper else lower


def eigh(a: Any, UPLO: str = "L") -> EighResult:
    """Eigenvalues and eigenvectors of the Hermitian part of `a`."""
    a = _hermitian(a, UPLO, "eigh")
    n = a.shape[-1]
    w, v = fa.unpacked(fa.EIGH(a), ((n,), (n, n)))
    return EighResult(red.real(w), v)


def eigvalsh(a: Any, UPLO: str = "L") -> Any:
    """Eigenvalues of the Hermitian part of `a`; repeated ones have finite first derivatives."""
    return fa.EIGVALSH(_hermitian(a, UPLO, "eigvalsh"))


def _hermitian(a: Any, triangle: str, what: str) -> Any:
    if triangle not in ("L", "U", "l", "u"):
        raise ArgumentError(f"{what}: UPLO={triangle!r} is neither 'L' nor 'U'")
    return matrix(a, what)


def _hermitian_part(a: Any) -> Any:
    return (a + la.adjoint(a)) * 0.5


def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    """Singular value decomposition; of a rectangular matrix with full_matrices=False.

    `hermitian` takes the Hermitian part of `a`.
    """
    a = _hermitian_part(matrix(a, "svd")) if hermitian else matrix(a, "svd", square=False)
    if not compute_uv:
        return fa.SVDVALS(a)
    m, n = a.shape[-2:]
    if full_matrices and m != n:
        raise DispatchError(
            f"svd: full_matrices=True of an array of shape {tuple(a.shape)} is not supported on traced arrays: the "
            "vectors beyond the values are arbitrary and have no derivative; use full_matrices=False, or take them "
            "from gpujac.value(x)"
        )
    u, s, vh = fa.unpacked(fa.SVD(a), fa.svd_shapes(m, n))
    return SVDResult(u, red.real(s), vh)


def svdvals(a: Any, /) -> Any:
    """Singular values; repeated ones have finite first derivatives."""
    return fa.SVDVALS(matrix(a, "svdvals", square=False))


def qr(a: Any, mode: str = "reduced") -> Any:
    """QR decomposition; the first columns of `a`, as many as it has rows, must be independent."""
    a = matrix(a, "qr", square=False)
    m, n = a.shape[-2:]
    if mode not in ("reduced", "r", "complete"):
        raise DispatchError(f"qr: mode={mode!r} is not supported on traced arrays; use 'reduced' or 'r'")
    if mode == "complete" and m > n:
        raise DispatchError(
            f"qr: mode='complete' of an array of shape {tuple(a.shape)} is not supported on traced arrays: the columns "
            "beyond those of the array are arbitrary; use 'reduced'"
        )
    k = min(m, n)
    q, r = fa.unpacked(fa.QR(a[..., :k]), ((m, k), (k, k)))
    if n > k:
        r = sh.concatenate([r, ct.contract("ij", "jk", "ik")(la.adjoint(q), a[..., k:])], -1)
    return r if mode == "r" else QRResult(q, r)


def pinv(a: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = c.NO_VALUE) -> Any:
    """The pseudoinverse, of the Hermitian part where `hermitian`; a derivative asks for a rank that stays the same."""
    a = _hermitian_part(matrix(a, "pinv")) if hermitian else matrix(a, "pinv", square=False)
    if rcond is not None and rtol is not c.NO_VALUE:
        raise ArgumentError("pinv: rcond= and rtol= say the same; give one of them")
    if rcond is None:
        rcond = 1e-15 if rtol is c.NO_VALUE else rtol
    if rcond is None:
        rcond = max(a.shape[-2:]) * _eps(a)
    if shape_of(rcond) != () or isinstance(rcond, Tracer):
        raise DispatchError("pinv: rcond= must be one plain number on traced arrays")
    return fa.pinv(rcond)(a)


def _eps(a: Any) -> float:
    return float(np.finfo(np.float32 if str(dtype_of(a)).endswith(("32", "x64")) else np.float64).eps)


def lstsq(a: Any, b: Any, rcond: Any = None) -> tuple:
    """Least squares by the pseudoinverse: solution, sums of squared residuals, rank, singular values.

    Where `a` differs between the lanes of vmap, there is one rank per lane, and the residuals, which NumPy
    leaves out for a smaller rank than `a` has columns, are NaN in such a lane.
    """
    a, b = c.promoted(*(c.floating(v) for v in c.together(a, b)))
    if len(a.shape) != 2 or len(b.shape) not in (1, 2) or a.shape[0] != b.shape[0]:
        raise ShapeError(f"lstsq: shapes {tuple(a.shape)} and {tuple(b.shape)}; give a matrix and as many rows of b")
    a = matrix(a, "lstsq", square=False)
    m, n = a.shape
    rcond = max(m, n) * _eps(a) if rcond is None else _eps(a) if rcond < 0 else rcond
    s = fa.SVDVALS(a)
    spec = ("ij", "j", "i") if len(b.shape) == 1 else ("ij", "jk", "ik")
    x = ct.contract(*spec)(fa.pinv(rcond)(a), b)
    rank = _rank(s, rcond)
    if m <= n or (isinstance(rank, int) and rank < n):
        return x, b[:0] if len(b.shape) == 1 else sh.ravel(b[:0])[:0], rank, s
    gap = red.absolute(b - ct.contract(*spec)(a, x))
    squares = sh.atleast_1d(red.sum(gap * gap, 0))
    return x, squares if isinstance(rank, int) else ew.where(ew.less(rank, n), math.nan, squares), rank, s


def _rank(s: Any, rcond: float) -> Any:
    """The rank that the values of a decomposition say: a number, or an array where lanes have their own."""
    if 0 in s.shape:
        return 0
    if is_mapped(s):
        return red.count_nonzero(ew.greater(s, rcond * s[0]), 0)
    values = c.on_host(concrete(s))
    return int(np.sum(values > rcond * values.max(initial=0.0)))


def cond(x: Any, p: Any = None) -> Any:
    """Condition number: largest over smallest singular value, or of another norm."""
    if p not in (None, 2, -2):
        x = matrix(x, "cond")
        _check_some(x)
        sign = dt.SLOGDET(x)[..., 0]
        found = spectral(x, p) * spectral(dt.inverse_or_nan(x, sign), p)
        return ew.where(ew.equal(sign, 0), math.inf, found)
    _check_some(x)
    s = fa.SVDVALS(matrix(x, "cond", square=False))
    above, below = (s[..., -1], s[..., 0]) if p == -2 else (s[..., 0], s[..., -1])
    nothing = ew.logical_and(ew.equal(above, 0), ew.equal(below, 0))  # NumPy has infinity for 0 / 0
    with np.errstate(divide="ignore"):  # of a singular matrix it is infinite
        return ew.divide(ew.where(nothing, 1.0, above), below)


def _check_some(x: Any) -> None:
    if 0 in shape_of(x)[-2:]:
        raise ShapeError(f"cond: the matrices of shape {tuple(shape_of(x))} have no entries")


def spectral(x: Any, ord: Any) -> Any:
    """A norm of the matrices in the last two axes, `ord` one of 2, -2, "nuc", "fro", 1, -1, inf, -inf."""
    if ord == "fro":
        return red.vector_norm(x, axis=(-2, -1))
    if ord in (2, -2, "nuc"):
        s = fa.SVDVALS(x)
        return s[..., 0] if ord == 2 else s[..., -1] if ord == -2 else red.sum(s, -1)
    if ord not in (1, -1, math.inf, -math.inf):
        raise ArgumentError(f"norm: ord={ord!r} is no norm of a matrix; use 'fro', 'nuc', 1, 2, inf or -1, ...")
    total = red.sum(red.absolute(x), -2 if ord in (1, -1) else -1)
    return (red.max if ord > 0 else red.min)(total, -1)

