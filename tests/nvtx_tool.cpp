// A stand-in for a profiler: NVTX loads it and it prints every range of every domain.
//
// NVTX looks for the library named by NVTX_INJECTION64_PATH and calls InitializeInjectionNvtx2,
// which fills in the callbacks it wants (CUDA toolkit, nvtx3/nvtxDetail/nvtxTypes.h).
// Output, one line per event: "push <domain> <category> <message> <payload or ->" or "pop <domain>".

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>

namespace {

struct Attributes {  // nvtxEventAttributes_v2
    uint16_t version, size;
    uint32_t category;
    int32_t color_type;
    uint32_t color;
    int32_t payload_type;  // 0: none, 2: int64
    int32_t reserved;
    int64_t payload;
    int32_t message_type;  // 3: registered string
    const std::string* message;
};

using Function = void (*)();

struct Table {  // NvtxExportTableCallbacks
    size_t size;
    int (*functions)(int module, Function*** out, unsigned* out_size);
};

enum { CALLBACKS = 1, CORE2 = 5 };
enum { PUSH = 4, POP = 5, NAME_CATEGORY = 8, REGISTER_STRING = 10, CREATE_DOMAIN = 12 };

std::map<uint32_t, std::string> categories;

void* keep(const char* text) { return new std::string(text); }
void* create_domain(const char* name) { return keep(name); }
void* register_string(void*, const char* text) { return keep(text); }
void name_category(void*, uint32_t id, const char* name) { categories[id] = name; }

int push(const std::string* domain, const Attributes* a) {
    std::string payload = a->payload_type == 2 ? std::to_string(a->payload) : "-";
    printf("push %s %s %s %s\n", domain->c_str(), categories[a->category].c_str(),
           a->message_type == 3 ? a->message->c_str() : "?", payload.c_str());
    return 0;
}

int pop(const std::string* domain) {
    printf("pop %s\n", domain->c_str());
    return 0;
}

}  // namespace

extern "C" int InitializeInjectionNvtx2(const void* (*get_table)(uint32_t)) {
    auto table = static_cast<const Table*>(get_table(CALLBACKS));
    Function** slots = nullptr;
    unsigned size = 0;
    if (!table || !table->functions(CORE2, &slots, &size) || size <= CREATE_DOMAIN) return 0;
    *slots[PUSH] = reinterpret_cast<Function>(push);
    *slots[POP] = reinterpret_cast<Function>(pop);
    *slots[NAME_CATEGORY] = reinterpret_cast<Function>(name_category);
    *slots[REGISTER_STRING] = reinterpret_cast<Function>(register_string);
    *slots[CREATE_DOMAIN] = reinterpret_cast<Function>(create_domain);
    return 1;
}
