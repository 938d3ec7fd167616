// Threads that meet, run on the CPU: each is a fiber, and the next one to run is drawn at random.
//
// A fiber runs until it waits, for its block or for lanes of its warp. Waiting that can never end is
// reported. Shared memory is poisoned before each block.
#define GJ_FIBERS 1

namespace gj {

enum State { READY, AT_BARRIER, AT_WARP, GONE };
enum Op { NOTHING, SHUFFLE, BALLOT };

struct Fiber {
    void* jump[5];
    uint3 index;
    uint32_t number;
    State state;
    bool started;
    int site, line, op, from;  // where it waits, and the lane that it wants to hear from
    unsigned mask;
    unsigned char value[16];
    ucontext_t context;
};

static Fiber *fibers, *current;
static void *scheduler[5], *escape[5];
static int *ready, n_ready;
static const size_t STACK = 1 << 17, CANARY = 64;
static char *stacks, *dynamic_memory;
extern "C" char __start_gj_shared[] __attribute__((weak)), __stop_gj_shared[] __attribute__((weak));

#ifdef __SANITIZE_ADDRESS__
extern "C" void __sanitizer_start_switch_fiber(void**, const void*, size_t);
extern "C" void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
extern "C" void __asan_unpoison_memory_region(const volatile void*, size_t);
static const void* main_stack;
static size_t main_size;
static void leaving(const void* to, size_t size) { void* kept; __sanitizer_start_switch_fiber(&kept, to, size); }
static void arrived(const void** from, size_t* size) { __sanitizer_finish_switch_fiber(nullptr, from, size); }
#define GJ_TO_FIBER(f) leaving(stacks + (f - fibers) * STACK, STACK)
#define GJ_TO_SCHEDULER() leaving(main_stack, main_size)
#define GJ_ARRIVED_IN_FIBER() arrived(&main_stack, &main_size)
#define GJ_ARRIVED_IN_SCHEDULER() arrived(nullptr, nullptr)
#define GJ_UNPOISON(p, n) __asan_unpoison_memory_region(p, n)
#else
#define GJ_TO_FIBER(f)
#define GJ_TO_SCHEDULER() (void)0
#define GJ_ARRIVED_IN_FIBER()
#define GJ_ARRIVED_IN_SCHEDULER() (void)0
#define GJ_UNPOISON(p, n)
#endif

static GJ_OPAQUE void wait() {  // back to the scheduler, until it comes here again
    GJ_TO_SCHEDULER();
    if (__builtin_setjmp(current->jump) == 0) jump(scheduler);
    GJ_ARRIVED_IN_FIBER();
}

[[noreturn]] static GJ_OPAQUE void leave() {  // the launch, from wherever it is
    if (current) GJ_TO_SCHEDULER();
    jump(escape);
}

static GJ_OPAQUE void fiber_main() {
    GJ_ARRIVED_IN_FIBER();
    for (;;) {
        body();
        current->state = GONE;
        wait();
    }
}

static GJ_OPAQUE void resume(Fiber* f) {
    current = f, threadIdx = f->index, self = f->number;
    GJ_TO_FIBER(f);
    if (__builtin_setjmp(scheduler) == 0) {
        if (f->started) jump(f->jump);
        f->started = true;
        setcontext(&f->context);
    }
    GJ_ARRIVED_IN_SCHEDULER();
    current = nullptr;
    if (*(uint64_t*)(stacks + (f - fibers) * STACK) != 0)  // its lowest word: nobody gets there in good order
        fail(SHARED, "a thread needs more than 128 KiB for its local variables");
}

// ---- where threads meet

static inline bool waits_here(Fiber& f, Fiber& g) {
    return f.state == AT_WARP && f.mask == g.mask && f.site == g.site;
}

static void make_ready(int i) { fibers[i].state = READY, ready[n_ready++] = i; }

static void release_warp(Fiber* f) {  // when the last lane of the mask has come
    int first = (f - fibers) / warpSize * warpSize;
    Fiber* lanes = fibers + first;
    int there = n_threads - first < warpSize ? n_threads - first : warpSize;
    unsigned votes = 0;
    for (int k = 0; k < there; k++) {
        if (!(f->mask >> k & 1)) continue;
        if (!waits_here(lanes[k], *f)) return;
        if (lanes[k].op == BALLOT && lanes[k].value[0]) votes |= 1u << k;
    }
    unsigned char heard[warpSize][16];
    for (int k = 0; k < there; k++) {
        int from = lanes[k].from;
        bool speaks = from < there && (f->mask >> from & 1);
        if (lanes[k].op == BALLOT) memcpy(heard[k], &votes, 4);
        else if (speaks) memcpy(heard[k], lanes[from].value, 16);
        else memset(heard[k], 0xff, 16);  // nobody speaks there: the value is poison
    }
    for (int k = 0; k < there; k++)
        if (f->mask >> k & 1) memcpy(lanes[k].value, heard[k], 16), make_ready(first + k);
}

static int lane() { return (current - fibers) % warpSize; }

static void meet_warp(unsigned mask, int site, int line, Op op, const void* value, size_t size, int from) {
    if (!(mask >> lane() & 1)) fail(MEETING, "a lane is not in the mask that it names", line);
    Fiber& f = *current;
    f.state = AT_WARP, f.mask = mask, f.site = site, f.line = line, f.op = op, f.from = from;
    if (size) memcpy(f.value, value, size);
    wait();
}

template <class T>
static T shuffle(unsigned mask, T value, int from, int low, int high, int site, int line) {
    static_assert(sizeof(T) <= 16, "a shuffle moves at most 16 bytes");
    meet_warp(mask, site, line, SHUFFLE, &value, sizeof(T), from < low || from >= high ? lane() : from);
    memcpy(&value, current->value, sizeof(T));
    return value;
}
template <class T> static T shuffle_to(unsigned m, int site, int line, T v, int source, int width = 32) {
    int low = lane() / width * width;
    return shuffle(m, v, low + (source & (width - 1)), low, low + width, site, line);
}
template <class T> static T shuffle_up(unsigned m, int site, int line, T v, unsigned delta, int width = 32) {
    int low = lane() / width * width;
    return shuffle(m, v, lane() - (int)delta, low, low + width, site, line);
}
template <class T> static T shuffle_down(unsigned m, int site, int line, T v, unsigned delta, int width = 32) {
    int low = lane() / width * width;
    return shuffle(m, v, lane() + (int)delta, low, low + width, site, line);
}
template <class T> static T shuffle_xor(unsigned m, int site, int line, T v, int flip, int width = 32) {
    return shuffle(m, v, lane() ^ flip, 0, lane() / width * width + width, site, line);
}
static unsigned ballot(unsigned mask, int site, int line, int predicate) {
    unsigned char yes = predicate != 0;
    meet_warp(mask, site, line, BALLOT, &yes, 1, lane());
    unsigned votes;
    memcpy(&votes, current->value, 4);
    return votes;
}

static unsigned whole(unsigned mask = 0xffffffffu) { return mask; }

static void barrier(int site, int line) {
    current->state = AT_BARRIER, current->site = site, current->line = line;
    wait();
}

static void release_block() {  // nobody can run: open the barrier, or say why it never opens
    Fiber* first = nullptr;
    int gone = 0;
    for (int i = 0; i < n_threads; i++) {
        Fiber& f = fibers[i];
        threadIdx = f.index;
        if (f.state == AT_WARP) fail(MEETING, "a lane waits for lanes of its warp that never come", f.line);
        if (f.state == GONE) { gone++; continue; }
        if (first && first->site != f.site) fail(MEETING, "threads of one block wait at different barriers", f.line);
        first = &f;
    }
    if (gone == n_threads) return;
    if (gone) threadIdx = first->index, fail(MEETING, "threads wait at a barrier that others of their block passed by", first->line);
    for (int i = 0; i < n_threads; i++) make_ready(i);
}

// ---- one block

static void poison_shared() {
    if (__start_gj_shared) memset(__start_gj_shared, 0xff, __stop_gj_shared - __start_gj_shared);
    memset(dynamic_memory, 0xff, launch.shared_bytes);
    memset(dynamic_memory + launch.shared_bytes, 0xa5, CANARY);
}

static void check_shared() {
    for (size_t i = 0; i < CANARY; i++)
        if ((unsigned char)dynamic_memory[launch.shared_bytes + i] != 0xa5)
            fail(SHARED, "a thread of this block wrote behind the dynamic shared memory");
}

static void run_block(uint32_t first) {
    poison_shared();
    n_ready = 0;
    for (int i = 0; i < n_threads; i++) fibers[i].number = first + i + 1, make_ready(i);
    while (n_ready) {
        int k = draw() % n_ready, chosen = ready[k];
        ready[k] = ready[--n_ready];
        resume(fibers + chosen);
        if (fibers[chosen].state == AT_WARP) release_warp(fibers + chosen);
        if (!n_ready) release_block();
    }
    check_shared();
}

static void make_fibers() {
    current = nullptr, fibers = (Fiber*)calloc(n_threads, sizeof(Fiber)), ready = (int*)calloc(n_threads, sizeof(int));
    stacks = (char*)mmap(0, n_threads * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    dynamic_memory = (char*)aligned_alloc(64, (launch.shared_bytes + CANARY + 63) / 64 * 64);
    for (int i = 0; i < n_threads; i++) {
        Fiber& f = fibers[i];
        f.index = position(i, blockDim);
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = stacks + i * STACK, f.context.uc_stack.ss_size = STACK;
        makecontext(&f.context, fiber_main, 0);
    }
}

static void drop_fibers() {
    GJ_UNPOISON(stacks, n_threads * STACK);
    munmap(stacks, n_threads * STACK);
    free(fibers), free(ready), free(dynamic_memory);
}

}  // namespace gj

// ---- CUDA's names; macros, because each place in the text has a number of its own

#define __syncthreads() gj::barrier(__COUNTER__, __LINE__)
#define __syncwarp(...) gj::meet_warp(gj::whole(__VA_ARGS__), __COUNTER__, __LINE__, gj::NOTHING, 0, 0, 0)
#define __shfl_sync(m, ...) gj::shuffle_to(m, __COUNTER__, __LINE__, __VA_ARGS__)
#define __shfl_up_sync(m, ...) gj::shuffle_up(m, __COUNTER__, __LINE__, __VA_ARGS__)
#define __shfl_down_sync(m, ...) gj::shuffle_down(m, __COUNTER__, __LINE__, __VA_ARGS__)
#define __shfl_xor_sync(m, ...) gj::shuffle_xor(m, __COUNTER__, __LINE__, __VA_ARGS__)
#define __ballot_sync(m, p) gj::ballot(m, __COUNTER__, __LINE__, p)
#define __any_sync(m, p) (gj::ballot(m, __COUNTER__, __LINE__, p) != 0)
#define __all_sync(m, p) (gj::ballot(m, __COUNTER__, __LINE__, !(p)) == 0)
