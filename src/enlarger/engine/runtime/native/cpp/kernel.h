// The plain C interface of the native kernel: RRDBNet and SRVGGNetCompact in bf16 with f32 sums (see conv.hpp for where to
// start reading).
//
// A net is weights, packed once. A work is one window computed with it by threads of its own; whoever started it
// waits in small steps, and may cancel between them. Nothing here throws, prints, or keeps state between works.

#pragma once

#include <stdint.h>

#define ENLARGER_KERNEL_INTERFACE 2

#ifdef __cplusplus
extern "C" {
#endif

// What multiplies the tiles.
enum { ENLARGER_AMX = 0, ENLARGER_PORTABLE = 1, ENLARGER_AVX512 = 2 };

// Whether it can be used here.
enum {
    ENLARGER_USABLE = 0,
    ENLARGER_NOT_BUILT = 1,  // the compiler that built this does not know the instructions
    ENLARGER_NO_SUCH_CPU = 2,
    ENLARGER_NOT_ALLOWED = 3,  // the system does not let this process use the tile registers
};

enum { ENLARGER_DONE = 0, ENLARGER_RUNNING = 1, ENLARGER_BAD_ARGUMENT = 2, ENLARGER_NO_MEMORY = 3 };

enum { ENLARGER_F32 = 0, ENLARGER_U8 = 1, ENLARGER_U16 = 2 };

typedef struct enlarger_net enlarger_net;
typedef struct enlarger_work enlarger_work;

// Where samples go. Strides count samples. Integers are clamped to [0, 1], scaled and rounded half to even;
// one channel is the BT.601 luma of the three clamped ones. The sink is a rectangle of the window's whole result,
// whose pixel (top, left) is its first.
typedef struct {
    void *samples;
    int32_t kind;
    int32_t channels;
    int32_t top, left, height, width;
    int64_t row_stride, pixel_stride, channel_stride;
} enlarger_sink;

// A window: `height` × `width` pixels of features. Cuts divide it into blocks: 0 < … < height, `row_blocks` + 1
// numbers, and the same for the columns. Where there are several, none is smaller than the constants below.
// With `from_picture` the input is RGB (3, u·height, u·width), u = unshuffle, and the trunk is computed; otherwise it
// is features (c, height, width). With `to_pixels` the tail is computed and the sink takes RGB of 4 × the size;
// otherwise the sink takes features in f32.
typedef struct {
    int32_t height, width;
    int32_t row_blocks, column_blocks;
    const int32_t *row_cuts, *column_cuts;
    int32_t threads;
    int32_t from_picture, to_pixels;
    const float *input;
    enlarger_sink sink;
} enlarger_window;

// A block reads 5 pixels beyond its sides, and 15 more to the right with the last tile of a row: never beyond the
// blocks around it, which the threads are in step with.
#define ENLARGER_SMALLEST_ROWS 5
#define ENLARGER_SMALLEST_COLUMNS 20

int enlarger_kernel_interface(void);

// Asks the system for the tile registers where that is needed. Any thread started later may use them.
int enlarger_tiles_state(int tiles);

// `tensors` in module order, weight (out, in, 3, 3) before bias: conv_first, the five convolutions of every dense
// block, conv_body, conv_up1, conv_up2, conv_hr, conv_last. `features` is a multiple of 32, growth is 32.
int enlarger_net_pack(
    enlarger_net **net, int32_t features, int32_t blocks, int32_t unshuffle, const float *const *tensors);

// The same for a chain: a first convolution, `links` more and a last one. `tensors` in module order: weight, bias and
// slopes of each but the last, which has weight and bias. Its windows go from picture to pixels.
int enlarger_chain_pack(enlarger_net **net, int32_t features, int32_t links, const float *const *tensors);

void enlarger_net_free(enlarger_net *net);

// Starts threads that compute the window. Input, sink and net must outlive the work; the cuts are copied.
int enlarger_work_start(
    enlarger_work **work, const enlarger_net *net, int tiles, const enlarger_window *window);

// Waits until the work has ended, or for so long. `share` becomes the part of the work that is done, 0 to 1.
int enlarger_work_wait(enlarger_work *work, int32_t milliseconds, double *share);

// Ends the work at the next few rows, joins its threads and frees it. Returns 1 where all values so far were finite.
int enlarger_work_end(enlarger_work *work);

// Bytes a window takes while it is computed, its input and sink not counted.
int64_t enlarger_work_bytes(const enlarger_net *net, const enlarger_window *window);

#ifdef __cplusplus
}
#endif
