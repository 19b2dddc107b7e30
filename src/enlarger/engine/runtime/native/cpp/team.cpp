#include "team.hpp"

#include <algorithm>

namespace enlarger {

Team::Team(std::vector<int> row_cuts, std::vector<int> column_cuts, std::vector<double> costs)
    : row_cuts_(std::move(row_cuts)), column_cuts_(std::move(column_cuts)), costs_(std::move(costs)) {
    stages_done_.resize(std::size_t(rows()) * columns());
    for (double cost : costs_) total_cost_ += cost * row_cuts_.back() * column_cuts_.back();
}

bool Team::next(Task &task) {
    std::unique_lock<std::mutex> lock(mutex_);
    const int blocks = rows() * columns();
    if (handed_out_ == stages() * blocks) return false;
    const int index = handed_out_++, block = index % blocks;
    task.stage = index / blocks;
    task.row = block / columns(), task.column = block % columns();
    task.block = {row_cuts_[task.row], row_cuts_[task.row + 1], column_cuts_[task.column],
                  column_cuts_[task.column + 1]};
    // What it waits for was handed out before, to threads that work on it: there is no circle.
    changed_.wait(lock, [&] { return cancelled_ || is_ready(task); });
    return !cancelled_;
}

bool Team::is_ready(const Task &task) const {
    for (int row = std::max(0, task.row - 1); row <= std::min(rows() - 1, task.row + 1); ++row)
        for (int column = std::max(0, task.column - 1); column <= std::min(columns() - 1, task.column + 1); ++column)
            if (stages_done_[std::size_t(row) * columns() + column] < task.stage) return false;
    return true;
}

void Team::finished(const Task &task) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (cancelled_) return;  // it may have stopped half way
    ++stages_done_[std::size_t(task.row) * columns() + task.column];
    ++finished_;
    finished_cost_ += costs_[task.stage] * double(task.block.pixels());
    changed_.notify_all();
}

void Team::cancel() {
    const std::lock_guard<std::mutex> lock(mutex_);
    cancelled_ = true;
    changed_.notify_all();
}

bool Team::cancelled() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return cancelled_;
}

double Team::wait(std::chrono::milliseconds longest, bool &ended) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, longest, [&] { return has_ended(); });
    ended = has_ended();
    return finished_cost_ / total_cost_;
}

int Team::widest_block() const {
    int widest = 0;
    for (int column = 0; column < columns(); ++column)
        widest = std::max(widest, column_cuts_[column + 1] - column_cuts_[column]);
    return widest;
}

}  // namespace enlarger
