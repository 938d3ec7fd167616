"""Calls of NumPy functions, as text, that every way in must serve: one row per call signature.

`np` is the namespace under test; the other names are the operands below, all traced at once.
"""

import re

import numpy as np

_rng = np.random.default_rng(20)
OPERANDS = {
    "s": np.float64(0.7),  # a scalar
    "v": _rng.uniform(0.3, 1.5, 4),
    "w": _rng.uniform(0.2, 0.9, 4) * [1, -1, 1, 1],
    "x": (_rng.permutation(12) * 0.213 - 1.137 + _rng.uniform(0, 0.02, 12)).reshape(3, 4),
    "y": _rng.uniform(0.2, 0.9, (3, 4)),
    "t": (_rng.permutation(24) * 0.17 - 1.91 + _rng.uniform(0, 0.02, 24)).reshape(2, 3, 4),
    "A": _rng.uniform(-1.0, 1.0, (3, 3)) + 3 * np.eye(3),
    "B": _rng.uniform(-1.0, 1.0, (2, 3, 3)) + 3 * np.eye(3),
    "o": np.array([[[0.4], [1.3]]]),  # (1, 2, 1)
}

_ELEMENTWISE = """
np.sin(x) np.cos(x) np.tan(w) np.arcsin(w) np.arccos(w) np.arctan(x) np.sinh(x) np.cosh(x) np.tanh(x)
np.arcsinh(x) np.arccosh(v+1) np.arctanh(w) np.exp(x) np.exp2(x) np.expm1(x) np.log(y) np.log2(y) np.log10(y)
np.log1p(y) np.sqrt(y) np.cbrt(x) np.square(x) np.reciprocal(x) np.abs(x) np.absolute(x) np.fabs(x)
np.negative(x) np.positive(x) np.sign(x) np.floor(x) np.ceil(x) np.rint(x) np.trunc(x) np.add(x,v)
np.subtract(x,v) np.multiply(x,v) np.divide(x,v) np.true_divide(x,v) np.power(y,v) np.power(x,2) np.power(x,3)
np.power(y,-1.5) np.float_power(y,v) np.remainder(x,v) np.mod(x,v) np.fmod(x,v) np.floor_divide(x,v)
np.arctan2(x,v) np.hypot(x,v) np.logaddexp(x,v) np.logaddexp2(x,v) np.maximum(x,y) np.minimum(x,y)
np.fmax(x,y) np.fmin(x,y) np.copysign(x,w) np.sinc(x) np.heaviside(x,0.5) np.deg2rad(x) np.rad2deg(x)
np.radians(x) np.degrees(x) np.isfinite(x) np.isnan(x) np.isinf(x) np.signbit(x) np.equal(x,y)
np.not_equal(x,y) np.less(x,y) np.less_equal(x,y) np.greater(x,y) np.greater_equal(x,y)
np.logical_and(x>0,y>0) np.logical_or(x>0,y>0) np.logical_not(x>0) np.logical_xor(x>0,y>0) np.logical_and(x,y)
np.asin(w) np.acos(w) np.atan(w) np.asinh(x) np.acosh(v+1) np.atanh(w) np.atan2(x,v) np.pow(y,v) np.conj(x)
np.conjugate(x) np.real(x) np.imag(x) np.angle(x) np.round(x) np.around(x,1) np.clip(x,-0.5,0.5)
np.clip(x,None,0.5) np.clip(x,-0.5,None) np.clip(x,w,v+w) np.clip(x,min=-0.5) np.clip(x,max=0.5)
np.nan_to_num(x) np.where(x>0,x,y) np.where(x>0,x,0) np.where([True,False,True,False],x,v) np.where(x>0,1.0,v)
np.where(x,x,y) np.isclose(x,y) np.isclose(x,x+0) np.allclose(x,y) np.array_equal(x,x) np.add(x,1)
np.modf(x)[0] np.divmod(x,v)[1]
"""
_REDUCTIONS = """
np.sum(x) np.sum(x,0) np.sum(x,axis=-1) np.sum(x,axis=(0,1)) np.sum(t,axis=(0,-1)) np.sum(x,axis=())
np.sum(x,1,keepdims=True) np.sum(x,axis=None,keepdims=True) np.sum(x,dtype=np.float32) np.sum(x,initial=2.0)
np.sum(x,where=x>0) np.sum(x,axis=0,where=[True,False,True,True]) np.sum(s) np.sum(x>0) np.sum(x>0,axis=0)
np.mean(x) np.mean(x,0) np.mean(x,axis=-2,keepdims=True) np.mean(t,axis=(0,2)) np.mean(x,where=x>0)
np.mean(x>0) np.mean(x,dtype=np.float32) np.var(x) np.var(x,axis=0) np.var(x,1,ddof=1)
np.var(t,axis=(0,2),keepdims=True) np.var(x,axis=1,correction=1) np.std(x) np.std(x,axis=0)
np.std(x,-1,ddof=1,keepdims=True) np.var(x,where=y>0.4) np.std(x,axis=0,where=y>0.3) np.max(x) np.max(x,0)
np.max(x,axis=-1,keepdims=True) np.max(t,axis=(0,1)) np.max(x,initial=0.1) np.max(x,where=y>0.5,initial=-9.0)
np.amax(x,1) np.min(x) np.min(x,0) np.min(t,axis=(1,2)) np.min(x,where=y>0.5,initial=9.0)
np.amin(x,axis=0,keepdims=True) np.ptp(x) np.ptp(x,axis=1) np.ptp(x,0,keepdims=True) np.prod(x) np.prod(x,0)
np.prod(t,axis=(0,2)) np.prod(x,axis=1,keepdims=True) np.prod(x,initial=3.0) np.prod(x,where=x>0) np.any(x>0)
np.any(x,axis=0) np.any(x>0,axis=(0,1)) np.all(x>0,axis=1,keepdims=True) np.all(x) np.argmax(x)
np.argmax(x,axis=0) np.argmax(x,1,keepdims=True) np.argmax(x,keepdims=True) np.argmin(x) np.argmin(x,-1)
np.argmin(x,axis=0,keepdims=True) np.count_nonzero(x) np.count_nonzero(x>0,axis=0)
np.count_nonzero(x,axis=1,keepdims=True) np.cumsum(x) np.cumsum(x,0) np.cumsum(x,axis=-1)
np.cumsum(x,dtype=np.float32) np.cumsum(x>0,axis=1) np.cumulative_sum(v) np.cumulative_sum(x,axis=1)
np.cumulative_sum(x,axis=0,include_initial=True) np.cumprod(v) np.cumprod(x,axis=1) np.cumulative_prod(v)
np.cumulative_prod(x,axis=0,include_initial=True) np.diff(v) np.diff(x,axis=0) np.diff(x,2) np.diff(x,0)
np.diff(v,prepend=0.0) np.diff(v,append=[1.0,2.0]) np.diff(x,prepend=1.0,axis=0) np.diff(v,9) np.average(x)
np.average(x,axis=0) np.average(x,weights=y) np.average(x,axis=1,weights=v)
np.average(x,axis=0,weights=y,keepdims=True) np.trapezoid(x) np.trapezoid(x,v) np.trapezoid(x,dx=0.5,axis=0)
np.nansum(x) np.nanmean(x,axis=0) np.nanmax(x) np.nanmin(x,axis=1) np.searchsorted([0.0,0.5,1.0],v)
np.nonzero(x>0)[0] np.argwhere(x>0) np.flatnonzero(x>0)
"""
_ORDER = """
np.sort(x) np.sort(x,axis=0) np.sort(x,axis=None) np.sort(x,1,stable=True) np.argsort(x) np.argsort(x,axis=0)
np.argsort(x,axis=None) np.median(x) np.median(x,axis=1) np.median(x,axis=0) np.median(t,axis=(0,2),keepdims=True)
np.take_along_axis(x,np.argsort(x,axis=1),axis=1) np.partition(x,1)[:,1] np.partition(x,(0,1),axis=0)[:2]
np.partition(x,5,axis=None)[5] np.take_along_axis(x,np.argpartition(x,-1),1)[:,-1]
np.argpartition(x,2,axis=None)[2] np.quantile(x,0.3) np.quantile(x,[0.2,0.7],axis=1) np.percentile(x,50)
np.quantile(t,0.4,axis=(0,2),keepdims=True) np.percentile(x,[[10.0],[75.0]],axis=0) np.quantile(v,1.0)
np.quantile(x,[0.2,0.7],axis=0,keepdims=True) np.quantile(x,0.4,axis=1,method='lower')
np.quantile(x,[0.1,0.45],axis=1,method='higher') np.quantile(x,0.45,method='midpoint')
np.quantile(x,[0.1,0.45,0.8],method='nearest') np.quantile(v,0.0)
np.interp(v,[-1.0,0.1,2.0],[0.0,1.0,4.0]) np.interp(0.3,np.sort(v),w) np.interp([-9.0,0.2,9.0],np.sort(v),w)
np.interp(x,[-1.0,0.1,0.7],[0.0,1.0,4.0],left=5.0,right=-1.0) np.interp(v,[0.5],[2.0])
np.interp(v,np.sort(w),v,left=s,right=s)
"""
_SERIES = """
np.gradient(v) np.gradient(v,0.5) np.gradient(v,[0.0,0.3,1.0,1.2]) np.gradient(x)[1] np.gradient(x,axis=0)
np.gradient(x,0.1,0.2)[0] np.gradient(t,axis=(0,2))[1] np.gradient(v,np.cumsum(v)) np.convolve(v,w)
np.convolve(v,x[0,:2],'same') np.convolve(v[:2],w,mode='valid') np.convolve(v[:3],w[:3],'same')
np.bincount([0,2,0,1],weights=v) np.bincount([0,2,0,1],v,minlength=6) np.polyval([1.0,2.0,3.0],v)
np.polyval(v,x) np.pad(v,2,mode='wrap') np.pad(x,1,'edge') np.pad(x,((1,2),(0,1)),mode='reflect')
np.pad(v,5,mode='symmetric') np.diff(v,prepend=v[-1]) np.diff(v,append=s) True*x x*False
"""
_DECOMPOSITIONS = """
np.linalg.det(A) np.linalg.det(B) np.linalg.slogdet(A)[1] np.linalg.slogdet(-B).logabsdet
np.linalg.cholesky(A@A.T) np.linalg.cholesky(B@B.swapaxes(1,2),upper=True) np.linalg.eigh(A+A.T)[0]
np.linalg.eigh(A+A.T).eigenvectors np.linalg.eigvalsh(A+A.T) np.linalg.eigvalsh(B@B.swapaxes(1,2),UPLO='U')
np.linalg.svd(A)[0] np.linalg.svd(x,full_matrices=False).U np.linalg.svd(x,full_matrices=False)[2]
np.linalg.svd(t,compute_uv=False) np.linalg.svdvals(x.T) np.linalg.qr(A)[0] np.linalg.qr(x).R np.linalg.qr(x.T)[0]
np.linalg.qr(x,'r') np.linalg.qr(A,mode='complete')[1] np.linalg.pinv(x) np.linalg.pinv(t,rtol=None)
np.linalg.lstsq(x.T,v)[0] np.linalg.lstsq(x.T,v)[1] np.linalg.lstsq(x.T,A[:,[0,1,2,0]].T)[0]
np.linalg.lstsq(x.T,A[:,[0,1,2,0]].T)[1] np.linalg.lstsq(x,A)[0] np.linalg.lstsq(x,A)[3] np.linalg.cond(A)
np.linalg.cond(B,-2) np.linalg.cond(A,1) np.linalg.cond(A,'fro') np.linalg.norm(x,2) np.linalg.norm(x,-2)
np.linalg.norm(x,'nuc') np.linalg.norm(t,2,axis=(2,0),keepdims=True) np.linalg.matrix_norm(t,ord=2)
np.linalg.norm(t,'nuc',(1,2))
"""
_STATISTICS = """
np.cov(x) np.cov(x,rowvar=False) np.cov(v) np.cov(v,w) np.cov(x,y,ddof=0) np.cov(x,bias=True)
np.cov(x,fweights=[1,2,1,3]) np.cov(x,aweights=v) np.cov(x,fweights=[1,2,1,3],aweights=v,ddof=2) np.corrcoef(x)
np.cov(x,aweights=v,ddof=0) np.corrcoef(v,w) np.corrcoef(v) np.corrcoef(x,rowvar=False)[0,1] np.correlate(v,w)
np.correlate(v,w[:2]) np.correlate(v[:2],w,'same') np.correlate(v,w[:3],mode='full') np.correlate(v[:3],w,'same')
np.correlate(v[:2],w) np.unwrap(5*x) np.unwrap(5*x,axis=0) np.unwrap(4*v,discont=4.0) np.unwrap(9*v,period=5.0)
np.digitize(x,[-1.0,0.0,1.0]) np.digitize(x,[1.0,0.0,-1.0]) np.digitize(x,[-1.0,0.0],right=True)
np.digitize(x,[1.0,0.0],True) np.nanvar(x) np.nanstd(x,axis=0) np.nanvar(x,1,ddof=1,keepdims=True) np.nanprod(x)
np.nancumsum(x,axis=1) np.nancumprod(v) np.nanquantile(x,0.3) np.nanquantile(x,[0.2,0.7],axis=1)
np.nanpercentile(t,[10.0,75.0],axis=(0,2)) np.nanmedian(x) np.nanmedian(x,axis=0,keepdims=True)
np.vander(v) np.vander(v,2) np.vander(v,5,increasing=True) np.vander(v,0)
"""
_WAVES = """
np.abs(np.fft.fft(v)) np.fft.rfft(x,axis=0).real np.fft.irfft(x) np.fft.irfft(x,5,axis=0) np.abs(np.fft.fftn(t))
np.fft.fft2(x).imag np.fft.ifft(v,6).real np.fft.hfft(x) np.abs(np.fft.ihfft(v)) np.abs(np.fft.rfftn(t,axes=(0,2)))
np.fft.irfftn(x) np.fft.irfft2(t) np.abs(np.fft.rfft2(x,(2,3))) np.abs(np.fft.ifft2(x,norm='ortho'))
np.fft.fftshift(x)
np.fft.ifftshift(x,axes=1) np.fft.ifftn(t).real np.fft.rfft(v,3,norm='forward').imag
np.abs(np.fft.fftn(t,axes=(0,1,0)))
"""
_SHAPES = """
np.reshape(x,(4,3)) np.reshape(x,-1) np.reshape(x,(2,-1,2)) np.reshape(x,(4,3),order='F')
np.reshape(x,(6,2),'A') np.ravel(x) np.ravel(x,order='F') np.ravel(s) np.transpose(x) np.transpose(t,(1,0,2))
np.transpose(t,(-1,0,1)) np.permute_dims(t,(2,0,1)) np.matrix_transpose(t) np.swapaxes(t,0,-1)
np.moveaxis(t,0,-1) np.moveaxis(t,(0,1),(-1,0)) np.rollaxis(t,2) np.rollaxis(t,0,3) np.squeeze(o)
np.squeeze(o,0) np.squeeze(o,axis=(0,-1)) np.expand_dims(x,0) np.expand_dims(x,(0,-1))
np.expand_dims(x,axis=-1) np.broadcast_to(v,(3,4)) np.broadcast_to(s,(2,2)) np.broadcast_to(v,4)
np.broadcast_arrays(x,v)[1] np.concatenate([x,y]) np.concatenate((x,y),1) np.concatenate([x,y],axis=-1)
np.concatenate([x,v],axis=None) np.concatenate([x,[[1,2,3,4]]]) np.concatenate([x]) np.concatenate(t)
np.concat([x,y],axis=1) np.concatenate([v,w],dtype=np.float32) np.stack([x,y]) np.stack([x,y],1)
np.stack((v,w),axis=-1) np.stack([s,1.0,s]) np.stack(t) np.stack([x,y],dtype=np.float32) np.vstack([v,x])
np.vstack([v,w]) np.hstack([v,w]) np.hstack([x,y]) np.hstack([s,v]) np.dstack([v,w]) np.dstack([x,y])
np.column_stack([v,w]) np.column_stack([x,x[:,0]]) np.block([[A,A],[A,2*A]]) np.block([v,w]) np.append(v,w)
np.append(x,y,axis=0) np.append(v,1.0) np.atleast_1d(s) np.atleast_2d(v) np.atleast_3d(v) np.atleast_3d(x)
np.atleast_1d(s,v)[0] np.atleast_2d(s) np.split(x,2,axis=1)[1] np.split(v,[1,3])[1] np.split(v,[3,1])[1]
np.array_split(v,3)[0] np.array_split(x,2)[1] np.hsplit(x,2)[0] np.vsplit(x,3)[1] np.dsplit(t,2)[1]
np.hsplit(v,2)[1] np.unstack(x)[1] np.unstack(x,axis=1)[0] np.flip(x) np.flip(x,0) np.flip(t,(0,-1))
np.fliplr(x) np.flipud(x) np.rot90(x) np.rot90(x,2) np.rot90(x,-1) np.roll(x,2) np.roll(x,1,axis=0)
np.roll(x,(1,-2),axis=(0,1)) np.roll(x,1,axis=(0,1)) np.roll(x,-7,1) np.tile(v,2) np.tile(x,(2,1))
np.tile(v,(2,3)) np.tile(x,(2,1,2)) np.tile(s,3) np.repeat(v,2) np.repeat(x,2,axis=0)
np.repeat(x,[1,0,2],axis=0) np.repeat(x,3) np.repeat(s,2) np.pad(v,2) np.pad(x,((1,0),(0,2)))
np.pad(x,1,constant_values=3.0) np.pad(x,(1,2)) np.pad(v,1,mode='constant')
np.pad(v,(1,2),constant_values=(5.0,6.0)) np.diagonal(A) np.diagonal(x,1) np.diagonal(x,-1)
np.diagonal(t,0,1,2) np.diagonal(t,axis1=0,axis2=2) np.diagonal(x,9) np.diag(A) np.diag(v) np.diag(v,1)
np.diag(v,-2) np.diag(x,k=1) np.diagflat(v) np.trace(A) np.trace(x,1) np.trace(t,0,1,2) np.trace(x,-1)
np.tril(x) np.tril(t,-1) np.triu(x,1) np.triu(x,k=-1) np.meshgrid(v,w)[0] np.meshgrid(v,w,indexing='ij')[1]
np.meshgrid(v,w,sparse=True)[0] np.meshgrid(v)[0] np.delete(v,1) np.delete(x,[0,2],axis=1) np.ediff1d(v)
np.tril(v) np.shape(x) np.ndim(x) np.size(x) np.size(x,0) np.iscomplexobj(x) np.isrealobj(x) np.isscalar(x)
np.can_cast(x.dtype,np.float32)
"""
_INDEXING = """
np.take(v,2) np.take(v,[0,-1,2]) np.take(x,[0,2],axis=0) np.take(x,[[0,1],[2,3]],axis=1) np.take(x,[5,-1])
np.take(x,[7,-9],mode='wrap') np.take(x,[7,-9],mode='clip') np.take(x,1,axis=-1)
np.take(x,[4],axis=0,mode='clip') np.take_along_axis(x,np.array([[0,1],[3,2],[1,1]]),axis=1)
np.take_along_axis(x,np.array([[0,2,1,0]]),axis=0) np.take_along_axis(x,np.array([3,1]),axis=None)
np.compress([True,False,True],x,axis=0) np.extract(x>0,x) np.select([x>0.5,x>0],[x,y],0.0) x[1] x[-1,2] x[:,1]
x[::-1] x[1:,::2] x[...,0] x[None,1] x[[0,2]] x[x>0] x[[0,1],[2,3]] x[:,[0,0,1]] t[0,:,[1,2]] t[:,0,[1,2]]
t[[0,1],:,[[2],[3]]] t[...,[1,2],None] x[()] s[()] s[None] s[...] v[v>0.5] x[np.array([True,False,True])]
x[1][2] x.T[0] t[None,...,0,None]
"""
_PRODUCTS = """
np.matmul(A,A) np.matmul(x,v) np.matmul(v,x.T) np.matmul(v,w) np.matmul(B,A) np.matmul(B,B) np.matmul(A,B)
np.matmul(t,v) np.matmul(t,x.T) np.matmul(v,t.swapaxes(1,2)) A@A x@v v@w B@A [1.0,2.0,3.0]@x np.dot(v,w)
np.dot(x,v) np.dot(A,A) np.dot(s,x) np.dot(t,v) np.dot(t,x.T) np.dot(B,B) np.vecdot(x,y) np.vecdot(x,v)
np.vecdot(t,x) np.vecdot(x,y,axis=0) np.vdot(x,y) np.inner(v,w) np.inner(x,y) np.inner(x,v) np.inner(s,x)
np.inner(t,x) np.outer(v,w) np.outer(x,v) np.tensordot(x,y) np.tensordot(x,x.T,1)
np.tensordot(x,y,axes=([0,1],[0,1])) np.tensordot(x,v,axes=(1,0)) np.tensordot(t,x,axes=([1,2],[0,1]))
np.tensordot(v,w,axes=0) np.kron(v,w) np.kron(A,x) np.cross(A,A[::-1]) np.cross(A,A[0])
np.cross(A,A[1],axis=0) np.einsum('ij,j->i',x,v) np.einsum('ij,ij',x,y) np.einsum('ij->ji',x)
np.einsum('ii->i',A) np.einsum('ii',A) np.einsum('ij->j',x) np.einsum('i,j',v,w) np.einsum('bij,bjk->bik',B,B)
np.einsum('...ij,...j->...i',t,v) np.einsum('ij,jk,kl->il',A,A,A) np.einsum('i,i,i->i',v,w,v)
np.einsum('i,i,i',v,w,v) np.einsum('iij->j',B.transpose(1,2,0)) np.einsum('ij,kj->ik',x,y)
np.einsum('ij,i->',A,A[0]) np.einsum('i,j,k->kji',v,w,v[:2]) np.einsum(x,[0,1],v,[1],[0])
np.einsum('ij,jk->ik',A,A,optimize='optimal') np.einsum('i->i',v) np.einsum(',i',s,v) np.einsum('bii->b',B)
np.einsum('ab,cd->ac',A,x) np.linalg.solve(A,A[0]) np.linalg.solve(A,A.T) np.linalg.solve(B,A)
np.linalg.solve(A,B) np.linalg.inv(A) np.linalg.inv(B) np.linalg.solve(B,B) np.linalg.matrix_power(A,3)
np.linalg.matrix_power(A,-1) np.linalg.matrix_power(A,0) np.linalg.norm(v) np.linalg.norm(x)
np.linalg.norm(x,axis=0) np.linalg.norm(x,1,axis=1) np.linalg.norm(x,np.inf,axis=0)
np.linalg.norm(x,-np.inf,axis=1) np.linalg.norm(x,3,axis=1) np.linalg.norm(x,0,axis=1) np.linalg.norm(x,'fro')
np.linalg.norm(x,1) np.linalg.norm(x,np.inf) np.linalg.norm(t,axis=(0,2)) np.linalg.norm(x,-1,keepdims=True)
np.linalg.norm(v,np.inf) np.linalg.norm(v,3) np.linalg.norm(x,axis=1,keepdims=True)
np.linalg.norm(x,keepdims=True) np.linalg.norm(t,'fro',axis=(1,2)) np.linalg.norm(t,np.inf,(0,1))
np.linalg.norm(t) np.linalg.vector_norm(x) np.linalg.vector_norm(x,axis=0,keepdims=True)
np.linalg.vector_norm(t,axis=(0,1),ord=3) np.linalg.matrix_norm(t) np.linalg.matrix_norm(t,ord=1)
np.linalg.matrix_transpose(t) np.linalg.diagonal(t) np.linalg.diagonal(t,offset=1) np.linalg.trace(B)
np.linalg.trace(B,offset=1) np.linalg.matmul(A,A) np.linalg.outer(v,w) np.linalg.cross(A,A[::-1])
np.linalg.tensordot(x,y) np.linalg.vecdot(x,y) np.linalg.multi_dot([A,A,A])
"""
_CREATION = """
np.zeros_like(x) np.ones_like(x) np.empty_like(x)*0 np.full_like(x,3.0) np.full_like(x,s)
np.full_like(v,w) np.zeros_like(x,dtype=np.float32)
np.zeros_like(x,shape=(2,)) np.ones_like(x,shape=5) np.copy(x) np.linspace(s,2.0,5)
np.linspace(0.0,s,4,endpoint=False)
np.astype(x,np.float32) x.astype(np.float32) x.astype(int)


"""


