// gather: out[l, j, r] = x[l, index[j], r], x strided, out C-contiguous.
//
// One thread owns a column c = (j, r) of the result and walks over rows l: the index is read and
// turned into an offset once per column, however many rows there are. The rows are two nested axes
// (l0 along z of the grid, l1 along y), so rows cost no division; the axes after the taken one are
// two nested axes (r0, r1) as well. An axis that is not needed has size 1.
// Neighbouring threads write neighbouring entries; they read neighbouring entries where the last
// axis of x has stride 1. Alignment: that of the entry type (a complex entry is two real ones).
// Bytes moved: two per byte of the result, and the index once per block of rows.
#include "complex.cuh"

// T entry, I index, O offset: int below about 2^31 entries, else long long. Strides count entries.
template <class T, class I, class O>
GJ_DEVICE void gather(GJ_IN(T) x, GJ_IN(I) index, GJ_OUT(T) out, O rows0, O rows1, O columns, O size, O rest, O rest1,
                      O row0_stride, O row1_stride, O stride, O rest0_stride, O rest1_stride, O index_stride) {
    typedef decltype(I() + O()) Wide;  // holds the index and the size
    const O row = (O)blockIdx.y * blockDim.y + threadIdx.y, row_step = (O)gridDim.y * blockDim.y;
    const O column_step = (O)gridDim.x * blockDim.x;
    for (O c = (O)blockIdx.x * blockDim.x + threadIdx.x; c < columns; c += column_step) {
        const O j = rest == 1 ? c : c / rest, r = c - j * rest;
        const O place = (O)gj_wrap((Wide)index[j * index_stride], (Wide)size);
        const O r0 = rest1 == rest ? 0 : r / rest1, r1 = r - r0 * rest1;
        const O from = place * stride + r0 * rest0_stride + r1 * rest1_stride;
        for (O l0 = blockIdx.z; l0 < rows0; l0 += gridDim.z)
            for (O l1 = row; l1 < rows1; l1 += row_step)
                out[(l0 * rows1 + l1) * columns + c] = x[from + l0 * row0_stride + l1 * row1_stride];
    }
}

#define ENTRY(NAME, T, I, O)                                                                                       \
    extern "C" __global__ void __launch_bounds__(256)                                                              \
        NAME(GJ_IN(T) x, GJ_IN(I) index, GJ_OUT(T) out, O rows0, O rows1, O columns, O size, O rest, O rest1,       \
             O row0_stride, O row1_stride, O stride, O rest0_stride, O rest1_stride, O index_stride) {             \
        gather<T, I, O>(x, index, out, rows0, rows1, columns, size, rest, rest1, row0_stride, row1_stride, stride,  \
                        rest0_stride, rest1_stride, index_stride);                                                 \
    }

ENTRY(gather_word8_i32_o32, gj_word8, int, int)
ENTRY(gather_word16_i32_o32, gj_word16, int, int)
ENTRY(gather_word32_i32_o32, gj_word32, int, int)
ENTRY(gather_word64_i32_o32, gj_word64, int, int)
ENTRY(gather_complex64_i32_o32, gj_complex64, int, int)
ENTRY(gather_complex128_i32_o32, gj_complex128, int, int)
ENTRY(gather_word8_i64_o32, gj_word8, long long, int)
ENTRY(gather_word16_i64_o32, gj_word16, long long, int)
ENTRY(gather_word32_i64_o32, gj_word32, long long, int)
ENTRY(gather_word64_i64_o32, gj_word64, long long, int)
ENTRY(gather_complex64_i64_o32, gj_complex64, long long, int)
ENTRY(gather_complex128_i64_o32, gj_complex128, long long, int)
ENTRY(gather_word8_i32_o64, gj_word8, int, long long)
ENTRY(gather_word16_i32_o64, gj_word16, int, long long)
ENTRY(gather_word32_i32_o64, gj_word32, int, long long)
ENTRY(gather_word64_i32_o64, gj_word64, int, long long)
ENTRY(gather_complex64_i32_o64, gj_complex64, int, long long)
ENTRY(gather_complex128_i32_o64, gj_complex128, int, long long)
ENTRY(gather_word8_i64_o64, gj_word8, long long, long long)
ENTRY(gather_word16_i64_o64, gj_word16, long long, long long)
ENTRY(gather_word32_i64_o64, gj_word32, long long, long long)
ENTRY(gather_word64_i64_o64, gj_word64, long long, long long)
ENTRY(gather_complex64_i64_o64, gj_complex64, long long, long long)
ENTRY(gather_complex128_i64_o64, gj_complex128, long long, long long)
