// One step of a block: 32 inputs of one kernel column kx. Of each of the 6 input rows that a block of 4 rows sees, sixteen
// pixels meet every weight row ky that belongs to one of the block's rows:
//
//     input row −1 ──ky 0──▶ sum 0
//               0 ──ky 1──▶ sum 0, ky 0──▶ sum 1
//               1 ──ky 2──▶ sum 0, … ──▶ sum 1, 2
//               …
//               4 ──ky 2──▶ sum 3                     12 products of 16 pixels × 16 outputs × 32 inputs
//
// Here with eight tile registers: 9 loads for the 12 products. tiles_avx512.hpp has its own way.

#pragma once

#include <cstddef>
#include <type_traits>

#include "vectors.hpp"
#include "weights.hpp"

namespace {

constexpr int BLOCK_ROWS = 4;
constexpr int LINE = 64;  // bytes of a pixel of a chunk, and of 16 sums

// Calls step(constant 0), …, step(constant COUNT − 1): a loop whose counter can name a register.
template <int COUNT, int FROM = 0, class Step>
INLINE void unrolled(Step &&step) {
    if constexpr (FROM < COUNT) {
        step(std::integral_constant<int, FROM>{});
        unrolled<COUNT, FROM + 1>(step);
    }
}

// Registers 0 … 3 are the sums of rows 0 … 3, 4 … 6 weights ky = 0 … 2, 7 an input row: 16 pixels × 32 channels.
template <int ROWS, int KERNEL_ROWS, class Tiles>
INLINE void step_in_registers(Tiles &tiles, const bf16 *const *rows, std::ptrdiff_t offset, const bf16 *weights) {
    constexpr int WEIGHTS = BLOCK_ROWS, PIXELS = 7;
    static_assert(WEIGHTS + KERNEL_ROWS <= PIXELS, "there are eight registers");
    unrolled<KERNEL_ROWS>([&](auto ky) {
        tiles.template load<WEIGHTS + ky>(weights + ky * enlarger::TILE_WEIGHTS, LINE);
    });
    unrolled<ROWS + KERNEL_ROWS - 1>([&](auto in) {
        tiles.template load<PIXELS>(rows[in] + offset, LINE);
        unrolled<KERNEL_ROWS>([&](auto ky) {
            constexpr int OUT = in - ky;
            if constexpr (OUT >= 0 && OUT < ROWS) tiles.template multiply<OUT, PIXELS, WEIGHTS + ky>();
        });
    });
}

}  // namespace
