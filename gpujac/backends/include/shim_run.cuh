// Runs one launch on the CPU: blocks one after the other, and the threads of a block in seeded random
// order, as plain calls or (GJ_FIBERS) as fibers.

namespace gj {

static uint64_t stride_of(uint64_t n) {  // coprime to n: steps of it visit every number below n once
    for (;;) {
        uint64_t a = draw() % n + 1, x = a, y = n;
        while (y) { uint64_t rest = x % y; x = y, y = rest; }
        if (x == 1) return a;
    }
}

#ifndef GJ_FIBERS
static void* escape[5];
[[noreturn]] static GJ_OPAQUE void leave() { jump(escape); }

GJ_UNCHECKED static void run_block(uint32_t first) {
    uint32_t n = n_threads, step = stride_of(n), i = draw() % n;
    for (uint32_t k = 0; k < n; k++, i = ((uint64_t)i + step) % n) {
        threadIdx = position(i, blockDim), self = first + i + 1;
        body();
    }
}
#endif

GJ_UNCHECKED GJ_OPAQUE static void all_blocks() {
    uint64_t n = (uint64_t)gridDim.x * gridDim.y * gridDim.z, step = stride_of(n), b = draw() % n;
    for (uint64_t k = 0; k < n; k++, b = (b + step) % n) {
        blockIdx = {(unsigned)(b % gridDim.x), (unsigned)(b / gridDim.x % gridDim.y),
                    (unsigned)(b / gridDim.x / gridDim.y)};
        run_block(b * n_threads);
    }
}

static size_t touched_bytes(const Parameter& p) { return ((p.high - p.low) / p.tracked + 1) * 4; }

// Zeros for one number per entry; pages that no entry touches are never backed by memory.
static uint32_t* new_touched(const Parameter& p) {
    return (uint32_t*)mmap(0, touched_bytes(p), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static GJ_OPAQUE int run(Launch* l, Parameter* given, Report* r, void (*kernel)()) {
    launch = *l, parameters = given, report = r, body = kernel;
    gridDim = l->grid, blockDim = l->block, n_threads = blockDim.x * blockDim.y * blockDim.z;
    random_state = l->seed * 0x9e3779b97f4a7c15ull + 0x2545f4914f6cdd1dull;
    for (int k = 0; k < launch.count; k++)
        if (given[k].tracked) given[k].touched = new_touched(given[k]);
#ifdef GJ_FIBERS
    make_fibers();
    if (__builtin_setjmp(escape) == 0) all_blocks();
    else if (current) GJ_ARRIVED_IN_SCHEDULER();
    drop_fibers();
#else
    if (__builtin_setjmp(escape) == 0) all_blocks();
#endif
    for (int k = 0; k < launch.count; k++)
        if (parameters[k].tracked) munmap(parameters[k].touched, touched_bytes(parameters[k]));
    return report->kind;
}

}  // namespace gj

#define GJ_EXPORT(...)                                                                     \
    static void gj_body() { gj::call(__VA_ARGS__); }                                       \
    extern "C" int gj_run(gj::Launch* l, gj::Parameter* p, gj::Report* r) {                \
        return gj::run(l, p, r, gj_body);                                                  \
    }                                                                                      \
    extern "C" int gj_signature(gj::Entry* out) { return gj::signature(__VA_ARGS__, out); }
