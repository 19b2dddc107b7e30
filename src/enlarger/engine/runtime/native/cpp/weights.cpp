#include "weights.hpp"

#include <algorithm>
#include <functional>

namespace enlarger {
namespace {

// To the nearest bfloat16, ties to even. Weights are finite.
std::uint16_t rounded(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

int divided_up(int value, int by) { return (value + by - 1) / by; }

// One convolution on its way into tiles: the weight of an output for an input at a position of the kernel.
struct Source {
    int outputs, inputs, kernel_width, kernel_height;
    std::function<float(int output, int input, int ky, int kx)> weight;
    const float *bias;

    std::size_t tiles() const {
        return std::size_t(divided_up(outputs, TILE_OUTPUTS)) * divided_up(inputs, CHUNK) * kernel_width *
               kernel_height;
    }
};

Source plain(const float *const *tensors, int outputs, int inputs) {
    const float *weights = tensors[0];
    auto weight = [=](int output, int input, int ky, int kx) {
        return weights[((std::ptrdiff_t{output} * inputs + input) * 3 + ky) * 3 + kx];
    };
    return {outputs, inputs, 3, 3, weight, tensors[1]};
}

// Which rows (or columns) of the 3×3 kernel fall on source pixel `tap` of the two that a phase sees. An even output
// lies on the upper half of its source pixel: kernel row 0 falls on the source pixel before, rows 1 and 2 on its own.
// An odd one: rows 0 and 1 on its own, row 2 on the next.
struct Range {
    int from, to;
};

Range merged(int phase, int tap) {
    if (phase == 0) return tap == 0 ? Range{0, 1} : Range{1, 3};
    return tap == 0 ? Range{0, 2} : Range{2, 3};
}

Source phase_of(const Source &whole, int row_phase, int column_phase) {
    auto weight = [=](int output, int input, int tap_y, int tap_x) {
        const Range rows = merged(row_phase, tap_y), columns = merged(column_phase, tap_x);
        float sum = 0;
        for (int ky = rows.from; ky < rows.to; ++ky)
            for (int kx = columns.from; kx < columns.to; ++kx) sum += whole.weight(output, input, ky, kx);
        return sum;
    };
    return {whole.outputs, whole.inputs, 2, 2, weight, whole.bias};
}

void write_tiles(const Source &source, std::uint16_t *to) {
    const int chunks = divided_up(source.inputs, CHUNK);
    for (int first = 0; first < source.outputs; first += TILE_OUTPUTS)
        for (int chunk = 0; chunk < chunks; ++chunk)
            for (int kx = 0; kx < source.kernel_width; ++kx)
                for (int ky = 0; ky < source.kernel_height; ++ky)
                    for (int pair = 0; pair < CHUNK / 2; ++pair)
                        for (int n = 0; n < TILE_OUTPUTS; ++n)
                            for (int odd = 0; odd < 2; ++odd, ++to) {
                                const int output = first + n, input = chunk * CHUNK + 2 * pair + odd;
                                const bool exists = output < source.outputs && input < source.inputs;
                                *to = exists ? rounded(source.weight(output, input, ky, kx)) : 0;
                            }
}

// All convolutions but the first, with the place that each will be found at, in the order of use.
std::vector<std::pair<Source, Packed *>> convolutions(Net &net, const float *const *tensors) {
    std::vector<std::pair<Source, Packed *>> found;
    auto next = [&tensors, &found](int outputs, int inputs, Packed *packed) {
        found.emplace_back(plain(tensors, outputs, inputs), packed);
        tensors += 2;
    };
    auto next_phases = [&](Phases &phases) {
        const Source whole = plain(tensors, net.features, net.features);
        tensors += 2;
        for (int phase = 0; phase < 4; ++phase) found.emplace_back(phase_of(whole, phase / 2, phase % 2), &phases[phase]);
    };
    for (std::size_t index = 0; index < net.dense.size(); ++index) {
        const int position = index % DENSE_CONVS;
        const bool is_last = position == DENSE_CONVS - 1;
        next(is_last ? net.features : GROWTH, net.features + GROWTH * position, &net.dense[index]);
    }
    next(net.features, net.features, &net.body);
    next_phases(net.up1);
    next_phases(net.up2);
    next(net.features, net.features, &net.hr);
    next(PICTURE_CHANNELS, net.features, &net.last);
    return found;
}

void pack_first(Net &net, const float *const *tensors) {
    const int taps = net.input_channels() * 9;
    net.first_bias.assign(tensors[1], tensors[1] + net.features);
    net.first_weights.resize(std::size_t(taps) * net.features);
    for (int output = 0; output < net.features; ++output)
        for (int tap = 0; tap < taps; ++tap)
            net.first_weights[std::size_t(tap) * net.features + output] = tensors[0][std::size_t(output) * taps + tap];
}

}  // namespace

void pack(Net &net, const float *const *tensors) {
    pack_first(net, tensors);
    net.dense.resize(std::size_t(net.dense_blocks()) * DENSE_CONVS);
    const auto found = convolutions(net, tensors + 2);
    std::size_t tiles = 0, output_tiles = 0;
    for (const auto &[source, packed] : found) {
        tiles += source.tiles();
        output_tiles += divided_up(source.outputs, TILE_OUTPUTS);
    }
    net.tiles = Memory(tiles * TILE_WEIGHTS * sizeof(std::uint16_t));
    net.biases = Memory(output_tiles * TILE_OUTPUTS * sizeof(float));
    auto *tile = static_cast<std::uint16_t *>(net.tiles.start());
    auto *bias = static_cast<float *>(net.biases.start());
    for (const auto &[source, packed] : found) {
        write_tiles(source, tile);
        std::copy(source.bias, source.bias + source.outputs, bias);
        *packed = {tile, bias, divided_up(source.outputs, TILE_OUTPUTS), divided_up(source.inputs, CHUNK),
                   source.kernel_width, source.kernel_height};
        tile += source.tiles() * TILE_WEIGHTS;
        bias += std::size_t(packed->output_tiles) * TILE_OUTPUTS;
    }
}

}  // namespace enlarger
