// The eight tile registers in plain C++: 16 rows of 64 bytes each, with the results of AMX to the last bit.
//
// TDPBF16PS sums, for every output, the products of even and of odd inputs apart, each in order, and adds the two sums
// to the accumulator at the end (Intel SDM, operation of TDPBF16PS). The product of two bf16 is exact in f32, so a
// multiplication and an addition round as its fused one does; the compiler must not contract or reorder them.

#pragma once

#include <cstddef>

#include "step.hpp"
#include "vectors.hpp"

namespace {

class PortableTiles {
  public:
    void configure() { ignore_denormals(); }
    void release() {}
    void wake() {}

    template <int ROWS, int KERNEL_ROWS>
    INLINE void step(const bf16 *const *rows, std::ptrdiff_t offset, const bf16 *weights) {
        step_in_registers<ROWS, KERNEL_ROWS>(*this, rows, offset, weights);
    }

    // Sixteen rows of 64 bytes, each `stride` bytes after the one before.
    template <int T>
    void load(const void *from, std::ptrdiff_t stride) {
        for (int row = 0; row < 16; ++row)
            std::memcpy(tile_[T].bytes + 64 * row, static_cast<const char *>(from) + row * stride, 64);
    }

    template <int T>
    void store(float *to) const {
        std::memcpy(to, tile_[T].bytes, sizeof tile_[T].bytes);
    }

    // C[m][n] += Σ A[m][i]·B[i][n] over 32 inputs i, which lie in pairs: row m of A holds them in order, row k of B the
    // inputs 2k and 2k + 1 of every n.
    template <int C, int A, int B>
    void multiply() {
        add_products(tile_[C], tile_[A], tile_[B]);
    }

  private:
    struct alignas(64) Tile {
        char bytes[1024];
    };

    // Not inlined: twelve copies in every convolution made the compiler take minutes.
    static __attribute__((noinline)) void add_products(Tile &c, const Tile &a, const Tile &b) {
        F16 even_b[16], odd_b[16];
        for (int k = 0; k < 16; ++k) {
            U16 pairs;
            std::memcpy(&pairs, b.bytes + 64 * k, 64);
            even_b[k] = (F16)(pairs << 16);
            odd_b[k] = (F16)(pairs & 0xffff0000);
        }
        for (int m = 0; m < 16; ++m) {
            std::uint32_t inputs[16];
            std::memcpy(inputs, a.bytes + 64 * m, 64);
            F16 even = {}, odd = {};
            for (int k = 0; k < 16; ++k) {
                even += even_b[k] * as_float(inputs[k] << 16);
                odd += odd_b[k] * as_float(inputs[k] & 0xffff0000);
            }
            float *sums = reinterpret_cast<float *>(c.bytes + 64 * m);
            ::store(sums, ::load(sums) + (even + odd));
        }
    }

    static float as_float(std::uint32_t bits) {
        float value;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    }

    Tile tile_[8] = {};
};

}  // namespace
