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

float widened(std::uint16_t value) {
    const std::uint32_t bits = std::uint32_t{value} << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}

int divided_up(int value, int by) { return (value + by - 1) / by; }

// One convolution on its way into tiles: the weight of an output for an input at a position of the kernel.
struct Source {
    int outputs, inputs, kernel_width, kernel_height;
    std::function<float(int output, int input, int ky, int kx)> weight;
    const float *bias;
    const float *slopes = nullptr;

    int output_tiles() const { return divided_up(outputs, TILE_OUTPUTS); }
    std::size_t tiles() const {
        return std::size_t(output_tiles()) * divided_up(inputs, CHUNK) * kernel_width * kernel_height;
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

// The weights of one output for one input. What a tap loses when it is rounded, the taps right of it and below share, as
// the dots of a printed picture do (Floyd and Steinberg 1976): neighbouring pixels are alike, so that these errors cancel.
// Worth 0.8 dB of the result against f32 (x4plus and anime_6B, mean of ten pictures), and costs nothing while it runs.
void write_taps(const Source &source, int output, int input, std::uint16_t *to) {
    float carried[3][3] = {};
    for (int ky = 0; ky < source.kernel_height; ++ky)
        for (int kx = 0; kx < source.kernel_width; ++kx) {
            const float wanted = source.weight(output, input, ky, kx) + carried[ky][kx];
            const std::uint16_t written = rounded(wanted);
            const float lost = wanted - widened(written);
            const bool has_right = kx + 1 < source.kernel_width, has_below = ky + 1 < source.kernel_height;
            if (has_right) carried[ky][kx + 1] += has_below ? lost / 2 : lost;
            if (has_below) carried[ky + 1][kx] += has_right ? lost / 2 : lost;
            to[std::ptrdiff_t{kx * source.kernel_height + ky} * TILE_WEIGHTS] = written;
        }
}

// Into zeroed memory.
void write_tiles(const Source &source, std::uint16_t *to) {
    const int chunks = divided_up(source.inputs, CHUNK), taps = source.kernel_width * source.kernel_height;
    for (int output = 0; output < source.outputs; ++output)
        for (int input = 0; input < source.inputs; ++input) {
            const std::ptrdiff_t tile = std::ptrdiff_t{output / TILE_OUTPUTS * chunks + input / CHUNK} * taps;
            const int pair = input % CHUNK / 2, within = (pair * TILE_OUTPUTS + output % TILE_OUTPUTS) * 2 + input % 2;
            write_taps(source, output, input, to + tile * TILE_WEIGHTS + within);
        }
}

// Convolutions with the place that each will be found at, in the order of use.
using Convolutions = std::vector<std::pair<Source, Packed *>>;

// All of an RRDB net but the first.
Convolutions rrdb_convolutions(Net &net, const float *const *tensors) {
    Convolutions found;
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

// All of a chain but the first. Each but the last has its slopes behind weights and bias.
Convolutions chain_convolutions(Net &net, const float *const *tensors) {
    Convolutions found;
    for (Packed &packed : net.chain) {
        found.emplace_back(plain(tensors, net.features, net.features), &packed);
        found.back().first.slopes = tensors[2];
        tensors += 3;
    }
    found.emplace_back(plain(tensors, PICTURE_CHANNELS * SHUFFLED, net.features), &net.last);
    return found;
}

void pack_first(Net &net, const float *const *tensors) {
    const int taps = net.input_channels() * 9;
    net.first_bias.assign(tensors[1], tensors[1] + net.features);
    if (net.is_chain()) net.first_slopes.assign(tensors[2], tensors[2] + net.features);
    net.first_weights.resize(std::size_t(taps) * net.features);
    for (int output = 0; output < net.features; ++output)
        for (int tap = 0; tap < taps; ++tap)
            net.first_weights[std::size_t(tap) * net.features + output] = tensors[0][std::size_t(output) * taps + tap];
}

}  // namespace

void pack(Net &net, const float *const *tensors) {
    pack_first(net, tensors);
    net.dense.resize(std::size_t(net.dense_blocks()) * DENSE_CONVS);
    net.chain.resize(net.links);
    const auto found = net.is_chain() ? chain_convolutions(net, tensors + 3) : rrdb_convolutions(net, tensors + 2);
    std::size_t tiles = 0, output_tiles = 0;
    for (const auto &[source, packed] : found) {
        tiles += source.tiles();
        output_tiles += source.output_tiles();
    }
    net.tiles = Memory(tiles * TILE_WEIGHTS * sizeof(std::uint16_t));
    net.biases = Memory(output_tiles * TILE_OUTPUTS * sizeof(float));
    net.slopes = Memory(output_tiles * TILE_OUTPUTS * sizeof(float));
    auto *tile = static_cast<std::uint16_t *>(net.tiles.start());
    auto *bias = static_cast<float *>(net.biases.start());
    auto *slopes = static_cast<float *>(net.slopes.start());
    for (const auto &[source, packed] : found) {
        write_tiles(source, tile);
        std::copy(source.bias, source.bias + source.outputs, bias);
        if (source.slopes) std::copy(source.slopes, source.slopes + source.outputs, slopes);
        *packed = {tile, bias, slopes, source.output_tiles(), divided_up(source.inputs, CHUNK), source.kernel_width,
                   source.kernel_height};
        tile += source.tiles() * TILE_WEIGHTS;
        bias += std::size_t(packed->output_tiles) * TILE_OUTPUTS;
        slopes += std::size_t(packed->output_tiles) * TILE_OUTPUTS;
    }
}

}  // namespace enlarger
