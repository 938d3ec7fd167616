// Types that every kernel shares: how pointers are declared, words of any dtype, index wrapping.
//
// A kernel declares its arrays with GJ_IN, GJ_OUT and GJ_BOTH, its functions with GJ_DEVICE. Under
// CUDA these are plain pointers; under the shim (GJ_SHIM, kernels run on the CPU) they are checked
// pointers that know the bounds of the array. No CUDA header is needed.

#ifdef GJ_SHIM
#define GJ_IN(T) gj::In<T>
#define GJ_OUT(T) gj::Out<T>
#define GJ_BOTH(T) gj::Both<T>
#else
#define GJ_IN(T) const T* __restrict__   // read only, and no other parameter names this memory
#define GJ_OUT(T) T* __restrict__        // each entry is touched by one thread, or by atomics only
#define GJ_BOTH(T) T*                    // read and written by any thread, may alias another parameter
#endif
#define GJ_DEVICE __device__ __forceinline__

// Entries that are only moved: the same kernel serves every dtype of that many bytes.
struct gj_word8 { unsigned char bits; };
struct gj_word16 { unsigned short bits; };
struct gj_word32 { unsigned int bits; };
struct gj_word64 { unsigned long long bits; };

// An index as NumPy means it: negative ones count from the end. One that is out of range wraps
// around, as CuPy's do, so that no index can leave the array. size >= 1.
template <class I>
GJ_DEVICE I gj_wrap(I i, I size) {
    if (i >= 0 && i < size) return i;
    i %= size;
    return i < 0 ? i + size : i;
}
