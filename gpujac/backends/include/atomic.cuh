// Atomic addition of every dtype that is summed: real, complex (part by part) and whole numbers.
#include "complex.cuh"

#ifdef GJ_SHIM
template <class T> GJ_DEVICE void gj_atomic_add(GJ_OUT(T) at, T value) {
    T& entry = at.shared_entry();
    entry = entry + value;
}
#else
GJ_DEVICE void gj_atomic_add(float* at, float value) { atomicAdd(at, value); }
GJ_DEVICE void gj_atomic_add(double* at, double value) { atomicAdd(at, value); }
GJ_DEVICE void gj_atomic_add(int* at, int value) { atomicAdd(at, value); }
GJ_DEVICE void gj_atomic_add(long long* at, long long value) {
    atomicAdd(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(value));
}
template <class T> GJ_DEVICE void gj_atomic_add(gj_complex<T>* at, gj_complex<T> value) {
    atomicAdd(&at->re, value.re);
    atomicAdd(&at->im, value.im);
}
#endif
