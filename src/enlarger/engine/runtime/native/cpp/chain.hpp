// A chain: the compact networks. Nothing but 3×3 convolutions one after the other, each with a slope of its own for
// what is negative (PReLU), at the size of the picture:
//
//     picture ─▶ first ─▶ conv ─▶ … ─▶ conv ─▶ last ─▶ 16 outputs a colour are 4×4 pixels ─▶ + picture enlarged ─▶ sink
//
// Each is a stage of its own over the two maps of the trunk, and blocks need no overlap. A convolution of 64 channels takes
// some 160 ns a pixel (AVX-512, one core) and moves 256 bytes: it does not wait for memory.

#pragma once

#include "first.hpp"
#include "sink.hpp"

namespace {

INLINE F16 prelu(F16 x, F16 slopes) {
    const U16 is_positive = (U16)(x > 0);
    return (F16)(((U16)x & is_positive) | ((U16)(x * slopes) & ~is_positive));
}

inline void first_link(Work &work, void *scratch, const Map &out, const Box &block) {
    const First first(work);
    const int features = work.net.features;
    for (int y = block.top; y < block.bottom; ++y) {
        const float *row = static_cast<float *>(scratch);
        first.rows({y, y + 1, block.left, block.right}, static_cast<float *>(scratch));
        for (int x = block.left; x < block.right; ++x, row += features)
            for (int n = 0; n < features / TILE_OUTPUTS; ++n) {
                const F16 slopes = load(&work.net.first_slopes[n * TILE_OUTPUTS]);
                store(out.at(y, x) + outputs_at(out, n), prelu(load(row + n * TILE_OUTPUTS), slopes));
            }
    }
}

struct Linked {
    Map map;
    const float *all_slopes;
    F16 slopes{};
    bf16 *to = nullptr;

    INLINE void row(int y, int x, int n) {
        to = map.at(y, x) + outputs_at(map, n);
        slopes = load(all_slopes + n * TILE_OUTPUTS);
    }
    INLINE void pixel(F16 sums, int i) { store(to + i * CHUNK, prelu(sums, slopes)); }
};

// The 16 outputs of a tile are the 4×4 pixels of one colour. Red and green wait for blue.
struct Shuffled {
    Sink &sink;
    const float *picture;
    int height, width, top;
    int y = 0, x = 0, colour = 0;
    F16 red[BLOCK_ROWS * TILE_PIXELS]{}, green[BLOCK_ROWS * TILE_PIXELS]{};

    INLINE void row(int at_y, int at_x, int n) { y = at_y, x = at_x, colour = n; }

    INLINE void pixel(F16 sums, int i) {
        const int at = (y - top) % BLOCK_ROWS * TILE_PIXELS + i;
        const std::ptrdiff_t plane = std::ptrdiff_t{height} * width;
        sums += picture[colour * plane + std::ptrdiff_t{y} * width + x + i];
        if (colour == 0) red[at] = sums;
        else if (colour == 1) green[at] = sums;
        else
            for (int k = 0; k < TILE_OUTPUTS; ++k)
                sink.write(4 * y + k / 4, 4 * (x + i) + k % 4, red[at][k], green[at][k], sums[k]);
    }
};

template <class Tiles>
void link_stage(Tiles &tiles, Work &work, int index, const Map &in, const Map &out, const Box &block) {
    const Packed &packed = work.net.chain[index];
    const auto *zeros = static_cast<const bf16 *>(work.zeros.start());
    Linked finish{out, packed.slopes};
    convolve(tiles, {{{in, work.net.chunks()}}, 1, work.window.height, zeros}, packed, block, finish);
}

template <class Tiles>
void shuffle_stage(Tiles &tiles, Work &work, const Map &in, const Box &block, Sink &sink) {
    const Box kept = block.inside(work.kept());
    const auto *zeros = static_cast<const bf16 *>(work.zeros.start());
    Shuffled finish{sink, work.window.input, work.window.height, work.window.width, kept.top};
    convolve(tiles, {{{in, work.net.chunks()}}, 1, work.window.height, zeros}, work.net.last, kept, finish);
}

}  // namespace
