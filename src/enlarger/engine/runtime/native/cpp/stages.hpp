// The life of a thread: it takes tasks until there are none, each one block of one stage.

#pragma once

#include "chain.hpp"
#include "dense.hpp"
#include "first.hpp"
#include "sink.hpp"
#include "tail.hpp"

namespace {

using enlarger::Kind;
using enlarger::Task;

// Features from f32 planes, (c, height, width).
inline void load_stage(Work &work, const Map &out, const Box &block) {
    const int height = work.window.height, width = work.window.width;
    for (int y = block.top; y < block.bottom; ++y)
        for (int x = block.left; x < block.right; ++x)
            for (int n = 0; n < work.net.features / TILE_OUTPUTS; ++n) {
                float values[TILE_OUTPUTS];
                for (int c = 0; c < TILE_OUTPUTS; ++c)
                    values[c] = work.window.input[(std::ptrdiff_t{n * TILE_OUTPUTS + c} * height + y) * width + x];
                store(out.at(y, x) + outputs_at(out, n), load(values));
            }
}

inline void store_stage(Work &work, const Map &in, const Box &block, Sink &sink) {
    for (int y = block.top; y < block.bottom; ++y)
        for (int x = block.left; x < block.right; ++x)
            for (int n = 0; n < work.net.features / TILE_OUTPUTS; ++n) {
                const F16 values = load(in.at(y, x) + outputs_at(in, n));
                for (int c = 0; c < TILE_OUTPUTS; ++c) sink.write(n * TILE_OUTPUTS + c, y, x, values[c]);
            }
}

template <class Tiles>
void run_task(Tiles &tiles, Work &work, void *scratch, const Task &task, Sink &sink) {
    const Map &in = work.planes[(task.stage + 1) % 2], &out = work.planes[task.stage % 2];
    const enlarger::Stage &stage = work.stages[task.stage];
    switch (stage.kind) {
        case Kind::FIRST: return first_stage(work, out, task.block);
        case Kind::LOAD: return load_stage(work, out, task.block);
        case Kind::DENSE: return dense_block(tiles, work, scratch, stage.index, in, out, task.block);
        case Kind::BODY: return body_stage(tiles, work, scratch, in, out, task.block);
        case Kind::TAIL: return Tail<Tiles>(tiles, work, scratch, in, sink).run(task.block);
        case Kind::STORE: return store_stage(work, in, task.block, sink);
        case Kind::FIRST_LINK: return first_link(work, scratch, out, task.block);
        case Kind::LINK: return link_stage(tiles, work, stage.index, in, out, task.block);
        case Kind::SHUFFLE: return shuffle_stage(tiles, work, in, task.block, sink);
    }
}

template <class Tiles>
void compute(Work &work, void *scratch) {
    Tiles tiles;
    Sink sink(work.window.sink);
    Task task;
    tiles.configure();
    while (work.team.next(task)) {
        run_task(tiles, work, scratch, task, sink);
        // Before the task counts as finished: who waits for the last one reads this next.
        if (!sink.is_finite()) work.is_finite = false;
        work.team.finished(task);
    }
    tiles.release();
}

}  // namespace
