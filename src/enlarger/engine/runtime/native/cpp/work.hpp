// A window while it is computed: its planes, what each thread has for itself, and the threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "kernel.h"
#include "planes.hpp"
#include "team.hpp"
#include "weights.hpp"

namespace enlarger {

enum class Kind { FIRST, LOAD, DENSE, BODY, TAIL, STORE, FIRST_LINK, LINK, SHUFFLE };

struct Stage {
    Kind kind;
    int index;    // of a dense block or a link
    double cost;  // products a pixel of features
};

// The stages of the net that a window asks for, in order.
std::vector<Stage> stages_of(const Net &net, const enlarger_window &window);

// Dense blocks: conv 5 reads rows y − 1 … y + 4 of what conv 1 computes up to row y + 7 in the same step (dense.hpp).
constexpr int GROWN_ROWS = 9;
constexpr int GROWN_CHUNKS = DENSE_CONVS - 1;
constexpr int GROWN_HALO = DENSE_CONVS - 1;

// The tail works on columns of so many feature pixels: its rings then stay in 2 MiB of cache. Rings of 16 rows hold the
// 13 that are alive at most: 6 that a block of 4 rows reads, and 7 computed ahead in blocks of their own.
constexpr int TAIL_COLUMNS = 64;
constexpr int TAIL_ROWS = 16;
constexpr int TAIL_SCALE = 4;

// What a thread needs for its rings: those of a dense block, or of the tail, or 4 rows of conv_first.
struct Needs {
    std::size_t grown, doubled, quadrupled, refined, shallow;

    Needs(int features, int widest_block) {
        const int chunks = features / CHUNK, columns = std::min(widest_block, TAIL_COLUMNS);
        grown = Map::bytes(GROWN_ROWS, widest_block + 2 * GROWN_HALO, GROWN_CHUNKS);
        doubled = Map::bytes(TAIL_ROWS, 2 * (columns + 2), chunks);
        quadrupled = Map::bytes(TAIL_ROWS, 4 * columns + 4, chunks);
        refined = Map::bytes(TAIL_ROWS, 4 * columns + 2, chunks);
        shallow = std::size_t(4) * widest_block * features * sizeof(float);
    }

    std::size_t bytes() const { return std::max({grown, doubled + quadrupled + refined, shallow}); }
    std::size_t widest_row() const { return std::max({grown / GROWN_ROWS, quadrupled / TAIL_ROWS}); }
};

struct Work {
    // Throws std::bad_alloc.
    Work(const Net &net, const enlarger_window &window);
    ~Work();

    // Starts the threads; `compute(work, scratch)` is the life of one. Fewer than asked where the system has no more.
    // Returns whether there is one at least.
    bool start(void (*compute)(Work &, void *scratch));

    Box all() const { return {0, window.height, 0, window.width}; }

    // The part of the result that is kept, in feature pixels.
    Box kept() const;

    const Net &net;
    const enlarger_window window;
    const std::vector<Stage> stages;
    Team team;
    const Needs needs;

    // The trunk's features before and after a stage: stage s writes map s mod 2.
    Memory plane_memory[2];
    Map planes[2];
    // The sum that runs past each RRDB, in f32: (height, width, features).
    Memory skip;
    Memory zeros;

    std::atomic<bool> is_cancelled{false};
    std::atomic<bool> is_finite{true};

  private:
    std::vector<Memory> scratches_;
    std::vector<std::thread> threads_;
};

std::size_t bytes_of(const Net &net, const enlarger_window &window, int widest_block);

// The life of a thread with each kind of tiles; nullptr where it was not built.
extern void (*const compute_amx)(Work &, void *scratch);
extern void (*const compute_avx512)(Work &, void *scratch);
extern void (*const compute_portable)(Work &, void *scratch);

}  // namespace enlarger
