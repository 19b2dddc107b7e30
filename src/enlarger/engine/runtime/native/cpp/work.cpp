#include "work.hpp"

#include <system_error>

namespace enlarger {
namespace {

constexpr int SLACK = 64;

std::vector<int> cuts(const int32_t *numbers, int blocks) { return std::vector<int>(numbers, numbers + blocks + 1); }

std::vector<double> costs(const std::vector<Stage> &stages) {
    std::vector<double> found;
    for (const Stage &stage : stages) found.push_back(stage.cost);
    return found;
}

std::size_t zero_bytes(const Net &net, const enlarger_window &window, const Needs &needs) {
    return std::max(Map::bytes(1, window.width, net.chunks()), needs.widest_row()) + SLACK;
}

std::size_t skip_bytes(const Net &net, const enlarger_window &window) {
    return window.from_picture && !net.is_chain() ? sizeof(float) * window.height * window.width * net.features : 0;
}

}  // namespace

std::vector<Stage> stages_of(const Net &net, const enlarger_window &window) {
    const double features = net.features, conv = 9 * features * features;
    if (net.is_chain()) {
        std::vector<Stage> stages{{Kind::FIRST_LINK, 0, 9 * features * net.input_channels()}};
        for (int index = 0; index < net.links; ++index) stages.push_back({Kind::LINK, index, conv});
        stages.push_back({Kind::SHUFFLE, 0, 9 * features * PICTURE_CHANNELS * SHUFFLED});
        return stages;
    }
    double dense = 0;
    for (int k = 0; k < DENSE_CONVS; ++k)
        dense += 9 * (features + GROWTH * k) * (k == DENSE_CONVS - 1 ? features : GROWTH);
    std::vector<Stage> stages;
    if (window.from_picture) {
        stages.push_back({Kind::FIRST, 0, 9 * features * net.input_channels()});
        for (int index = 0; index < net.dense_blocks(); ++index) stages.push_back({Kind::DENSE, index, dense});
        stages.push_back({Kind::BODY, 0, conv});
    } else {
        stages.push_back({Kind::LOAD, 0, features});
    }
    if (window.to_pixels)  // four and sixteen pixels with 4/9 of a convolution each, sixteen with a whole one
        stages.push_back({Kind::TAIL, 0, (20 * 4.0 / 9 + 16) * conv + 16 * 9 * features * TILE_OUTPUTS});
    else
        stages.push_back({Kind::STORE, 0, features});
    return stages;
}

Work::Work(const Net &net, const enlarger_window &window)
    : net(net),
      window(window),
      stages(stages_of(net, window)),
      team(cuts(window.row_cuts, window.row_blocks), cuts(window.column_cuts, window.column_blocks), costs(stages)),
      needs(net.features, team.widest_block()),
      skip(skip_bytes(net, window)),
      zeros(zero_bytes(net, window, needs)) {
    for (int index = 0; index < 2; ++index) {
        if (index == 1 && !window.from_picture) break;
        plane_memory[index] = Memory(Map::bytes(window.height, window.width, net.chunks()));
        planes[index] = Map::over(plane_memory[index].start(), window.height, 0, window.width, net.chunks());
    }
    for (int index = 0; index < window.threads; ++index) scratches_.emplace_back(needs.bytes());
}

Work::~Work() {
    is_cancelled = true;
    team.cancel();
    for (std::thread &thread : threads_) thread.join();
}

bool Work::start(void (*compute)(Work &, void *scratch)) {
    try {
        threads_.reserve(scratches_.size());
        for (Memory &scratch : scratches_) threads_.emplace_back(compute, std::ref(*this), scratch.start());
    } catch (const std::system_error &) {
        // No more threads to be had: those that started do it all.
    }
    return !threads_.empty();
}

Box Work::kept() const {
    const enlarger_sink &sink = window.sink;
    auto before = [](int output) { return output / TAIL_SCALE; };
    auto after = [](int output) { return (output + TAIL_SCALE - 1) / TAIL_SCALE; };
    return {before(sink.top), after(sink.top + sink.height), before(sink.left), after(sink.left + sink.width)};
}

std::size_t bytes_of(const Net &net, const enlarger_window &window, int widest_block) {
    const Needs needs(net.features, widest_block);
    return (window.from_picture ? 2 : 1) * Map::bytes(window.height, window.width, net.chunks()) +
           skip_bytes(net, window) + zero_bytes(net, window, needs) + window.threads * needs.bytes();
}

}  // namespace enlarger
