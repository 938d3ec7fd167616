// Small matrices in shared memory, each worked on by a group of neighbouring lanes of one warp.
//
// A group has as many lanes as the next power of two that is not below n; lane r owns row r. All lanes
// of a warp take the same steps (n is the same for all), so they may meet and exchange values anywhere.
#include "reduce.cuh"

GJ_DEVICE int gj_exchange(int x, int bits) { return __shfl_xor_sync(0xffffffffu, x, bits); }

// The value of lane `k` of each group of `lanes`. All 32 lanes must call it.
GJ_DEVICE float gj_from_lane(float x, int k, int lanes) { return __shfl_sync(0xffffffffu, x, k, lanes); }
GJ_DEVICE double gj_from_lane(double x, int k, int lanes) { return __shfl_sync(0xffffffffu, x, k, lanes); }
template <class T> GJ_DEVICE gj_complex<T> gj_from_lane(gj_complex<T> x, int k, int lanes) {
    return {gj_from_lane(x.re, k, lanes), gj_from_lane(x.im, k, lanes)};
}

// The real numbers that an entry consists of, and entries made of them.
template <class T> struct gj_entry {
    typedef T Real;
    static GJ_DEVICE T of(Real x) { return x; }
    static GJ_DEVICE Real size(T x) { return x < 0 ? -x : x; }
};
template <class R> struct gj_entry<gj_complex<R>> {
    typedef R Real;
    static GJ_DEVICE gj_complex<R> of(R x) { return {x, 0}; }
    // |re| + |im|, by which LAPACK chooses pivots, too
    static GJ_DEVICE R size(gj_complex<R> x) { return gj_entry<R>::size(x.re) + gj_entry<R>::size(x.im); }
};

// The lane of the group's largest `size`, the first of equals; NaN is larger than all. In every lane.
template <class R> GJ_DEVICE int gj_largest_lane(R size, int lane, int lanes) {
    R best = size == size ? size : R(1) / R(0);
    int place = lane;
    for (int bits = lanes / 2; bits > 0; bits /= 2) {
        const R other = gj_exchange(best, bits);
        const int there = gj_exchange(place, bits);
        if (other > best || (other == best && there < place)) best = other, place = there;
    }
    return place;
}

// x with t x = b for a triangle t, lane r holding entry r of b and getting entry r of x. Entry (i, k) of t
// is at i * width + k. `up`: t is an upper triangle, solved from its end; `unit`: its diagonal is not read.
template <class T>
GJ_DEVICE T gj_substitute(T x, const T* t, int n, int width, int lane, int lanes, bool up, bool unit) {
#pragma unroll 1
    for (int step = 0; step < n; ++step) {
        const int k = up ? n - 1 - step : step;
        const T entry = lane < n ? t[lane * width + k] : T();
        if (lane == k && !unit) x = x / entry;
        const T known = gj_from_lane(x, k, lanes);
        if (up ? lane < k : lane > k && lane < n) x = x - entry * known;
    }
    return x;
}
