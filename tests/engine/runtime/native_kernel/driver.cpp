// Runs the kernel through its C interface, to be built with sanitizers or guard pages around every buffer.
//
//     driver schedules   every size, cut, thread count and form of the net gives the bytes of one block and one thread
//     driver threads     a few of these, for the thread sanitizer
//     driver trap        the instructions of AMX, emulated, give the bytes of the portable tiles
//     driver cancel      a work that is ended early stops and gives everything back
//
// Prints what it compared; ends with 1 at the first difference.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernel.h"
#include "planes.hpp"

#ifdef ENLARGER_TRAPPED_AMX
#include "amx_trap.hpp"
#endif

namespace {

using Bytes = std::vector<unsigned char>;

[[noreturn]] void fail(const char *what) {
    std::printf("FAILED: %s\n", what);
    std::exit(1);
}

struct Form {
    int features, blocks, unshuffle;
    int links = 0;  // of a chain
};

// A net of seeded weights that keep values near 1 from layer to layer.
class RandomNet {
  public:
    explicit RandomNet(const Form &form) : form(form) {
        add(form.features, 3 * form.unshuffle * form.unshuffle);
        if (form.links) add_chain();
        else add_rrdb();
        std::vector<const float *> pointers;
        for (const auto &tensor : tensors_) pointers.push_back(tensor.data());
        const int packed = form.links
                               ? enlarger_chain_pack(&net, form.features, form.links, pointers.data())
                               : enlarger_net_pack(&net, form.features, form.blocks, form.unshuffle, pointers.data());
        if (packed != ENLARGER_DONE) fail("pack");
    }
    ~RandomNet() { enlarger_net_free(net); }

    const Form form;
    enlarger_net *net = nullptr;

  private:
    void add_rrdb() {
        for (int dense = 0; dense < 3 * form.blocks; ++dense)
            for (int k = 0; k < 5; ++k) add(k < 4 ? 32 : form.features, form.features + 32 * k);
        for (int k = 0; k < 4; ++k) add(form.features, form.features);
        add(3, form.features);
    }

    void add_chain() {
        add_slopes();
        for (int link = 0; link < form.links; ++link) {
            add(form.features, form.features);
            add_slopes();
        }
        add(48, form.features);
    }

    void add_slopes() {
        std::uniform_real_distribution<float> slope(-0.5, 1.5);
        tensors_.emplace_back(form.features);
        for (float &value : tensors_.back()) value = slope(random_);
    }

    void add(int outputs, int inputs) {
        std::normal_distribution<float> weight(0, 1 / std::sqrt(9.0f * inputs)), bias(0, 0.1f);
        tensors_.emplace_back(outputs * inputs * 9);
        for (float &value : tensors_.back()) value = weight(random_);
        tensors_.emplace_back(outputs);
        for (float &value : tensors_.back()) value = bias(random_);
    }

