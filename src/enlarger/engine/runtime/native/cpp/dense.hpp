// A dense block: five convolutions, each of which sees what all before it found.
//
//     x ──┬──▶ conv 1 ─▶ g1 ──┬──▶ conv 2 ─▶ g2 ── … ──▶ conv 5 ──▶ y = x + 0.2 · conv 5
//         └───────────────────┴────────────── … ──────▶
//
// They run over a block of the picture as a skewed wavefront. In step s, convolution k = 0 … 4 computes four rows, one
// row higher than the convolution before it, as it needs one row below its own:
//
//     rows     top − 4 + 4s ┬ conv 1 ┐            of each g nine rows are alive: they stay in the cache, in a ring
//              top − 5 + 4s │ conv 2 ┬ …
//              top − 8 + 4s │ conv 5 ┴            the rows that leave the block finished
//
// Blocks know nothing of each other's g: convolution k is computed 4 − k pixels beyond the block, where the picture goes
// on. That is all the overlap there is: 2.3 rows' worth a cut. The input is read 5 pixels beyond.

#pragma once

#include "conv.hpp"
#include "work.hpp"

namespace {

using enlarger::DENSE_CONVS;
using enlarger::GROWN_CHUNKS;
using enlarger::GROWN_HALO;
using enlarger::GROWN_ROWS;
using enlarger::Work;

// Samples from the first chunk of a pixel to the 16 outputs of tile n.
INLINE std::ptrdiff_t outputs_at(const Map &map, int n) {
    return (n / 2) * map.chunk_stride + (n % 2) * TILE_OUTPUTS;
}

// The pixels left and right of a map, which count as zero where the picture ends there. Rings are used again and again.
inline void clear_sides(const Map &map, int rows, int width, int chunks) {
    for (int row = 0; row < rows; ++row)
        for (int chunk = 0; chunk < chunks; ++chunk)
            for (int x : {map.left - 1, map.left + width})
                std::memset(map.at(row, x) + chunk * map.chunk_stride, 0, LINE);
}

// LeakyReLU, to one chunk of a ring.
struct Grown {
    Map map;
    int chunk;
    bf16 *to = nullptr;

    INLINE void row(int y, int x, int n) { to = map.at(y, x) + chunk * map.chunk_stride + outputs_at(map, n); }
    INLINE void pixel(F16 sums, int i) { store(to + i * CHUNK, leaky_relu(sums)); }
};

// x + 0.2 · sums; at the end of an RRDB also skip + 0.2 · that, which is the new skip.
struct Residual {
    Map x_map, out_map;
    float *skip;  // null but for the last dense block of an RRDB
    int width, features;
    const bf16 *x = nullptr;
    bf16 *to = nullptr;
    float *beside = nullptr;

    INLINE void row(int y, int column, int n) {
        x = x_map.at(y, column) + outputs_at(x_map, n);
        to = out_map.at(y, column) + outputs_at(out_map, n);
        if (skip) beside = skip + (std::ptrdiff_t{y} * width + column) * features + n * TILE_OUTPUTS;
    }

    INLINE void pixel(F16 sums, int i) {
        F16 value = load(x + i * CHUNK) + sums * RESIDUAL;
        if (skip) {
            value = load(beside + std::ptrdiff_t{i} * features) + value * RESIDUAL;
            store(beside + std::ptrdiff_t{i} * features, value);
        }
        store(to + i * CHUNK, value);
    }
};

template <class Tiles>
void dense_block(Tiles &tiles, Work &work, void *scratch, int index, const Map &in, const Map &out, const Box &block) {
    const Box all = work.all(), widest = block.grown(GROWN_HALO, all);
    const Map ring = Map::over(scratch, GROWN_ROWS, widest.left, widest.width(), GROWN_CHUNKS);
    clear_sides(ring, GROWN_ROWS, widest.width(), GROWN_CHUNKS);
    const Packed *convs = &work.net.dense[std::size_t(index) * DENSE_CONVS];
    const bool ends_rrdb = index % enlarger::DENSE_BLOCKS == enlarger::DENSE_BLOCKS - 1;
    float *skip = ends_rrdb ? static_cast<float *>(work.skip.start()) : nullptr;
    const auto *zeros = static_cast<const bf16 *>(work.zeros.start());
    for (int step = 0; block.top - 2 * GROWN_HALO + BLOCK_ROWS * step < block.bottom; ++step) {
        if (work.is_cancelled) return;
        for (int k = 0; k < DENSE_CONVS; ++k) {
            const int top = block.top - GROWN_HALO - k + BLOCK_ROWS * step;
            const Box wanted = block.grown(GROWN_HALO - k, all);
            const Box box = Box{top, top + BLOCK_ROWS, wanted.left, wanted.right}.inside(wanted);
            const Inputs inputs{{{in, work.net.chunks()}, {ring, k}}, k ? 2 : 1, all.bottom, zeros};
            if (k < DENSE_CONVS - 1) {
                Grown finish{ring, k};
                convolve(tiles, inputs, convs[k], box, finish);
            } else {
                Residual finish{in, out, skip, work.window.width, work.net.features};
                convolve(tiles, inputs, convs[k], box, finish);
            }
        }
    }
}

}  // namespace
