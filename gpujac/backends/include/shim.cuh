// Runs the text of a CUDA kernel on the CPU, compiled by g++: types, checked pointers, failures.
//
// Included in front of the kernel's own text. Anything wrong is written into gj::report and leaves
// the launch at once (gj::fail does not return); the caller turns the report into an error.
#define GJ_SHIM 1
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
enum { warpSize = 32 };

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __constant__ static const
#define __align__(n) __attribute__((aligned(n)))
// One copy per library: blocks run one after the other. The section gives the bounds to poison.
#define __shared__ static __attribute__((section("gj_shared"), used))

namespace gj {

enum Kind { OUTSIDE = 1, MISALIGNED, RACE, UNDEFINED, MEETING, ASSERTION, SHARED };

struct Parameter {  // one argument of a launch, as the caller describes it
    char *first, *low, *high;  // first entry, and the bytes that belong to the array
    int64_t number, tracked;   // its place in the list; whether touches are recorded per entry
    uint32_t* touched;         // the thread that touched each entry first
};

struct Report {
    int64_t kind, parameter, offset, size, line;
    uint32_t thread[3], block[3];
    char text[160];
};

static Report* report;
static uint32_t self;  // the running thread's number in the whole grid, from 1

[[noreturn]] static void leave();

[[noreturn]] static __attribute__((noinline, cold)) void fail(
    Kind kind, const char* text, int64_t line = 0, int64_t parameter = -1, int64_t offset = 0, int64_t size = 0) {
    *report = {kind, parameter, offset, size, line, {threadIdx.x, threadIdx.y, threadIdx.z},
               {blockIdx.x, blockIdx.y, blockIdx.z}, {}};
    strncpy(report->text, text, sizeof report->text - 1);
    leave();
}

// Jumps leave and enter these functions: the compiler must not conclude what they leave unchanged.
#define GJ_OPAQUE __attribute__((noipa))
[[noreturn]] static GJ_OPAQUE void jump(void** to) { __builtin_longjmp(to, 1); }

#define GJ_UNCHECKED __attribute__((no_sanitize("undefined")))

template <class T>
struct Pointer {  // into one array; arithmetic is free, every access is checked
    char* at;
    Parameter* of;

    GJ_UNCHECKED T* checked(int64_t i) const {
        char* p = at + i * (int64_t)sizeof(T);
        if (p < of->low || p + sizeof(T) > of->high)
            fail(OUTSIDE, "", 0, of->number, p - of->first, sizeof(T));
        if ((uintptr_t)p % alignof(T)) fail(MISALIGNED, "", 0, of->number, p - of->first, sizeof(T));
        return (T*)p;
    }
    GJ_UNCHECKED T* owned(int64_t i) const {  // as `checked`, by one thread only
        T* p = checked(i);
        if (of->tracked) {
            uint32_t& who = of->touched[((char*)p - of->low) / sizeof(T)];
            if (who && who != self) fail(RACE, "", 0, of->number, (char*)p - of->first, sizeof(T));
            who = self;
        }
        return p;
    }
};

#define GJ_POINTER(NAME, REFERENCE, ACCESS)                                                        \
    template <class T>                                                                             \
    struct NAME : Pointer<T> {                                                                     \
        template <class I> REFERENCE operator[](I i) const { return *this->ACCESS((int64_t)i); }   \
        REFERENCE operator*() const { return *this->ACCESS(0); }                                   \
        template <class I> GJ_UNCHECKED NAME operator+(I i) const {                                \
            return {{this->at + (int64_t)i * (int64_t)sizeof(T), this->of}};                       \
        }                                                                                          \
        template <class I> NAME operator-(I i) const { return *this + -(int64_t)i; }               \
        template <class I> NAME& operator+=(I i) { return *this = *this + i; }                     \
        template <class I> NAME& operator-=(I i) { return *this = *this - i; }                     \
        T& shared_entry() const { return *this->checked(0); }                                      \
    };
GJ_POINTER(In, const T&, checked)
GJ_POINTER(Out, T&, owned)
GJ_POINTER(Both, T&, checked)

// ---- what Python is told about the kernel's parameters

template <class T> struct Code { static constexpr const char* text = "x"; };
#define GJ_CODE(T, TEXT) template <> struct Code<T> { static constexpr const char* text = TEXT; };
GJ_CODE(bool, "b1") GJ_CODE(char, "i1") GJ_CODE(signed char, "i1") GJ_CODE(unsigned char, "u1")
GJ_CODE(short, "i2") GJ_CODE(unsigned short, "u2") GJ_CODE(int, "i4") GJ_CODE(unsigned, "u4")
GJ_CODE(long, "i8") GJ_CODE(unsigned long, "u8") GJ_CODE(long long, "i8")
GJ_CODE(unsigned long long, "u8") GJ_CODE(float, "f4") GJ_CODE(double, "f8")

template <class P> struct Pass {
    static constexpr char kind = 's';
    using Entry = P;
    static P from(Parameter& p) { P value; memcpy(&value, p.first, sizeof(P)); return value; }
};
template <class T> struct Pass<const T*> {
    static constexpr char kind = 'p';
    using Entry = T;
    static const T* from(Parameter& p) { return (const T*)p.first; }
};
template <class T> struct Pass<T*> {
    static constexpr char kind = 'q';
    using Entry = T;
    static T* from(Parameter& p) { return (T*)p.first; }
};
#define GJ_PASS(NAME, KIND)                                                  \
    template <class T> struct Pass<NAME<T>> {                                \
        static constexpr char kind = KIND;                                   \
        using Entry = T;                                                     \
        static NAME<T> from(Parameter& p) { return {{p.first, &p}}; }        \
    };
GJ_PASS(In, 'i') GJ_PASS(Out, 'o') GJ_PASS(Both, 'b')

template <int... K> struct Places {};
template <int N, int... K> struct Count : Count<N - 1, N - 1, K...> {};
template <int... K> struct Count<0, K...> { using Type = Places<K...>; };

// ---- the launch

struct Launch {
    dim3 grid, block;
    int64_t shared_bytes, count;
    uint64_t seed;
};

static Launch launch;
static Parameter* parameters;
static void (*body)();  // one thread
static int n_threads;   // of a block
static uint64_t random_state;

GJ_UNCHECKED static uint64_t draw() {  // xorshift
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return random_state;
}

static uint3 position(uint32_t i, dim3 size) {
    return {i % size.x, i / size.x % size.y, i / size.x / size.y};
}


template <class... P, int... K>
static inline void call_with(void (*kernel)(P...), Places<K...>) {
    kernel(Pass<P>::from(parameters[K])...);
}
template <class... P>
static inline void call(void (*kernel)(P...)) {
    call_with(kernel, typename Count<sizeof...(P)>::Type{});
}

struct Entry { char kind; const char* code; int64_t size; };
template <class... P>
static int signature(void (*)(P...), Entry* out) {  // out: room for 128
    Entry all[] = {{Pass<P>::kind, Code<typename Pass<P>::Entry>::text, sizeof(typename Pass<P>::Entry)}..., {}};
    memcpy(out, all, sizeof(Entry) * sizeof...(P));
    return sizeof...(P);
}

}  // namespace gj