    std::mt19937 random_{7};
    std::vector<std::vector<float>> tensors_;
};

std::vector<int> cuts(int length, int parts) {
    std::vector<int> found;
    for (int part = 0; part <= parts; ++part) found.push_back(int(std::int64_t(length) * part / parts));
    return found;
}

struct Ask {
    int height, width, row_blocks, column_blocks, threads, tiles;
    int kind = ENLARGER_U8, channels = 3;
    bool from_picture = true, to_pixels = true;
    int margin = 0;  // feature pixels around what is kept
};

// What the kernel writes, the buffers exactly as large as they have to be.
Bytes computed(const RandomNet &net, const Ask &ask, bool ends_early = false) {
    const int u = net.form.unshuffle, scale = ask.to_pixels ? 4 : 1;
    const std::size_t samples = std::size_t(ask.height) * ask.width * (ask.from_picture ? 3 * u * u : net.form.features);
    enlarger::Memory input(samples * sizeof(float));
    std::mt19937 random(3);
    for (std::size_t i = 0; i < samples; ++i)
        static_cast<float *>(input.start())[i] = std::uniform_real_distribution<float>(0, 1)(random);
    const auto rows = cuts(ask.height, ask.row_blocks), columns = cuts(ask.width, ask.column_blocks);
    const int height = scale * (ask.height - 2 * ask.margin), width = scale * (ask.width - 2 * ask.margin);
    const int channels = ask.to_pixels ? ask.channels : net.form.features;
    const int bytes_a_sample = ask.kind == ENLARGER_F32 ? 4 : ask.kind == ENLARGER_U16 ? 2 : 1;
    const std::size_t bytes = std::size_t(height) * width * channels * bytes_a_sample;
    enlarger::Memory output(bytes);
    const enlarger_sink sink{output.start(), ask.kind, channels, scale * ask.margin, scale * ask.margin, height, width,
                             std::int64_t(width) * channels, channels, 1};
    const enlarger_window window{ask.height, ask.width, ask.row_blocks, ask.column_blocks, rows.data(), columns.data(),
                                 ask.threads, ask.from_picture, ask.to_pixels,
                                 static_cast<const float *>(input.start()), sink};
    enlarger_work *work = nullptr;
    if (enlarger_work_start(&work, net.net, ask.tiles, &window) != ENLARGER_DONE) fail("start");
    double share = 0, before = 0;
    while (enlarger_work_wait(work, 5, &share) == ENLARGER_RUNNING && !ends_early) {
        if (share < before) fail("progress went back");
        before = share;
    }
    if (!ends_early && std::fabs(share - 1) > 1e-9) fail("ended before all was done");
    if (!enlarger_work_end(work) && !ends_early) fail("values that are no numbers");
    const auto *start = static_cast<const unsigned char *>(output.start());
    return ends_early ? Bytes() : Bytes(start, start + bytes);
}

void same(const RandomNet &net, const Ask &ask, const Bytes &expected) {
    std::printf("tiles %d, features %d blocks %d unshuffle %d links %d: %d×%d in %d×%d blocks, %d threads, kind %d, %d channels, "
                "margin %d\n",
                ask.tiles, net.form.features, net.form.blocks, net.form.unshuffle, net.form.links, ask.width, ask.height, ask.column_blocks,
                ask.row_blocks, ask.threads, ask.kind, ask.channels, ask.margin);
    std::fflush(stdout);
    if (computed(net, ask) != expected) fail("other bytes");
}

void compare_schedules(
    int tiles, const RandomNet &net, int height, int width, const std::vector<std::vector<int>> &schedules) {
    Ask one{height, width, 1, 1, 1, tiles, ENLARGER_F32};
    const Bytes expected = computed(net, one);
    for (const auto &schedule : schedules) {
        Ask ask = one;
        ask.row_blocks = schedule[0], ask.column_blocks = schedule[1], ask.threads = schedule[2];
        same(net, ask, expected);
    }
}

void schedules(int tiles) {
    const RandomNet small({32, 1, 1});
    for (const auto &[height, width] : {std::pair{1, 1}, {1, 19}, {19, 1}, {2, 3}, {5, 16}, {7, 17}, {16, 33}})
        compare_schedules(tiles, small, height, width, {{1, 1, 3}});
    compare_schedules(tiles, small, 17, 83, {{1, 2, 1}, {3, 1, 2}, {2, 3, 4}, {3, 4, 3}});
    compare_schedules(tiles, small, 6, 150, {{1, 1, 2}, {1, 3, 2}});  // more columns than the tail takes at a time
    compare_schedules(tiles, RandomNet({64, 2, 1}), 11, 42, {{2, 2, 4}});
    compare_schedules(tiles, RandomNet({96, 1, 2}), 11, 10, {{2, 1, 2}});
    compare_schedules(tiles, RandomNet({32, 1, 4}), 10, 41, {{2, 2, 2}});

    const RandomNet chain({64, 0, 1, 3});
    for (const auto &[height, width] : {std::pair{1, 1}, {1, 19}, {19, 1}, {7, 17}})
        compare_schedules(tiles, chain, height, width, {{1, 1, 3}});
    compare_schedules(tiles, chain, 17, 83, {{1, 2, 1}, {3, 1, 2}, {2, 3, 4}, {3, 4, 3}});

    Ask part{17, 46, 1, 1, 1, tiles};
    for (int kind : {ENLARGER_U8, ENLARGER_U16, ENLARGER_F32})
        for (int channels : {1, 3}) {
            part.kind = kind, part.channels = channels, part.margin = 3;
            Ask divided = part;
            divided.row_blocks = 3, divided.column_blocks = 2, divided.threads = 3;
            for (const RandomNet *net : {&small, &chain}) same(*net, divided, computed(*net, part));
        }
    part.kind = ENLARGER_F32, part.margin = 0;
    for (const bool from_picture : {true, false}) {
        part.from_picture = from_picture, part.to_pixels = !from_picture;
        Ask divided = part;
        divided.row_blocks = 3, divided.column_blocks = 2, divided.threads = 3;
        same(small, divided, computed(small, part));
    }
}

void threads(int tiles) {
    compare_schedules(tiles, RandomNet({32, 1, 1}), 12, 63, {{1, 3, 2}, {2, 3, 4}});
    compare_schedules(tiles, RandomNet({32, 0, 1, 4}), 12, 63, {{2, 3, 4}});
}

#ifdef ENLARGER_TRAPPED_AMX
void emulate() {
    trap::install();
    const RandomNet small({32, 1, 1}), wide({64, 1, 2}), chain({32, 0, 1, 2});
    for (const auto &[net, height, width] :
         {std::tuple{&small, 1, 1}, {&small, 9, 21}, {&wide, 6, 10}, {&chain, 9, 21}}) {
        Ask ask{height, width, 1, 1, 2, ENLARGER_PORTABLE, ENLARGER_F32};
        const Bytes expected = computed(*net, ask);
        ask.tiles = ENLARGER_AMX;
        same(*net, ask, expected);
    }
    std::printf("%ld products trapped\n", trap::trapped);
    if (trap::trapped < 1000) fail("nothing was trapped: the portable tiles were compared with themselves");
}
#endif

void cancel(int tiles) {
    const RandomNet net({64, 2, 1});
    for (int round = 0; round < 5; ++round) computed(net, {60, 90, 3, 3, 3, tiles}, true);
}

// With the portable tiles, and with vectors where this processor has the instructions.
void each_kind(void (*run)(int tiles)) {
    for (int tiles : {ENLARGER_PORTABLE, ENLARGER_AVX512})
        if (enlarger_tiles_state(tiles) == ENLARGER_USABLE) run(tiles);
        else std::printf("tiles %d cannot be used here\n", tiles);
}

}  // namespace

int main(int count, char **words) {
    const char *word = count > 1 ? words[1] : "";
    if (!std::strcmp(word, "schedules")) each_kind(schedules);
    else if (!std::strcmp(word, "threads")) each_kind(threads);
    else if (!std::strcmp(word, "cancel")) each_kind(cancel);
#ifdef ENLARGER_TRAPPED_AMX
    else if (!std::strcmp(word, "trap")) emulate();
#endif
    else fail("which? schedules, threads, trap or cancel");
    std::printf("passed\n");
}
