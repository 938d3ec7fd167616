"""The dispatch table: what CuPy's functions do with a traced array, and what gpujac.cupy does.

One block per class and outcome: `class / with plain CuPy / with gpujac.cupy`, then the calls, as
text. The operands are those of `tests/array/calls.py`, and integers, flags and positions below.

Classes: E asks the hook of elementwise kernels, R that of reductions, M calls a method or operator
of the object (or a function of NumPy's, which asks it); X raises an error of CuPy's own; X-arr
raises what `__array__` raises; C gives a constant; ! would be silently wrong without care;
absent: CuPy has no such function.
Outcomes: works (NumPy's value, and the derivative), refused (an error of gpujac's), error (an
error of CuPy's, with a note), constant (NumPy's value, untraced), unchanged (the operand).
"""

import re

import numpy as np

from tests.array import calls

OPERANDS = {
    **calls.OPERANDS,
    "n": np.array([0, 2, 1, 3]),
    "i": np.array([0, 2, 1]),
    "j": np.array([[0, 2, 1, 1]]),
    "m": np.array([True, False, True]),
}
INTEGERS = frozenset("n i j m".split())  # these are operands of vmap where nothing else is traced

TABLE = """
elementwise: E / works / works
cp.sin(x) cp.cos(x) cp.tan(w) cp.exp(x) cp.exp2(x) cp.expm1(x) cp.log(y) cp.log1p(y) cp.log2(y) cp.log10(y)
cp.sqrt(y) cp.cbrt(x) cp.square(x) cp.reciprocal(x) cp.absolute(x) cp.abs(x) cp.negative(x) cp.sign(x) cp.sinh(x)
cp.cosh(x) cp.tanh(x) cp.arcsin(w) cp.arctan(x) cp.arctanh(w) cp.floor(x) cp.ceil(x) cp.rint(x) cp.trunc(x)
cp.isnan(x) cp.isinf(x) cp.isfinite(x) cp.logical_not(x) cp.conj(x) cp.conjugate(x) cp.deg2rad(x) cp.signbit(x)
cp.sinc(x) cp.angle(x) cp.fix(x) cp.positive(x) cp.add(x,y) cp.subtract(x,y) cp.multiply(x,y) cp.divide(x,y)
cp.true_divide(x,y) cp.floor_divide(x,y) cp.power(y,x) cp.float_power(y,x) cp.mod(x,y) cp.remainder(x,y) cp.fmod(x,y)
cp.maximum(x,y) cp.minimum(x,y) cp.fmax(x,y) cp.fmin(x,y) cp.arctan2(x,y) cp.hypot(x,y) cp.logaddexp(x,y)
cp.copysign(x,y) cp.less(x,y) cp.greater(x,y) cp.equal(x,y) cp.not_equal(x,y) cp.logical_and(x,y) cp.heaviside(x,y)
cp.nextafter(x,y) cp.divmod(x,y)[1] cp.invert(n) cp.bitwise_and(n,n)

elementwise: E / refused / refused
cp.i0(x) cp.ldexp(x,2) cp.gcd(n,n)

elementwise: C / unchanged / works
cp.real_if_close(x)

elementwise: X-arr / error / works
cp.nan_to_num(x) cp.real(x) cp.imag(x) cp.round(x) cp.around(x,1) cp.isclose(x,y) cp.allclose(x,x) cp.add.outer(v,w)

elementwise: M / works / works
cp.copy(x) cp.array_equal(x,x) cp.clip(x,-0.5,0.5) cp.clip(x,w,v+1) cp.add.reduce(x) cp.add.accumulate(x)
[b:=x*1,cp.add.at(b,0,1.0)][0]

elementwise: E+M / works / works
cp.where(x>0,x,y) [b:=x*1,cp.add(y,2.0,out=b)][0]

elementwise: X / error / works
cp.where(x) cp.select([x>0],[x]) cp.astype(x,np.float64)

elementwise: X / error / works
cp.interp(v,cp.sort(v),v)

elementwise: ! / error / refused
cp.piecewise(x,[x>0],[1.0])

special: E / works / works
special.expit(x) cupyx.rsqrt(y) special.erf(x) special.erfc(x) special.erfinv(w) special.gamma(y) special.gammaln(y)
special.digamma(y) special.logit(y) special.ndtr(x) special.log_ndtr(x) special.entr(y) special.xlogy(y,y)
special.betaln(y,y)

special: E / refused / refused
special.i0(x) special.i1(x) special.j0(x) special.expi(y) special.gammainc(y,y)

special: E+M / works / works
special.softmax(x) special.logsumexp(x)

special: X / error / error
special.log_softmax(x) signal.convolve(v,w) ndimage.gaussian_filter(x,1.0)

reduction: M / works / works
cp.sum(x) cp.prod(x) cp.mean(x) cp.std(x) cp.var(x) cp.ptp(x) cp.trace(x) cp.max(x) cp.amax(x) cp.min(x) cp.amin(x)
cp.argmax(x) cp.argmin(x)

reduction: R / works / works
cp.count_nonzero(x)

reduction: E+M+R / works / works
cp.nanmax(x) cp.nanmin(x)

reduction: X / error / works
cp.any(x) cp.all(x) cp.median(x) cp.nansum(x) cp.nanmean(x) cp.cumsum(x) cp.cumprod(x) cp.cumulative_sum(v)
cp.ediff1d(x) cp.trapezoid(x) cp.percentile(x,50) cp.quantile(x,0.5) cp.nanvar(x) cp.nanstd(x) cp.nanprod(x)
cp.digitize(x,[0.0]) cp.nancumsum(x)

reduction: X / error / refused
cp.nanargmax(x) cp.histogram(x)

reduction: X-arr / error / works
cp.average(x) cp.diff(x) cp.gradient(x)[0]

reduction: X / refused / refused
cp.bincount(n)

shape: M / works / works
cp.reshape(x,(4,3)) cp.ravel(x) cp.squeeze(x) cp.repeat(x,2) cp.diagonal(x) cp.transpose(x) cp.permute_dims(x,(1,0))
cp.swapaxes(x,0,1) cp.matrix_transpose(x) cp.flip(x) cp.fliplr(x) cp.rot90(x) cp.shape(x)

shape: X / error / works
cp.moveaxis(x,0,1) cp.rollaxis(x,1) cp.expand_dims(x,0) cp.broadcast_to(v,(2,4)) cp.concatenate([x,y]) cp.stack([x,y])
cp.column_stack([v,w]) cp.split(v,2)[0] cp.array_split(v,3)[1] cp.delete(v,1) cp.concat([x,y]) cp.meshgrid(v,w)[0]
cp.size(x) cp.roll(x,1) cp.pad(x,1) cp.diag(v) cp.pad(x,((1,0),(2,1)),'reflect')
cp.lib.stride_tricks.sliding_window_view(v,2)

shape: ! / unchanged / works
cp.broadcast_arrays(v,x)[0]

shape: X-arr / error / works
cp.vstack([x,y]) cp.hstack([x,y]) cp.dstack([x,y]) cp.tile(x,2) cp.atleast_2d(v) cp.append(v,w) cp.tril(x)
cp.triu(x) cp.vander(v)

shape: X-arr / error / refused
cp.ix_(v)

shape: absent / error / works
cp.unstack(x)[0] cp.block([x,x])

shape: C / works / works
cp.ndim(x)

creation: X-arr / error / works
cp.asarray(x) cp.array(x) cp.array([v,w]) cp.full(3,s) cp.linspace(s,2.0,3)

creation: X-arr / error / refused
cp.asnumpy(x)

creation: X / error / works
cp.ascontiguousarray(x) cp.may_share_memory(x,y)

creation: X / error / refused
cp.from_dlpack(x) cp.arange(x)

creation: C / constant / works
cp.zeros_like(x) cp.ones_like(x) cp.empty_like(x)*0 cp.full_like(x,2.0) cp.zeros(x.shape)

creation: C / constant / works
cp.isscalar(x)

creation: M / works / works
cp.result_type(x) cp.can_cast(x,np.float64) cp.iscomplexobj(x)

creation: X / error / works
[b:=x*1,cp.copyto(b,y)][0]

indexing and sorting: M / works / works
cp.take(x,i,1) cp.take(x,1) cp.take_along_axis(x,j,0) [b:=x*1,cp.put_along_axis(b,j,1.0,0)][0] cp.compress(m,x,0)
cp.argsort(x) cp.argpartition(x,1)[:,1] [b:=x*1,cp.put(b,0,1.0)][0] [b:=x*1,cupyx.scatter_add(b,0,1.0)][0]
cp.sort(x) cp.partition(x,1)[:,1]

indexing and sorting: M / error / refused
cp.choose(n,[v,w])

indexing and sorting: X / error / works
cp.extract(x>0,x) cp.nonzero(x) cp.searchsorted(v,w) [b:=x*1,cp.putmask(b,x>0,y)][0] cp.flatnonzero(x) cp.argwhere(x)

indexing and sorting: X / error / refused
cp.lexsort(x) cp.unique(x) cp.place(x,x>0,[1.0])

indexing and sorting: X / error / works
[b:=x*1,cp.fill_diagonal(b,1.0)][0]

indexing and sorting: E+M / refused / refused
cp.isin(x,y)

linalg: M / works / works
cp.dot(A,A)

linalg: X / error / works
cp.vdot(v,w) cp.inner(x,y) cp.matmul(A,x) cp.tensordot(A,x,1) cp.kron(x,y) cp.convolve(v,w) cp.linalg.solve(A,A)
cp.linalg.inv(A) cp.linalg.matrix_power(A,2) cp.correlate(v,w) cp.linalg.pinv(A) cp.linalg.cholesky(A+A.T)
cp.linalg.qr(A)[0] cp.linalg.svd(A)[1] cp.linalg.lstsq(A,A)[0] cp.linalg.det(A) cp.linalg.slogdet(A)[1]
cp.linalg.eigh(A+A.T)[1] cp.linalg.eigvalsh(A+A.T)

linalg: X / error / refused
cp.linalg.matrix_rank(A) cp.linalg.eig(A)

linalg: E+M / works / works
cp.outer(v,w) cp.linalg.norm(v) cp.linalg.norm(x)

linalg: R / works / works
cp.linalg.norm(x,axis=0) cp.linalg.norm(x,'fro',(0,1))

linalg: X-arr / error / works
cp.einsum('ij->i',x) cp.cross(A,A) cp.cov(x) cp.corrcoef(x) cp.linalg.cond(A)

linalg: absent / error / works
cp.vecdot(x,y) cp.linalg.matrix_norm(A) cp.linalg.vector_norm(x)

linalg: absent / error / error
cp.matvec(A,A) cp.vecmat(A,A)

linalg: X / error / error
sl.solve_triangular(A,A) sl.lu_solve((A,n),A) sl.lu(A) sl.lu_factor(A) sl.block_diag(A,A) sl.expm(A)

fft: X / error / works
abs(cp.fft.fft(v)) cp.fft.ifft(v).real cp.fft.rfft(v).real cp.fft.irfft(v) cp.fft.hfft(v) cp.fft.fft2(x).imag
abs(cp.fft.fftn(x))

fft: X-arr / error / works
cp.fft.fftshift(v)

random: X / error / refused
cp.random.normal(x) cp.random.permutation(x) cp.random.choice(x) cp.random.shuffle(x) cp.random.uniform(x)

kernels: E / refused / refused
cp.ElementwiseKernel('T_x','T_y','y=x','k')(x) cp.ElementwiseKernel('T_x','T_y','y=x','k')(x,size=12)

kernels: X / error / error
cp.ReductionKernel('T_x','T_y','x','a+b','y=a','0','r')(x) cp.RawKernel('','f')((1,),(1,),(x,))
cp.vectorize(lambda_x:x+1)(x)

kernels: X / error / refused
cp.apply_along_axis(cp.sum,0,x)

kernels: M / works / works
cp.fuse(lambda_x:x+1)(x)
"""


