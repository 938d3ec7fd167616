// scatter_add: target[l, index[j], r] += values[l, j, r]; repeated entries of index add up.
//
// One thread owns a column c = (j, r) of the values and walks over rows l; the index is read once
// per column. The rows are two nested axes (l0 along z of the grid, l1 along y), so rows cost no
// division; the axes after the index are two nested axes (r0, r1) as well. An axis that is not needed
// has size 1. Alignment: that of a real entry. Bytes moved: one per byte of the values, two per byte
// of the target that is touched, and the index once per block of rows.
//
// Two ways. Atomic: every value is added where it belongs, in any order, so sums of floats may differ
// in the last bits from run to run. Ordered: the caller sorts the index (stably); the thread at the
// first entry of a run of equal indices adds up the whole run in its order, all others have nothing
// to do. Equal bit for bit in every run; slow where one position gets most of the values.
#include "atomic.cuh"

// T entry, I index, O offset: int below about 2^31 entries, else long long. Strides count entries.
template <class T, class I, class O>
GJ_DEVICE void scatter_add(GJ_OUT(T) target, GJ_IN(I) index, GJ_IN(T) values, O rows0, O rows1, O columns, O size,
                           O rest, O rest1, O index_stride, O to_row0, O to_row1, O to_stride, O to_rest0, O to_rest1,
                           O from_row0, O from_row1, O from_stride, O from_rest0, O from_rest1) {
    typedef decltype(I() + O()) Wide;  // holds the index and the size
    const O row = (O)blockIdx.y * blockDim.y + threadIdx.y, row_step = (O)gridDim.y * blockDim.y;
    const O column_step = (O)gridDim.x * blockDim.x;
    for (O c = (O)blockIdx.x * blockDim.x + threadIdx.x; c < columns; c += column_step) {
        const O j = rest == 1 ? c : c / rest, r = c - j * rest;
        const O place = (O)gj_wrap((Wide)index[j * index_stride], (Wide)size);
        const O r0 = rest1 == rest ? 0 : r / rest1, r1 = r - r0 * rest1;
        const O to = place * to_stride + r0 * to_rest0 + r1 * to_rest1;
        const O from = j * from_stride + r0 * from_rest0 + r1 * from_rest1;
        for (O l0 = blockIdx.z; l0 < rows0; l0 += gridDim.z)
            for (O l1 = row; l1 < rows1; l1 += row_step) {
                const T value = values[from + l0 * from_row0 + l1 * from_row1];
                gj_atomic_add(target + (to + l0 * to_row0 + l1 * to_row1), value);
            }
    }
}

// `index` is sorted and not negative, and order[j] is the place in `values` of its entry j.
template <class T, class O>
GJ_DEVICE void scatter_add_ordered(GJ_OUT(T) target, GJ_IN(long long) index, GJ_IN(long long) order, GJ_IN(T) values,
                                   O rows0, O rows1, O columns, O rest, O rest1, O to_row0, O to_row1, O to_stride,
                                   O to_rest0, O to_rest1, O from_row0, O from_row1, O from_stride, O from_rest0,
                                   O from_rest1) {
    const O row = (O)blockIdx.y * blockDim.y + threadIdx.y, row_step = (O)gridDim.y * blockDim.y;
    const O column_step = (O)gridDim.x * blockDim.x, count = rest == 1 ? columns : columns / rest;
    for (O c = (O)blockIdx.x * blockDim.x + threadIdx.x; c < columns; c += column_step) {
        const O j = rest == 1 ? c : c / rest, r = c - j * rest;
        const long long place = index[j];
        if (j > 0 && index[j - 1] == place) continue;
        const O r0 = rest1 == rest ? 0 : r / rest1, r1 = r - r0 * rest1;
        const O to = (O)place * to_stride + r0 * to_rest0 + r1 * to_rest1;
        const O from = r0 * from_rest0 + r1 * from_rest1;
        for (O l0 = blockIdx.z; l0 < rows0; l0 += gridDim.z)
            for (O l1 = row; l1 < rows1; l1 += row_step) {
                const O to_row = to + l0 * to_row0 + l1 * to_row1, from_row = from + l0 * from_row0 + l1 * from_row1;
                T sum = target[to_row];
                for (O k = j; k < count && index[k] == place; ++k)
                    sum = sum + values[from_row + (O)order[k] * from_stride];
                target[to_row] = sum;
            }
    }
}

