// lu_factor: row swaps, a unit lower and an upper triangle of small matrices, a = P L U, kept in one array.
// lu_det, lu_slogdet: determinants from these factors.
//
// The factors of one n by n matrix are n + 1 rows of n entries: row j is column j of L (below its unit
// diagonal) and of U, as cuBLAS keeps them, and entry k of the last row is the number, from 1, of the row
// that changed places with row k at step k. n <= 32.
//
// lu_factor: a group of `lanes` neighbouring threads works on one matrix in shared memory; thread r owns row
// r. The pivot is the largest entry of its column, as LAPACK's; a column of zeros is left as it is, so that
// a singular matrix has a zero on the diagonal of U and no NaN. Neighbouring threads read neighbouring
// entries where the rows of `a` have stride 1, and write neighbouring ones. Alignment: that of a real
// number. Bytes moved: each matrix once, its factors once.
// lu_det, lu_slogdet: one thread per matrix reads 2 n entries of its factors.
#include "matrix.cuh"

// Offsets have 64 bits; strides count entries.
template <class T>
GJ_DEVICE void lu_factor(GJ_IN(T) a, GJ_OUT(T) factors, long long matrices, int n, int lanes, long long stride,
                         long long row_stride, long long column_stride) {
    typedef gj_entry<T> Entry;
    extern __shared__ double memory[];
    const int width = n | 1;  // odd: lanes of a group are in different banks in either direction
    const int lane = threadIdx.x % lanes, group = threadIdx.x / lanes, groups = blockDim.x / lanes;
    T* s = (T*)memory + group * n * width;
    for (long long first = (long long)blockIdx.x * groups; first < matrices; first += (long long)gridDim.x * groups) {
        const long long m = first + group, from = m * stride, to = m * (n + 1) * n;
        const bool there = m < matrices;  // groups without a matrix keep step with the others of their warp
        for (int e = lane; e < n * n; e += lanes) {
            const int i = e / n, j = e % n;
            s[i * width + j] = there ? a[from + i * row_stride + j * column_stride] : T();
        }
        __syncwarp();
        for (int k = 0; k < n; ++k) {
            const bool open = lane >= k && lane < n;
            const int p = gj_largest_lane(open ? Entry::size(s[lane * width + k]) : typename Entry::Real(-1), lane, lanes);
            __syncwarp();  // the column is read: rows may move
            if (p != k && lane < n) {
                const T kept = s[k * width + lane];
                s[k * width + lane] = s[p * width + lane];
                s[p * width + lane] = kept;
            }
            if (there && lane == k) factors[to + n * n + k] = Entry::of(typename Entry::Real(p + 1));
            __syncwarp();
            const T pivot = s[k * width + k];
            if (open && lane > k && !gj_is_zero(pivot)) {
                const T factor = s[lane * width + k] / pivot;
                s[lane * width + k] = factor;
                for (int j = k + 1; j < n; ++j) s[lane * width + j] = s[lane * width + j] - factor * s[k * width + j];
            }
            __syncwarp();
        }
        for (int e = lane; there && e < n * n; e += lanes) factors[to + e] = s[e % n * width + e / n];
        __syncwarp();
    }
}

// One step of a walk over the diagonal: how often rows changed places, odd or even.
template <class T> GJ_DEVICE bool lu_moved(GJ_IN(T) factors, long long at, int n, int k) {
    return gj_real(factors[at + n * n + k]) != k + 1;
}

template <class T> GJ_DEVICE void lu_det(GJ_IN(T) factors, GJ_OUT(T) out, long long matrices, int n) {
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long m = (long long)blockIdx.x * blockDim.x + threadIdx.x; m < matrices; m += step) {
        const long long at = m * (n + 1) * n;
        T product = gj_entry<T>::of(1);
        for (int k = 0; k < n; ++k) {
            const T entry = factors[at + k * (n + 1)];
            product = product * (lu_moved<T>(factors, at, n, k) ? -entry : entry);
        }
        out[m] = product;
    }
}

GJ_DEVICE float lu_modulus(float x) { return fabsf(x); }
GJ_DEVICE double lu_modulus(double x) { return fabs(x); }
GJ_DEVICE float lu_modulus(gj_complex64 x) { return hypotf(x.re, x.im); }
GJ_DEVICE double lu_modulus(gj_complex128 x) { return hypot(x.re, x.im); }
GJ_DEVICE float lu_log(float x) { return logf(x); }
GJ_DEVICE double lu_log(double x) { return log(x); }

// The sign and the logarithm of the size lie side by side; of a singular matrix they are 0 and -inf.
template <class T> GJ_DEVICE void lu_slogdet(GJ_IN(T) factors, GJ_OUT(T) out, long long matrices, int n) {
    typedef typename gj_entry<T>::Real Real;
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long m = (long long)blockIdx.x * blockDim.x + threadIdx.x; m < matrices; m += step) {
        const long long at = m * (n + 1) * n;
        T sign = gj_entry<T>::of(1);
        Real size = 0;
        for (int k = 0; k < n; ++k) {
            const T entry = factors[at + k * (n + 1)];
            const Real modulus = lu_modulus(entry);
            const T turn = modulus == 0 ? T() : entry / modulus;
            sign = sign * (lu_moved<T>(factors, at, n, k) ? -turn : turn);
            size += lu_log(modulus);
        }
        out[2 * m] = sign;
        out[2 * m + 1] = gj_entry<T>::of(size);
    }
}

#define ENTRY(NAME, T)                                                                                              \
    extern "C" __global__ void __launch_bounds__(128, 8)                                                            \
        NAME(GJ_IN(T) a, GJ_OUT(T) factors, long long matrices, int n, int lanes, long long stride,                 \
             long long row_stride, long long column_stride) {                                                       \
        lu_factor<T>(a, factors, matrices, n, lanes, stride, row_stride, column_stride);                            \
    }
#define DET_ENTRY(NAME, WHAT, T)                                                                                    \
    extern "C" __global__ void __launch_bounds__(128, 8)                                                            \
        NAME(GJ_IN(T) factors, GJ_OUT(T) out, long long matrices, int n) {                                          \
        WHAT<T>(factors, out, matrices, n);                                                                         \
    }

ENTRY(lu_factor_float32, float)
ENTRY(lu_factor_float64, double)
ENTRY(lu_factor_complex64, gj_complex64)
ENTRY(lu_factor_complex128, gj_complex128)
DET_ENTRY(lu_det_float32, lu_det, float)
DET_ENTRY(lu_det_float64, lu_det, double)
DET_ENTRY(lu_det_complex64, lu_det, gj_complex64)
DET_ENTRY(lu_det_complex128, lu_det, gj_complex128)
DET_ENTRY(lu_slogdet_float32, lu_slogdet, float)
DET_ENTRY(lu_slogdet_float64, lu_slogdet, double)
DET_ENTRY(lu_slogdet_complex64, lu_slogdet, gj_complex64)
DET_ENTRY(lu_slogdet_complex128, lu_slogdet, gj_complex128)
