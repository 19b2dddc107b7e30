// How a window's work is divided among threads.
//
// Every stage of the net is computed block by block; a task is one block at one stage. A task may start once its
// block and the eight around it have finished the stage before: then what it reads, up to HALO pixels beyond its block,
// is there, and nobody still reads what it overwrites (the two planes of the trunk swap at every stage). Tasks are
// handed out stage by stage, block by block. No thread waits at the end of a stage: while the last blocks are still
// computed, the first ones of the next stage are ready.
//
//     stage s      │ 0 │ 1 │ 2 │ 3 │ 4 │ 5 │
//     stage s + 1      │ 0 │ 1 │ …              as soon as 0 and its neighbours are done

#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "planes.hpp"

namespace enlarger {

constexpr int HALO = 5;  // a dense block is five convolutions

struct Task {
    int stage;
    Box block;
    int row, column;  // of the block
};

class Team {
  public:
    // `costs` is what a pixel costs at each stage, in any unit.
    Team(std::vector<int> row_cuts, std::vector<int> column_cuts, std::vector<double> costs);

    // Waits for a task that may start. False where there are no more, or the work was cancelled.
    bool next(Task &task);
    void finished(const Task &task);

    void cancel();
    bool cancelled();

    // Waits until all tasks are finished or the work was cancelled, or for so long. Returns the part that is finished.
    double wait(std::chrono::milliseconds longest, bool &has_ended);

    int widest_block() const;

  private:
    int rows() const { return int(row_cuts_.size()) - 1; }
    int columns() const { return int(column_cuts_.size()) - 1; }
    bool is_ready(const Task &task) const;
    bool has_ended() const { return cancelled_ || finished_ == stages() * rows() * columns(); }
    int stages() const { return int(costs_.size()); }

    const std::vector<int> row_cuts_, column_cuts_;
    const std::vector<double> costs_;
    double total_cost_ = 0;

    std::mutex mutex_;
    std::condition_variable changed_;
    // Under the mutex; tasks take milliseconds, so nobody waits for it long.
    std::vector<int> stages_done_;  // of every block
    int handed_out_ = 0, finished_ = 0;
    double finished_cost_ = 0;
    bool cancelled_ = false;
};

}  // namespace enlarger
