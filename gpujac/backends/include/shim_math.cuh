// CUDA's functions for a kernel that runs on the CPU: mathematics, atomics, barriers, shuffles, UBSan.

// ---- mathematics: overloads for float and double, and the C names that end in f

#define GJ_UNARY(NAME)                                                \
    static inline double NAME(double x) { return __builtin_##NAME(x); } \
    static inline float NAME(float x) { return __builtin_##NAME##f(x); } \
    static inline float NAME##f(float x) { return __builtin_##NAME##f(x); }
#define GJ_BINARY(NAME)                                                              \
    static inline double NAME(double x, double y) { return __builtin_##NAME(x, y); } \
    static inline float NAME(float x, float y) { return __builtin_##NAME##f(x, y); } \
    static inline float NAME##f(float x, float y) { return __builtin_##NAME##f(x, y); }
GJ_UNARY(sin) GJ_UNARY(cos) GJ_UNARY(tan) GJ_UNARY(asin) GJ_UNARY(acos) GJ_UNARY(atan)
GJ_UNARY(sinh) GJ_UNARY(cosh) GJ_UNARY(tanh) GJ_UNARY(asinh) GJ_UNARY(acosh) GJ_UNARY(atanh)
GJ_UNARY(exp) GJ_UNARY(exp2) GJ_UNARY(exp10) GJ_UNARY(expm1) GJ_UNARY(log) GJ_UNARY(log2)
GJ_UNARY(log10) GJ_UNARY(log1p) GJ_UNARY(sqrt) GJ_UNARY(cbrt) GJ_UNARY(erf) GJ_UNARY(erfc)
GJ_UNARY(tgamma) GJ_UNARY(lgamma) GJ_UNARY(floor) GJ_UNARY(ceil) GJ_UNARY(trunc) GJ_UNARY(rint)
GJ_UNARY(round) GJ_UNARY(fabs)
GJ_BINARY(pow) GJ_BINARY(atan2) GJ_BINARY(fmod) GJ_BINARY(hypot) GJ_BINARY(fmax) GJ_BINARY(fmin)
GJ_BINARY(copysign) GJ_BINARY(nextafter) GJ_BINARY(fdim) GJ_BINARY(remainder)
static inline double fma(double x, double y, double z) { return __builtin_fma(x, y, z); }
static inline float fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
static inline float fmaf(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
static inline double rsqrt(double x) { return 1 / __builtin_sqrt(x); }
static inline float rsqrt(float x) { return 1 / __builtin_sqrtf(x); }
static inline float rsqrtf(float x) { return 1 / __builtin_sqrtf(x); }
static inline double abs(double x) { return __builtin_fabs(x); }
static inline float abs(float x) { return __builtin_fabsf(x); }
static inline long long abs(long long x) { return x < 0 ? -x : x; }
#define GJ_TEST(NAME)                                                      \
    static inline bool NAME(double x) { return __builtin_##NAME(x) != 0; } \
    static inline bool NAME(float x) { return __builtin_##NAME(x) != 0; }
GJ_TEST(isnan) GJ_TEST(isinf) GJ_TEST(isfinite) GJ_TEST(signbit)

#define GJ_EXTREME(T)                                         \
    static inline T min(T x, T y) { return y < x ? y : x; }   \
    static inline T max(T x, T y) { return x < y ? y : x; }
GJ_EXTREME(int) GJ_EXTREME(unsigned) GJ_EXTREME(long) GJ_EXTREME(unsigned long)
GJ_EXTREME(long long) GJ_EXTREME(unsigned long long)
static inline double min(double x, double y) { return __builtin_fmin(x, y); }
static inline double max(double x, double y) { return __builtin_fmax(x, y); }
static inline float min(float x, float y) { return __builtin_fminf(x, y); }
static inline float max(float x, float y) { return __builtin_fmaxf(x, y); }
static inline unsigned min(int x, unsigned y) { return min((unsigned)x, y); }
static inline unsigned min(unsigned x, int y) { return min(x, (unsigned)y); }
static inline unsigned max(int x, unsigned y) { return max((unsigned)x, y); }
static inline unsigned max(unsigned x, int y) { return max(x, (unsigned)y); }

// ---- bits

template <class To, class From> static inline To gj_same_bits(From x) { To y; memcpy(&y, &x, sizeof y); return y; }
static inline float __int_as_float(int x) { return gj_same_bits<float>(x); }
static inline int __float_as_int(float x) { return gj_same_bits<int>(x); }
static inline double __longlong_as_double(long long x) { return gj_same_bits<double>(x); }
static inline long long __double_as_longlong(double x) { return gj_same_bits<long long>(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }

#define GJ_ROUNDED(NAME, T, OPERATION) static inline T NAME(T x, T y) { return x OPERATION y; }
GJ_ROUNDED(__fadd_rn, float, +) GJ_ROUNDED(__fmul_rn, float, *) GJ_ROUNDED(__fdiv_rn, float, /)
GJ_ROUNDED(__dadd_rn, double, +) GJ_ROUNDED(__dmul_rn, double, *) GJ_ROUNDED(__ddiv_rn, double, /)

// ---- memory: one thread runs at a time, so a plain update is atomic

template <class T> static inline T __ldg(const T* p) { return *p; }
template <class T> static inline T __ldg(gj::In<T> p) { return *p; }

namespace gj {
template <class T> struct Same { using Type = T; };  // takes a parameter out of type deduction
}
#define GJ_ATOMIC(NAME, RESULT)                                                              \
    template <class T> static inline T NAME(T* p, typename gj::Same<T>::Type v) {            \
        T old = *p;                                                                          \
        *p = RESULT;                                                                         \
        return old;                                                                          \
    }                                                                                        \
    template <class T> static inline T NAME(gj::Out<T> p, typename gj::Same<T>::Type v) {    \
        return NAME(&p.shared_entry(), v);                                                   \
    }                                                                                        \
    template <class T> static inline T NAME(gj::Both<T> p, typename gj::Same<T>::Type v) {   \
        return NAME(&p.shared_entry(), v);                                                   \
    }
GJ_ATOMIC(atomicAdd, old + v) GJ_ATOMIC(atomicSub, old - v) GJ_ATOMIC(atomicExch, v)
GJ_ATOMIC(atomicMin, v < old ? v : old) GJ_ATOMIC(atomicMax, v > old ? v : old)
GJ_ATOMIC(atomicAnd, old & v) GJ_ATOMIC(atomicOr, old | v) GJ_ATOMIC(atomicXor, old ^ v)
template <class T>
static inline T atomicCAS(T* p, typename gj::Same<T>::Type compare, typename gj::Same<T>::Type v) {
    T old = *p;
    if (old == compare) *p = v;
    return old;
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}

#define assert(claim) ((claim) ? (void)0 : gj::fail(gj::ASSERTION, #claim, __LINE__))

// ---- undefined behaviour: what g++ calls when it finds some; reported, not printed and aborted

namespace gj {
struct Place { const char* file; uint32_t line, column; };
struct Mismatch { Place place; const void* type; unsigned char log_alignment, access; };
}
#define GJ_UNDEFINED(NAME, TEXT)                                                         \
    extern "C" __attribute__((visibility("hidden"), used)) void __ubsan_handle_##NAME(gj::Place* p) { \
        gj::fail(gj::UNDEFINED, TEXT, p->line);                                          \
    }
GJ_UNDEFINED(add_overflow, "an addition of whole numbers overflows")
GJ_UNDEFINED(sub_overflow, "a subtraction of whole numbers overflows")
GJ_UNDEFINED(mul_overflow, "a product of whole numbers overflows")
GJ_UNDEFINED(negate_overflow, "a negation overflows")
GJ_UNDEFINED(divrem_overflow, "a division by zero, or one that overflows")
GJ_UNDEFINED(shift_out_of_bounds, "a shift by more bits than there are")
GJ_UNDEFINED(out_of_bounds, "an index beyond the end of a local or shared array")
GJ_UNDEFINED(vla_bound_not_positive, "an array without entries")
GJ_UNDEFINED(load_invalid_value, "a bool that is neither 0 nor 1")
GJ_UNDEFINED(float_cast_overflow, "a number too large for the whole-number type it is cast to")
GJ_UNDEFINED(invalid_builtin, "a count of leading zeros of 0")
GJ_UNDEFINED(pointer_overflow, "a pointer that wraps around")
GJ_UNDEFINED(nonnull_arg, "a null pointer")
GJ_UNDEFINED(builtin_unreachable, "a place that cannot be reached")
GJ_UNDEFINED(missing_return, "a function that ends without its result")
extern "C" __attribute__((visibility("hidden"), used)) void __ubsan_handle_type_mismatch_v1(gj::Mismatch* m, void* p) {
    bool odd = p && (uintptr_t)p & ((1u << m->log_alignment) - 1);
    gj::fail(gj::UNDEFINED, odd ? "a misaligned address" : p ? "an object too small for its type" : "a null pointer", m->place.line);
}
