// The plain C interface: checks what it is given, asks the processor and the system, and lets no exception out.

#include <memory>
#include <new>

#include "kernel.h"
#include "work.hpp"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

using enlarger::Net;
using enlarger::Work;

struct enlarger_net {
    Net net;
};

struct enlarger_work {
    Work work;
};

namespace {

// AVX-512 with bf16 as far as the kernel is compiled for it, and AMX with bf16 beside it.
struct Instructions {
    bool vectors = false, tiles = false;
};

#if defined(__x86_64__) && defined(__linux__)

bool bit(unsigned value, int index) { return value >> index & 1; }

// Intel SDM, CPUID leaf 7.
Instructions instructions() {
    unsigned a, b, c, d, more;
    if (!__get_cpuid_count(1, 0, &a, &b, &c, &d) || !bit(c, 27)) return {};  // OSXSAVE: xgetbv exists
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return {};
    const bool tiles = bit(d, 22) && bit(d, 24);                                // amx-bf16, amx-tile
    const bool vectors = bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31);  // f, dq, bw, vl
    if (!__get_cpuid_count(7, 1, &more, &b, &c, &d) || !vectors || !bit(more, 5)) return {};  // avx512_bf16
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    const unsigned vector_state = 0xe6, tile_state = 3u << 17;  // registers that the system saves
    if ((low & vector_state) != vector_state) return {};
    return {true, tiles && (low & tile_state) == tile_state};
}

// Linux gives the tile registers, 8 KB to save at every switch, only to processes that ask (kernel docs: x86/xstate).
bool may_use_tiles() {
    constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

#else

Instructions instructions() { return {}; }
bool may_use_tiles() { return false; }

#endif

// The life of a thread with these tiles; nullptr where they were not built, or are unknown.
auto compute_with(int tiles) -> void (*)(Work &, void *) {
    switch (tiles) {
        case ENLARGER_AMX: return enlarger::compute_amx;
        case ENLARGER_AVX512: return enlarger::compute_avx512;
        case ENLARGER_PORTABLE: return enlarger::compute_portable;
        default: return nullptr;
    }
}

bool cuts_are_good(const int32_t *cuts, int blocks, int length, int smallest) {
    if (blocks < 1 || length < 1 || cuts[0] != 0 || cuts[blocks] != length) return false;
    for (int index = 0; index < blocks; ++index)
        if (cuts[index + 1] - cuts[index] < (blocks > 1 ? smallest : 1)) return false;
    return true;
}

bool is_good(const enlarger_window &window) {
    const enlarger_sink &sink = window.sink;
    const int scale = window.to_pixels ? enlarger::TAIL_SCALE : 1;
    const bool fits = sink.top >= 0 && sink.left >= 0 && sink.height >= 0 && sink.width >= 0 &&
                      sink.top + sink.height <= scale * window.height &&
                      sink.left + sink.width <= scale * window.width;
    const bool known = sink.kind == ENLARGER_F32 || (window.to_pixels && (sink.kind == ENLARGER_U8 || sink.kind == ENLARGER_U16));
    return fits && known && window.threads >= 1 && window.input && sink.samples &&
           cuts_are_good(window.row_cuts, window.row_blocks, window.height, ENLARGER_SMALLEST_ROWS) &&
           cuts_are_good(window.column_cuts, window.column_blocks, window.width, ENLARGER_SMALLEST_COLUMNS);
}

struct Form {
    int features, blocks, unshuffle, links = 0;
};

int packed(enlarger_net **net, const Form &form, const float *const *tensors) {
    if (form.features < enlarger::CHUNK || form.features % enlarger::CHUNK) return ENLARGER_BAD_ARGUMENT;
    try {
        auto made = std::make_unique<enlarger_net>();
        made->net.features = form.features, made->net.blocks = form.blocks, made->net.unshuffle = form.unshuffle;
        made->net.links = form.links;
        pack(made->net, tensors);
        *net = made.release();
        return ENLARGER_DONE;
    } catch (const std::bad_alloc &) {
        return ENLARGER_NO_MEMORY;
    }
}

static_assert(ENLARGER_SMALLEST_ROWS >= enlarger::HALO);
static_assert(ENLARGER_SMALLEST_COLUMNS >= enlarger::HALO + enlarger::TILE_PIXELS - 1);

}  // namespace

extern "C" {

int enlarger_kernel_interface(void) { return ENLARGER_KERNEL_INTERFACE; }

int enlarger_tiles_state(int tiles) {
    if (tiles == ENLARGER_PORTABLE) return ENLARGER_USABLE;
    if (!compute_with(tiles)) return ENLARGER_NOT_BUILT;
    const Instructions has = instructions();
    if (tiles == ENLARGER_AVX512) return has.vectors ? ENLARGER_USABLE : ENLARGER_NO_SUCH_CPU;
    if (!has.tiles) return ENLARGER_NO_SUCH_CPU;
    return may_use_tiles() ? ENLARGER_USABLE : ENLARGER_NOT_ALLOWED;
}

int enlarger_net_pack(
    enlarger_net **net, int32_t features, int32_t blocks, int32_t unshuffle, const float *const *tensors) {
    const bool folds = unshuffle == 1 || unshuffle == 2 || unshuffle == 4;
    if (blocks < 1 || !folds) return ENLARGER_BAD_ARGUMENT;
    return packed(net, {features, blocks, unshuffle}, tensors);
}

int enlarger_chain_pack(enlarger_net **net, int32_t features, int32_t links, const float *const *tensors) {
    if (links < 1) return ENLARGER_BAD_ARGUMENT;
    return packed(net, {features, 0, 1, links}, tensors);
}

void enlarger_net_free(enlarger_net *net) { delete net; }

int enlarger_work_start(enlarger_work **work, const enlarger_net *net, int tiles, const enlarger_window *window) {
    const auto compute = compute_with(tiles);
    const bool is_whole = window->from_picture && window->to_pixels;
    if (!compute || !is_good(*window) || (net->net.is_chain() && !is_whole)) return ENLARGER_BAD_ARGUMENT;
    try {
        std::unique_ptr<enlarger_work> made(new enlarger_work{{net->net, *window}});
        if (!made->work.start(compute)) return ENLARGER_NO_MEMORY;
        *work = made.release();
        return ENLARGER_DONE;
    } catch (const std::bad_alloc &) {
        return ENLARGER_NO_MEMORY;
    }
}

int enlarger_work_wait(enlarger_work *work, int32_t milliseconds, double *share) {
    bool has_ended = false;
    *share = work->work.team.wait(std::chrono::milliseconds(milliseconds), has_ended);
    return has_ended ? ENLARGER_DONE : ENLARGER_RUNNING;
}

int enlarger_work_end(enlarger_work *work) {
    work->work.is_cancelled = true;
    work->work.team.cancel();
    const bool is_finite = work->work.is_finite;
    delete work;
    return is_finite;
}

int64_t enlarger_work_bytes(const enlarger_net *net, const enlarger_window *window) {
    int widest = 0;
    for (int index = 0; index < window->column_blocks; ++index)
        widest = std::max(widest, window->column_cuts[index + 1] - window->column_cuts[index]);
    return int64_t(bytes_of(net->net, *window, widest));
}

}
