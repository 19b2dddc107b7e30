// The weights of a net in the order in which the convolutions read them.
//
// A packed convolution is a sequence of B tiles, 1 KB each, without gaps:
//
//     for every 16 outputs │ for every chunk of 32 inputs │ for kx │ for ky │ one tile
//
// Row k of a tile holds, for each of the 16 outputs, the weights of inputs 2k and 2k + 1 side by side, as the tile
// unit multiplies pairs. Outputs and inputs that do not exist have zero weights. Biases and slopes stay f32, 16 a tile.

#pragma once

#include <cstdint>
#include <vector>

#include "planes.hpp"

namespace enlarger {

constexpr int TILE_OUTPUTS = 16;
constexpr int TILE_WEIGHTS = 512;  // bf16 in a tile
constexpr int GROWTH = 32;         // channels a convolution inside a dense block adds
constexpr int DENSE_CONVS = 5;
constexpr int DENSE_BLOCKS = 3;    // in one RRDB
constexpr int PICTURE_CHANNELS = 3;
constexpr int SHUFFLED = 16;       // outputs of a chain that are the pixels of one colour

struct Packed {
    const std::uint16_t *tiles = nullptr;
    const float *bias = nullptr;
    const float *slopes = nullptr;  // where a PReLU follows
    int output_tiles = 0;
    int chunks = 0;
    int kernel_width = 0, kernel_height = 0;

    const std::uint16_t *at(int output_tile) const {
        return tiles + std::ptrdiff_t{output_tile} * chunks * kernel_width * kernel_height * TILE_WEIGHTS;
    }
};

// A convolution after nearest ×2 enlargement sees each source pixel twice or more. Its outputs of one phase, those at
// even or odd rows and columns, are a 2×2 convolution of the source with sums of its weights: 4/9 of the products.
// Index: 2 · row phase + column phase.
using Phases = Packed[4];

// An RRDB net, or a chain of convolutions (chain.hpp).
struct Net {
    int features, blocks, unshuffle;
    int links = 0;  // of a chain: its convolutions but for the first and the last

    int chunks() const { return features / CHUNK; }
    bool is_chain() const { return links > 0; }
    int dense_blocks() const { return DENSE_BLOCKS * blocks; }
    int input_channels() const { return PICTURE_CHANNELS * unshuffle * unshuffle; }

    // conv_first stays f32, as the picture comes: (channel, ky, kx) → all outputs.
    std::vector<float> first_weights, first_bias, first_slopes;
    std::vector<Packed> dense;  // DENSE_CONVS for every dense block
    std::vector<Packed> chain;
    Packed body, hr, last;
    Phases up1, up2;

    Memory tiles, biases, slopes;
};

// See enlarger_net_pack and enlarger_chain_pack. Throws std::bad_alloc.
void pack(Net &net, const float *const *tensors);

}  // namespace enlarger
