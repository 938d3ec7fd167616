// lu_solve: x with a x = b, or aᴴ x = b, from the factors that lu_factor keeps (see lu.cu).
// triangular_solve: the same for the lower or upper triangle of a, of which only that triangle is read.
//
// A block copies its matrices to shared memory; `sharing` groups of `lanes` neighbouring threads (a power of
// two, at least n) take the columns of right-hand sides of one matrix in turn. Thread r of a group owns entry
// r of its column; each step of a substitution hands one finished entry to the group. n <= 32. Along y the
// grid splits the columns. A zero on a diagonal gives inf or NaN, as dividing by it does.
// Neighbouring threads read neighbouring entries of the factors, and of b where its rows have stride 1.
// Alignment: that of a real number. Bytes moved: each matrix once per block of columns, b once, x once.
#include "matrix.cuh"

// Where row r of P b comes from: row rows[r] of b. The swaps are numbers from 1 in the dtype of the factors;
// what is no row from k on (a NaN of a user's) swaps nothing.
template <class T> GJ_DEVICE void order_of(GJ_IN(T) swaps, int* rows, int n) {
    for (int k = 0; k < n; ++k) rows[k] = k;
    for (int k = 0; k < n; ++k) {
        const auto place = gj_real(swaps[k]);
        const int p = place > k && place <= n ? (int)place - 1 : k, kept = rows[k];
        rows[k] = rows[p];
        rows[p] = kept;
    }
}

// Offsets have 64 bits; strides count entries. The matrices are two nested axes of which the inner one has
// `inner` entries; a triangle or factors that several right-hand sides share have a stride of 0 there. Entry
// (i, j) of a triangle is at i * t_row + j * t_column.
template <class T, bool FACTORS>
GJ_DEVICE void solve(GJ_IN(T) t, GJ_IN(T) b, GJ_OUT(T) x, long long matrices, long long inner, long long columns, int n,
                     int lanes, int sharing, int lower, int unit, int adjoint, long long t_outer, long long t_inner,
                     long long t_row, long long t_column, long long b_outer, long long b_inner, long long b_column,
                     long long b_row, long long x_outer, long long x_inner, long long x_column, long long x_row) {
    extern __shared__ double memory[];
    const int width = n | 1;  // odd: lanes of a group are in different banks in either direction
    const int lane = threadIdx.x % lanes, group = threadIdx.x / lanes, share = group % sharing;
    const int here = blockDim.x / lanes / sharing;  // matrices of a block
    T* s = (T*)memory + group / sharing * n * width;
    int* rows = (int*)((T*)memory + here * n * width) + group / sharing * n;
#pragma unroll 1
    for (long long first = (long long)blockIdx.x * here; first < matrices; first += (long long)gridDim.x * here) {
        const long long m = first + group / sharing;
        const bool there = m < matrices;  // groups without a matrix keep step with the others of their block
        const long long outer = inner == matrices ? 0 : m / inner, at = m - outer * inner;
        const long long origin = outer * t_outer + at * t_inner;
#pragma unroll 1
        for (int e = share * lanes + lane; e < n * n; e += sharing * lanes) {
            const int i = FACTORS ? e % n : e / n, j = FACTORS ? e / n : e % n;
            const bool read = there && (FACTORS || (lower ? i > j : i < j) || (i == j && !unit));
            const T entry = read ? t[origin + i * t_row + j * t_column] : T();
            s[adjoint ? j * width + i : i * width + j] = adjoint ? gj_conj(entry) : entry;
        }
        if (FACTORS && there && share == 0 && lane == 0) order_of<T>(t + (origin + n * n), rows, n);
        __syncthreads();
        const long long step = (long long)gridDim.y * sharing;
#pragma unroll 1
        for (long long c0 = (long long)blockIdx.y * sharing; c0 < columns; c0 += step) {
            const long long c = c0 + share;
            const bool mine = there && c < columns && lane < n;
            const int place = FACTORS && mine ? rows[lane] : lane;
            const long long from = outer * b_outer + at * b_inner + c * b_column;
            const long long to = outer * x_outer + at * x_inner + c * x_column;
            T y = mine ? b[from + (adjoint ? lane : place) * b_row] : T();
            // Pᴴ a = L U and aᴴ = Uᴴ Lᴴ Pᴴ: a lower triangle first, then an upper one; L has the unit diagonal
#pragma unroll 1
            for (int pass = 0; pass < (FACTORS ? 2 : 1); ++pass) {
                const bool up = FACTORS ? pass == 1 : !lower != !!adjoint;
                y = gj_substitute(y, s, n, width, lane, lanes, up, FACTORS ? up == !!adjoint : unit != 0);
            }
            if (mine) x[to + (adjoint ? place : lane) * x_row] = y;
        }
        __syncthreads();
    }
}

#define ENTRY(NAME, T, FACTORS)                                                                                     \
    extern "C" __global__ void __launch_bounds__(128, 8)                                                            \
        NAME(GJ_IN(T) t, GJ_IN(T) b, GJ_OUT(T) x, long long matrices, long long inner, long long columns, int n,    \
             int lanes, int sharing, int lower, int unit, int adjoint, long long t_outer, long long t_inner,        \
             long long t_row, long long t_column, long long b_outer, long long b_inner, long long b_column,         \
             long long b_row, long long x_outer, long long x_inner, long long x_column, long long x_row) {          \
        solve<T, FACTORS>(t, b, x, matrices, inner, columns, n, lanes, sharing, lower, unit, adjoint, t_outer,      \
                          t_inner, t_row, t_column, b_outer, b_inner, b_column, b_row, x_outer, x_inner, x_column,  \
                          x_row);                                                                                   \
    }

ENTRY(lu_solve_float32, float, true)
ENTRY(lu_solve_float64, double, true)
ENTRY(lu_solve_complex64, gj_complex64, true)
ENTRY(lu_solve_complex128, gj_complex128, true)
ENTRY(triangular_solve_float32, float, false)
ENTRY(triangular_solve_float64, double, false)
ENTRY(triangular_solve_complex64, gj_complex64, false)
ENTRY(triangular_solve_complex128, gj_complex128, false)
