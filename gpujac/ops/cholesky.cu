// cholesky: the lower triangle l with l lᴴ = (a + aᴴ) / 2 of small matrices; NaN where that is not
// positive definite, all of it, so that no half of a factor is taken for one.
//
// A group of `lanes` neighbouring threads (a power of two, at least n) works on one matrix in shared memory;
// thread r owns row r. n <= 32. Neighbouring threads read neighbouring entries where the rows of `a` have
// stride 1 (and the mirrored ones at the stride of a column), and write neighbouring ones. Alignment: that
// of a real number. Bytes moved: each matrix twice, its factor once.
#include "matrix.cuh"

GJ_DEVICE float cholesky_root(float x) { return sqrtf(x); }
GJ_DEVICE double cholesky_root(double x) { return sqrt(x); }

// Offsets have 64 bits; strides count entries.
template <class T>
GJ_DEVICE void cholesky(GJ_IN(T) a, GJ_OUT(T) out, long long matrices, int n, int lanes, long long stride,
                        long long row_stride, long long column_stride) {
    typedef typename gj_entry<T>::Real Real;
    extern __shared__ double memory[];
    const int width = n | 1;  // odd: lanes of a group are in different banks in either direction
    const int lane = threadIdx.x % lanes, group = threadIdx.x / lanes, groups = blockDim.x / lanes;
    T* s = (T*)memory + group * n * width;
    for (long long first = (long long)blockIdx.x * groups; first < matrices; first += (long long)gridDim.x * groups) {
        const long long m = first + group, from = m * stride;
        const bool there = m < matrices;  // groups without a matrix keep step with the others of their warp
        for (int e = lane; e < n * n; e += lanes) {
            const int i = e / n, j = e % n;
            if (j > i) continue;
            T entry = T();
            if (there)
                entry = (a[from + i * row_stride + j * column_stride] +
                         gj_conj(a[from + j * row_stride + i * column_stride])) * Real(0.5);
            s[i * width + j] = entry;
        }
        __syncwarp();
        bool definite = true;
        for (int k = 0; k < n; ++k) {
            const Real square = gj_real(s[k * width + k]), root = cholesky_root(square);
            definite = definite && square > 0;
            __syncwarp();  // the diagonal is read: it may be written
            if (lane >= k && lane < n)
                s[lane * width + k] = lane == k ? gj_entry<T>::of(root) : s[lane * width + k] / root;
            __syncwarp();
            if (lane > k && lane < n) {
                const T mine = s[lane * width + k];
                for (int j = k + 1; j <= lane; ++j)
                    s[lane * width + j] = s[lane * width + j] - mine * gj_conj(s[j * width + k]);
            }
            __syncwarp();
        }
        for (int e = lane; there && e < n * n; e += lanes) {
            const int i = e / n, j = e % n;
            out[m * n * n + e] = !definite ? gj_entry<T>::of(Real(0) / Real(0)) : j > i ? T() : s[i * width + j];
        }
        __syncwarp();
    }
}

#define ENTRY(NAME, T)                                                                                              \
    extern "C" __global__ void __launch_bounds__(128, 8)                                                            \
        NAME(GJ_IN(T) a, GJ_OUT(T) out, long long matrices, int n, int lanes, long long stride,                     \
             long long row_stride, long long column_stride) {                                                       \
        cholesky<T>(a, out, matrices, n, lanes, stride, row_stride, column_stride);                                 \
    }

ENTRY(cholesky_float32, float)
ENTRY(cholesky_float64, double)
ENTRY(cholesky_complex64, gj_complex64)
ENTRY(cholesky_complex128, gj_complex128)
