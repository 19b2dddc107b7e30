// A convolution, tile by tile. Start reading here; step.hpp has the products, planes.hpp the layout, dense.hpp, tail.hpp and
// chain.hpp put convolutions together, stages.hpp lists the stages of a net, team.hpp divides them among threads.
//
// A block is up to 4 rows of 16 pixels, 16 outputs deep. For every 32 inputs and every kernel column kx, one step adds
// the products of the input rows that the block sees with that column's weights.
//
// The sums are stored and finished (activation, residual, bf16) behind: line by line during the products of the next
// block, where the vector unit would be idle (5 % of the whole, measured on AMX).
//
// Every sum takes its products in the same order whatever block it lies in, so that neither threads nor cuts show in
// the result.

#pragma once

#include "planes.hpp"
#include "step.hpp"
#include "vectors.hpp"
#include "weights.hpp"

namespace {

using enlarger::Box;
using enlarger::CHUNK;
using enlarger::Map;
using enlarger::Packed;
using enlarger::TILE_OUTPUTS;
using enlarger::TILE_PIXELS;
using enlarger::TILE_WEIGHTS;

// Channels [32 · first chunk, …) that a convolution reads from one map.
struct Input {
    Map map;
    int chunks;
};

// What a convolution reads: one map, or two whose channels follow one another. Rows from `picture_rows` on and before 0
// are `zeros`, which are as long as the longest row of any map.
struct Inputs {
    Input parts[2];
    int count;
    int picture_rows;
    const bf16 *zeros;

    const bf16 *row(int part, int y, int x) const {
        return y < 0 || y >= picture_rows ? zeros : parts[part].map.at(y, x);
    }
};

// The sums of the block before, and how much of them is finished. `Finish` says what becomes of a pixel's 16 sums:
//     row(y, x, n)       the next pixels are (y, x), (y, x + 1) … of outputs [16 n, 16 n + 16)
//     pixel(sums, i)     pixel x + i
template <class Finish>
class Behind {
  public:
    explicit Behind(Finish &finish) : finish_(finish) {}

    float *sums() { return sums_; }

    void start(int y, int x, int n, int rows, int pixels) {
        y_ = y, x_ = x, n_ = n, rows_ = rows, pixels_ = pixels;
        row_ = pixel_ = 0;
        finish_.row(y, x, n);
    }

    INLINE void some(int lines) {
        while (lines > 0 && row_ < rows_) {
            const int until = pixel_ + lines < pixels_ ? pixel_ + lines : pixels_;
            const float *sums = sums_ + row_ * TILE_PIXELS * TILE_OUTPUTS;
            for (int i = pixel_; i < until; ++i) finish_.pixel(load(sums + i * TILE_OUTPUTS), i);
            lines -= until - pixel_;
            pixel_ = until;
            if (pixel_ < pixels_) return;
            pixel_ = 0;
            if (++row_ < rows_) finish_.row(y_ + row_, x_, n_);
        }
    }

    void rest() { some(BLOCK_ROWS * TILE_PIXELS); }

  private:
    Finish &finish_;
    int y_ = 0, x_ = 0, n_ = 0, rows_ = 0, pixels_ = 0, row_ = 0, pixel_ = 0;
    alignas(64) float sums_[BLOCK_ROWS * TILE_PIXELS * TILE_OUTPUTS];
};

template <int KERNEL_ROWS, class Tiles, class Finish>
class Convolution {
  public:
    // The kernel's first tap lies `before_y` rows above and `before_x` columns left of an output.
    Convolution(Tiles &tiles, const Inputs &inputs, const Packed &packed, int before_y, int before_x, Finish &finish)
        : tiles_(tiles), inputs_(inputs), packed_(packed), before_y_(before_y), before_x_(before_x), behind_(finish) {
        const int steps = packed.chunks * packed.kernel_width;
        lines_a_step_ = (BLOCK_ROWS * TILE_PIXELS + steps - 1) / steps;
    }

    void run(const Box &box) {
        int y = box.top;
        for (; y + BLOCK_ROWS <= box.bottom; y += BLOCK_ROWS) rows<BLOCK_ROWS>(y, box);
        if (y + 2 < box.bottom) rows<3>(y, box);
        else if (y + 1 < box.bottom) rows<2>(y, box);
        else if (y < box.bottom) rows<1>(y, box);
        behind_.rest();
    }

  private:
    template <int ROWS>
    void rows(int y, const Box &box) {
        constexpr int IN = ROWS + KERNEL_ROWS - 1;
        const bf16 *from[2][IN];
        for (int part = 0; part < inputs_.count; ++part)
            for (int r = 0; r < IN; ++r)
                from[part][r] = inputs_.row(part, y - before_y_ + r, box.left - before_x_);
        for (int x = box.left; x < box.right; x += TILE_PIXELS) {
            const int pixels = box.right - x < TILE_PIXELS ? box.right - x : TILE_PIXELS;
            for (int n = 0; n < packed_.output_tiles; ++n) {
                unrolled<ROWS>([&](auto r) { tiles_.template load<r>(packed_.bias + n * TILE_OUTPUTS, 0); });
                const bf16 *weights = packed_.at(n);
                for (int part = 0; part < inputs_.count; ++part)
                    weights = products<ROWS>(from[part], inputs_.parts[part], weights);
                behind_.rest();
                unrolled<ROWS>([&](auto r) {
                    tiles_.template store<r>(behind_.sums() + r * TILE_PIXELS * TILE_OUTPUTS);
                });
                behind_.start(y, x, n, ROWS, pixels);
            }
            for (int part = 0; part < inputs_.count; ++part)
                for (int r = 0; r < IN; ++r) from[part][r] += TILE_PIXELS * CHUNK;
        }
    }

    // The products of one map; returns where the weights of the next begin.
    template <int ROWS>
    INLINE const bf16 *products(const bf16 *const *from, const Input &input, const bf16 *weights) {
        for (int chunk = 0; chunk < input.chunks; ++chunk) {
            std::ptrdiff_t offset = chunk * input.map.chunk_stride;
            for (int kx = 0; kx < packed_.kernel_width; ++kx, offset += CHUNK) {
                tiles_.template step<ROWS, KERNEL_ROWS>(from, offset, weights);
                weights += KERNEL_ROWS * TILE_WEIGHTS;
                behind_.some(lines_a_step_);
                tiles_.wake();
            }
        }
        return weights;
    }

    Tiles &tiles_;
    const Inputs &inputs_;
    const Packed &packed_;
    const int before_y_, before_x_;
    int lines_a_step_;
    Behind<Finish> behind_;
};

// A 3×3 convolution whose output lies over its input.
template <class Tiles, class Finish>
void convolve(Tiles &tiles, const Inputs &inputs, const Packed &packed, const Box &box, Finish &finish) {
    if (!box.empty()) Convolution<3, Tiles, Finish>(tiles, inputs, packed, 1, 1, finish).run(box);
}

}  // namespace
