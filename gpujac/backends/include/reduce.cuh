// Exchange of values between the lanes of a warp, for real and complex numbers.
#include "complex.cuh"

// The value of the lane whose number differs in the bits of `bits`. All 32 lanes must call it.
GJ_DEVICE float gj_exchange(float x, int bits) { return __shfl_xor_sync(0xffffffffu, x, bits); }
GJ_DEVICE double gj_exchange(double x, int bits) { return __shfl_xor_sync(0xffffffffu, x, bits); }
template <class T> GJ_DEVICE gj_complex<T> gj_exchange(gj_complex<T> x, int bits) {
    return {gj_exchange(x.re, bits), gj_exchange(x.im, bits)};
}

// The sum over groups of `lanes` (a power of two, at most 32) neighbouring lanes, in every lane.
template <class T> GJ_DEVICE T gj_sum_of_lanes(T x, int lanes) {
    for (int bits = lanes / 2; bits > 0; bits /= 2) x = x + gj_exchange(x, bits);
    return x;
}