def rows() -> list[tuple[str, str, str, str, str]]:
    """(group, class, outcome with plain CuPy, outcome with gpujac.cupy, call) for every call."""
    found = []
    for block in TABLE.strip().split("\n\n"):
        head, *lines = block.split("\n")
        group, _, rest = head.partition(": ")
        kind, plain, ours = rest.split(" / ")
        found += [(group, kind, plain, ours, call) for line in lines for call in line.split()]
    return found


def summary() -> str:
    """How many calls work by each way in, as the table of docs/cupy.md."""
    groups = list(dict.fromkeys(group for group, *_ in rows()))
    lines = ["| group | calls | with plain CuPy | with `gpujac.cupy` |", "|---|---|---|---|"]
    for group in [*groups, None]:
        chosen = [row for row in rows() if group in (row[0], None)]
        plain = sum(row[2] in ("works", "constant") for row in chosen)
        ours = sum(row[3] == "works" for row in chosen)
        lines.append(f"| {group or 'all'} | {len(chosen)} | {plain} | {ours} |")
    return "\n".join(lines)


def spelled(call: str) -> str:
    """The call as Python: `_` stands for the few spaces that there are."""
    return re.sub(r"\b(T|lambda)_", r"\1 ", call)


def operands_of(call: str) -> list[str]:
    """The operands that a call names."""
    return [name for name in OPERANDS if re.search(rf"(?<![\w.'\"]){name}(?![\w'\"(=])", call)]
