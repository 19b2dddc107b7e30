// The sums of a block in vectors, for processors with AVX-512 BF16 and no AMX: AMD from Zen 4 on, Intel's Cooper Lake.
//
// VDPBF16PS adds to 16 sums the products of 16 pairs of bf16 with one pair: a row of a weight tile, which holds a pair of
// inputs for each of 16 outputs, with that pair of one pixel. So a pixel's 16 outputs are one vector.
//
// A step goes over a block in groups of pixels whose sums all are in registers: 4 pixels of 4 rows. For each pair of inputs
// the three weight rows ky are read, then that pair of each of the 6 × 4 pixels that the group sees, once, for the up to
// three sums it belongs to:
//
//     reads        3 rows of weights, 24 pairs of pixels         two can be made a cycle
//     products     48                                            two can be begun a cycle
//
// That is 96 % of what the instruction alone does (measured on Zen 5). Pixel by pixel, tile by tile the reads are what takes
// the time: 86 %.

#pragma once

#include <cstddef>

#include "step.hpp"
#include "vectors.hpp"

namespace {

class Avx512Tiles {
  public:
    void configure() { ignore_denormals(); }
    void release() {}
    void wake() {}

    // The sums of row R of the block, 16 pixels × 16 outputs, from rows of 64 bytes that are `stride` bytes apart.
    template <int R>
    void load(const void *from, std::ptrdiff_t stride) {
        for (int m = 0; m < enlarger::TILE_PIXELS; ++m)
            std::memcpy(sums_ + R * ROW + m * VECTOR, static_cast<const char *>(from) + m * stride, LINE);
    }

    template <int R>
    void store(float *to) const {
        std::memcpy(to, sums_ + R * ROW, ROW * sizeof *to);
    }

    template <int ROWS, int KERNEL_ROWS>
    void step(const bf16 *const *rows, std::ptrdiff_t offset, const bf16 *weights) {
        // As many sums as hide the time that a product takes, and leave room for weights.
        constexpr int PIXELS = ROWS == 1 ? 16 : ROWS == 2 ? 8 : 4;
        for (int m = 0; m < enlarger::TILE_PIXELS; m += PIXELS)
            add_products<ROWS, KERNEL_ROWS, PIXELS>(sums_ + m * VECTOR, rows, offset + m * enlarger::CHUNK, weights);
    }

  private:
    static constexpr int VECTOR = 16, ROW = enlarger::TILE_PIXELS * VECTOR;  // sums

    // Not inlined: every convolution would have four copies of it.
    template <int ROWS, int KERNEL_ROWS, int PIXELS>
    static __attribute__((noinline)) void add_products(
        float *sums, const bf16 *const *rows, std::ptrdiff_t offset, const bf16 *weights) {
        __m512 sum[ROWS][PIXELS];
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 16
            for (int m = 0; m < PIXELS; ++m) sum[r][m] = _mm512_load_ps(sums + r * ROW + m * VECTOR);
        for (int pair = 0; pair < enlarger::CHUNK / 2; ++pair, weights += 2 * VECTOR, offset += 2) {
            __m512bh weight[KERNEL_ROWS];
#pragma GCC unroll 3
            for (int ky = 0; ky < KERNEL_ROWS; ++ky)
                weight[ky] = (__m512bh)_mm512_loadu_si512(weights + ky * enlarger::TILE_WEIGHTS);
#pragma GCC unroll 6
            for (int in = 0; in < ROWS + KERNEL_ROWS - 1; ++in)
#pragma GCC unroll 16
                for (int m = 0; m < PIXELS; ++m) {
                    std::int32_t two;
                    std::memcpy(&two, rows[in] + offset + m * enlarger::CHUNK, sizeof two);
                    const __m512bh inputs = (__m512bh)_mm512_set1_epi32(two);
#pragma GCC unroll 3
                    for (int ky = 0; ky < KERNEL_ROWS; ++ky)
                        if (in - ky >= 0 && in - ky < ROWS)
                            sum[in - ky][m] = _mm512_dpbf16_ps(sum[in - ky][m], weight[ky], inputs);
                }
        }
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 16
            for (int m = 0; m < PIXELS; ++m) _mm512_store_ps(sums + r * ROW + m * VECTOR, sum[r][m]);
    }

    alignas(64) float sums_[BLOCK_ROWS * ROW] = {};
};

}  // namespace
