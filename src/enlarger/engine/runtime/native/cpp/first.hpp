// The ends of the trunk. conv_first reads the picture as it comes, planes of f32, and stays in f32: its few inputs would
// fill a tenth of a tile. conv_body adds to it, so conv_first is computed a second time there, which costs less than
// 1 % of the trunk where keeping it would cost a fifth more memory.

#pragma once

#include "dense.hpp"

namespace {

constexpr int MOST_TAPS = 9 * 3 * 4 * 4;

class First {
  public:
    explicit First(const Work &work)
        : net_(work.net), picture_(work.window.input), height_(work.window.height), width_(work.window.width) {}

    // The features of rows [top, bottom) and columns [left, right) of the box, f32 (rows, columns, features).
    void rows(const Box &box, float *to) const {
        float taps[MOST_TAPS];
        for (int y = box.top; y < box.bottom; ++y)
            for (int x = box.left; x < box.right; ++x, to += net_.features) {
                gather(y, x, taps);
                // Several sums at a time, as each waits four cycles for its last addition.
                if (net_.features % 64 == 0)
                    for (int n = 0; n < net_.features; n += 64) sum<4>(taps, n, to);
                else
                    for (int n = 0; n < net_.features; n += 32) sum<2>(taps, n, to);
            }
    }

  private:
    // What the kernel covers around a pixel. Where the net folds u × u pixels into one, channel (c · u + dy) · u + dx is
    // sample (y · u + dy, x · u + dx) of plane c.
    void gather(int y, int x, float *taps) const {
        const int u = net_.unshuffle;
        const std::ptrdiff_t row = std::ptrdiff_t{width_} * u, plane = row * height_ * u;
        for (int c = 0; c < enlarger::PICTURE_CHANNELS; ++c)
            for (int dy = 0; dy < u; ++dy)
                for (int dx = 0; dx < u; ++dx)
                    for (int ky = y - 1; ky <= y + 1; ++ky) {
                        const bool row_exists = ky >= 0 && ky < height_;
                        const float *from = picture_ + c * plane + (ky * u + dy) * row + dx;
                        for (int kx = x - 1; kx <= x + 1; ++kx)
                            *taps++ = row_exists && kx >= 0 && kx < width_ ? from[kx * u] : 0;
                    }
    }

    template <int VECTORS>
    INLINE void sum(const float *taps, int n, float *to) const {
        F16 sums[VECTORS];
        for (int v = 0; v < VECTORS; ++v) sums[v] = load(&net_.first_bias[n + 16 * v]);
        const float *weights = &net_.first_weights[n];
        for (int tap = 0; tap < 9 * net_.input_channels(); ++tap, weights += net_.features)
            for (int v = 0; v < VECTORS; ++v) sums[v] += load(weights + 16 * v) * taps[tap];
        for (int v = 0; v < VECTORS; ++v) store(to + n + 16 * v, sums[v]);
    }

    const enlarger::Net &net_;
    const float *picture_;
    const int height_, width_;
};

// conv_first into the trunk's first map and into the skip.
inline void first_stage(Work &work, const Map &out, const Box &block) {
    const First first(work);
    const int features = work.net.features;
    for (int y = block.top; y < block.bottom && !work.is_cancelled; ++y) {
        float *skip = static_cast<float *>(work.skip.start());
        skip += (std::ptrdiff_t{y} * work.window.width + block.left) * features;
        first.rows({y, y + 1, block.left, block.right}, skip);
        for (int x = block.left; x < block.right; ++x, skip += features)
            for (int n = 0; n < features / TILE_OUTPUTS; ++n)
                store(out.at(y, x) + outputs_at(out, n), load(skip + n * TILE_OUTPUTS));
    }
}

// sums + conv_first, which lies in `shallow` from row `top` and column `left` on.
struct Deepened {
    Map out_map;
    const float *shallow;
    int top, left, width, features;
    const float *beside = nullptr;
    bf16 *to = nullptr;

    INLINE void row(int y, int x, int n) {
        to = out_map.at(y, x) + outputs_at(out_map, n);
        beside = shallow + (std::ptrdiff_t{y - top} * width + x - left) * features + n * TILE_OUTPUTS;
    }
    INLINE void pixel(F16 sums, int i) {
        store(to + i * CHUNK, load(beside + std::ptrdiff_t{i} * features) + sums);
    }
};

template <class Tiles>
void body_stage(Tiles &tiles, Work &work, void *scratch, const Map &in, const Map &out, const Box &block) {
    const First first(work);
    const auto *zeros = static_cast<const bf16 *>(work.zeros.start());
    const Inputs inputs{{{in, work.net.chunks()}}, 1, work.window.height, zeros};
    auto *shallow = static_cast<float *>(scratch);
    for (int y = block.top; y < block.bottom && !work.is_cancelled; y += BLOCK_ROWS) {
        const Box box = Box{y, y + BLOCK_ROWS, block.left, block.right}.inside(block);
        first.rows(box, shallow);
        Deepened finish{out, shallow, y, block.left, block.width(), work.net.features};
        convolve(tiles, inputs, work.net.body, box, finish);
    }
}

}  // namespace