// Four blocks on a multiprocessor leave 64 registers per thread; without the 4 ptxas spills some at 48.
#define ENTRY(NAME, T, I, O)                                                                                         \
    extern "C" __global__ void __launch_bounds__(256, 4)                                                               \
        NAME(GJ_OUT(T) target, GJ_IN(I) index, GJ_IN(T) values, O rows0, O rows1, O columns, O size, O rest, O rest1, \
             O index_stride, O to_row0, O to_row1, O to_stride, O to_rest0, O to_rest1, O from_row0, O from_row1,    \
             O from_stride, O from_rest0, O from_rest1) {                                                            \
        scatter_add<T, I, O>(target, index, values, rows0, rows1, columns, size, rest, rest1, index_stride, to_row0,  \
                             to_row1, to_stride, to_rest0, to_rest1, from_row0, from_row1, from_stride, from_rest0,  \
                             from_rest1);                                                                            \
    }
#define ORDERED_ENTRY(NAME, T, O)                                                                                    \
    extern "C" __global__ void __launch_bounds__(256, 4)                                                               \
        NAME(GJ_OUT(T) target, GJ_IN(long long) index, GJ_IN(long long) order, GJ_IN(T) values, O rows0, O rows1,     \
             O columns, O rest, O rest1, O to_row0, O to_row1, O to_stride, O to_rest0, O to_rest1, O from_row0,     \
             O from_row1, O from_stride, O from_rest0, O from_rest1) {                                               \
        scatter_add_ordered<T, O>(target, index, order, values, rows0, rows1, columns, rest, rest1, to_row0, to_row1, \
                                  to_stride, to_rest0, to_rest1, from_row0, from_row1, from_stride, from_rest0,      \
                                  from_rest1);                                                                       \
    }

ENTRY(scatter_add_float32_i32_o32, float, int, int)
ENTRY(scatter_add_float64_i32_o32, double, int, int)
ENTRY(scatter_add_complex64_i32_o32, gj_complex64, int, int)
ENTRY(scatter_add_complex128_i32_o32, gj_complex128, int, int)
ENTRY(scatter_add_int32_i32_o32, int, int, int)
ENTRY(scatter_add_int64_i32_o32, long long, int, int)
ENTRY(scatter_add_float32_i64_o32, float, long long, int)
ENTRY(scatter_add_float64_i64_o32, double, long long, int)
ENTRY(scatter_add_complex64_i64_o32, gj_complex64, long long, int)
ENTRY(scatter_add_complex128_i64_o32, gj_complex128, long long, int)
ENTRY(scatter_add_int32_i64_o32, int, long long, int)
ENTRY(scatter_add_int64_i64_o32, long long, long long, int)
ENTRY(scatter_add_float32_i32_o64, float, int, long long)
ENTRY(scatter_add_float64_i32_o64, double, int, long long)
ENTRY(scatter_add_complex64_i32_o64, gj_complex64, int, long long)
ENTRY(scatter_add_complex128_i32_o64, gj_complex128, int, long long)
ENTRY(scatter_add_int32_i32_o64, int, int, long long)
ENTRY(scatter_add_int64_i32_o64, long long, int, long long)
ENTRY(scatter_add_float32_i64_o64, float, long long, long long)
ENTRY(scatter_add_float64_i64_o64, double, long long, long long)
ENTRY(scatter_add_complex64_i64_o64, gj_complex64, long long, long long)
ENTRY(scatter_add_complex128_i64_o64, gj_complex128, long long, long long)
ENTRY(scatter_add_int32_i64_o64, int, long long, long long)
ENTRY(scatter_add_int64_i64_o64, long long, long long, long long)

ORDERED_ENTRY(scatter_add_ordered_float32_o32, float, int)
ORDERED_ENTRY(scatter_add_ordered_float64_o32, double, int)
ORDERED_ENTRY(scatter_add_ordered_complex64_o32, gj_complex64, int)
ORDERED_ENTRY(scatter_add_ordered_complex128_o32, gj_complex128, int)
ORDERED_ENTRY(scatter_add_ordered_float32_o64, float, long long)
ORDERED_ENTRY(scatter_add_ordered_float64_o64, double, long long)
ORDERED_ENTRY(scatter_add_ordered_complex64_o64, gj_complex64, long long)
ORDERED_ENTRY(scatter_add_ordered_complex128_o64, gj_complex128, long long)