# Functions of NumPy without a rule.
UNSUPPORTED = """
np.linalg.eig(A) np.linalg.eigvals(A) np.linalg.matrix_rank(A) np.linalg.tensorinv(A)
np.choose([0,1,1,0],[v,w]) np.insert(v,1,s)
np.resize(v,6) np.trim_zeros(v)
np.histogram(x) np.unique(x) np.frexp(x) np.spacing(y)
np.apply_along_axis(np.sum,0,x)
""".split()
_WORDS = r"(?<![\w.'\"]){}(?![\w'\"(=])"
FLAT = tuple(
    f"np.{name}("
    for name in """sign floor ceil rint trunc floor_divide isfinite isnan isinf signbit equal
    not_equal less less_equal greater greater_equal logical_and logical_or logical_not logical_xor isclose
    allclose array_equal any all argmax argmin count_nonzero searchsorted nonzero argwhere flatnonzero argsort
    shape ndim size digitize result_type iscomplexobj isrealobj isscalar can_cast heaviside fix argpartition""".split()
) + ("np.sum(x>0", "np.mean(x>0", "np.cumsum(x>0", "x.astype(int)", "np.round(", "np.around(")
# The shape of the result or the branch taken depends on values: not for vmap.
DATA_DEPENDENT = (
    r"\[[^\]]*>|nonzero\(x>|allclose|array_equal|argwhere|searchsorted|digitize|np.(shape|ndim|size|isc|isr|can)"
    r"|extract|trim_zeros"
)


def operands_of(call: str) -> list[str]:
    """The operands that a call names."""
    return [name for name in OPERANDS if re.search(_WORDS.format(name), call)]


_VERSION = np.lib.NumpyVersion(np.__version__)
_NEWER = ["np.pad(x,{1:(1,2)})"] if _VERSION >= "2.2.0" else []  # what NumPy 2.1 lacks
_OLDER = ["np.fix(x)"] if _VERSION < "2.5.0" else []  # what later ones warn of


def all_calls() -> list[str]:
    """Every call of the tables that this NumPy knows."""
    tables = (_ELEMENTWISE, _REDUCTIONS, _ORDER, _SERIES, _DECOMPOSITIONS, _STATISTICS, _WAVES, _SHAPES, _INDEXING,
              _PRODUCTS, _CREATION)  # fmt: skip
    return [c for t in tables for c in t.split()] + _NEWER + _OLDER
