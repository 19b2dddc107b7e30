// The eight tile registers of AMX. Written as assembly, not with the compiler's intrinsics: those take no template
// arguments, and gcc 12 does not know that a tile load or the configuration reads memory, so it drops the stores before.

#pragma once

#include <cstddef>

#include "step.hpp"
#include "vectors.hpp"

namespace {

class AmxTiles {
  public:
    // Palette 1; all eight tiles have 16 rows of 64 bytes. Every thread has its own configuration.
    void configure() {
        ignore_denormals();
        struct alignas(64) {
            std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
            std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } config;
        asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
    }

    void release() { asm volatile("tilerelease" ::: "memory"); }

    // Some 2,200 cycles after the last vector floating-point instruction the upper part of the unit sleeps, and a store
    // of a tile then takes 680 cycles more. One addition now and then keeps it awake (10 % of the whole, measured).
    void wake() {
#ifdef ENLARGER_WITH_AVX512
        asm volatile("vaddps %%zmm31, %%zmm31, %%zmm31" ::: "xmm31");
#endif
    }

    template <int ROWS, int KERNEL_ROWS>
    INLINE void step(const bf16 *const *rows, std::ptrdiff_t offset, const bf16 *weights) {
        step_in_registers<ROWS, KERNEL_ROWS>(*this, rows, offset, weights);
    }

    template <int T>
    void load(const void *from, std::ptrdiff_t stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
    }

    template <int T>
    void store(float *to) const {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(std::ptrdiff_t{64}), "i"(T) : "memory");
    }

    template <int C, int A, int B>
    void multiply() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
    }
};

}  // namespace
