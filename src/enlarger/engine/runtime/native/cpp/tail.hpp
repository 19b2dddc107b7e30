// The tail: from features to pixels at four times the size.
//
//     features ─▶ ×2 ─▶ up1 ─▶ ×2 ─▶ up2 ─▶ hr ─▶ last ─▶ sink
//
// Enlarging by repetition and convolving is done in one: see Phases in weights.hpp. The maps in between would take
// 4 kB for every input pixel, so only the last rows of each exist, in rings, for TAIL_COLUMNS columns at a time. Rows
// are pulled: who needs a row asks the level before for it, which computes blocks of four until it is there.

#pragma once

#include "dense.hpp"
#include "sink.hpp"

namespace {

using enlarger::TAIL_COLUMNS;
using enlarger::TAIL_ROWS;
using enlarger::TAIL_SCALE;

// LeakyReLU, to a map of `factor` times the size at the rows and columns of one phase.
struct Activated {
    Map map;
    int factor, row_phase, column_phase;
    bf16 *to = nullptr;

    INLINE void row(int y, int x, int n) {
        to = map.at(factor * y + row_phase, factor * x + column_phase) + outputs_at(map, n);
    }
    INLINE void pixel(F16 sums, int i) { store(to + std::ptrdiff_t{i} * factor * CHUNK, leaky_relu(sums)); }
};

struct Pixels {
    Sink &sink;
    int y = 0, x = 0;

    INLINE void row(int at_y, int at_x, int) { y = at_y, x = at_x; }
    INLINE void pixel(F16 sums, int i) { sink.write(y, x + i, sums[0], sums[1], sums[2]); }
};

template <class Tiles>
class Tail {
  public:
    Tail(Tiles &tiles, Work &work, void *scratch, const Map &features, Sink &sink)
        : tiles_(tiles), work_(work), scratch_(static_cast<char *>(scratch)), features_(features), sink_(sink) {}

    void run(const Box &block) {
        const Box kept = block.inside(work_.kept());
        for (int left = kept.left; left < kept.right; left += TAIL_COLUMNS) {
            const Box core = Box{kept.top, kept.bottom, left, left + TAIL_COLUMNS}.inside(kept);
            if (!core.empty()) columns(core);
        }
    }

  private:
    // One of up1, up2, hr: what it computes, in pixels of its input, and how far it is.
    struct Level {
        const Packed *packed;
        int factor;  // output pixels an input pixel
        Box box;
        Map in, out;
        int in_rows;
        int next;
    };

    void columns(const Box &core) {
        const enlarger::Net &net = work_.net;
        const Box all = work_.all();
        char *to = scratch_;
        auto level = [&](const Packed *packed, int factor, const Box &box, const Map &in, int scale, std::size_t bytes) {
            const Map out = Map::over(to, TAIL_ROWS, factor * box.left, factor * box.width(), net.chunks());
            clear_sides(out, TAIL_ROWS, factor * box.width(), net.chunks());
            to += bytes;
            return Level{packed, factor, box, in, out, scale * all.bottom, box.top};
        };
        const enlarger::Needs &needs = work_.needs;
        levels_[0] = level(net.up1, 2, core.grown(1, all), features_, 1, needs.doubled);
        levels_[1] = level(net.up2, 2, core.times(2).grown(1, all.times(2)), levels_[0].out, 2, needs.quadrupled);
        levels_[2] = level(&net.hr, 1, core.times(4).grown(1, all.times(4)), levels_[1].out, 4, needs.refined);
        last(core.times(TAIL_SCALE));
    }

    void last(const Box &box) {
        const Level &hr = levels_[2];
        for (int y = box.top; y < box.bottom && !work_.is_cancelled; y += BLOCK_ROWS) {
            const Box rows = Box{y, y + BLOCK_ROWS, box.left, box.right}.inside(box);
            pull(2, rows.bottom + 1);
            Pixels finish{sink_};
            convolve(tiles_, inputs(hr.out, hr.in_rows), work_.net.last, rows, finish);
        }
    }

    // Computes output rows of a level until all before `row` are there, or the level has no more.
    void pull(int index, int row) {
        Level &level = levels_[index];
        while (level.next * level.factor < row && level.next < level.box.bottom) {
            const Box rows = Box{level.next, level.next + BLOCK_ROWS, level.box.left, level.box.right}.inside(level.box);
            if (index > 0) pull(index - 1, rows.bottom + 1);
            compute(level, rows);
            level.next = rows.bottom;
        }
    }

    void compute(const Level &level, const Box &rows) {
        const Inputs from = inputs(level.in, level.in_rows);
        if (level.factor == 1) {
            Activated finish{level.out, 1, 0, 0};
            convolve(tiles_, from, *level.packed, rows, finish);
            return;
        }
        for (int phase = 0; phase < 4; ++phase) {
            Activated finish{level.out, 2, phase / 2, phase % 2};
            Convolution<2, Tiles, Activated>(
                tiles_, from, level.packed[phase], 1 - phase / 2, 1 - phase % 2, finish).run(rows);
        }
    }

    Inputs inputs(const Map &map, int rows) const {
        return {{{map, work_.net.chunks()}}, 1, rows, static_cast<const bf16 *>(work_.zeros.start())};
    }

    Tiles &tiles_;
    Work &work_;
    char *scratch_;
    const Map features_;
    Sink &sink_;
    Level levels_[3];
};

}  // namespace
