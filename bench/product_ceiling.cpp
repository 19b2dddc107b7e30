// The most that AMX or AVX-512 BF16 does on this machine with nothing but products in it.
//
//     product_ceiling amx|avx512 THREADS zero|random     → TFLOP/s of all threads together
//
// AMX: a loop of two tile loads and four products, as in the kernel, over data in the nearest cache. AVX-512: sixteen
// sums, four rows of weights and four pairs of inputs, all in registers. On zeros the clock stays higher, so a share of
// that ceiling would be too small, and one of zeros alone flatters.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#pragma GCC target("avx512f,avx512bf16")

#include "tiles_amx.hpp"

namespace {

constexpr int TILE_BYTES = 1024, TILES = 24;
constexpr long ROUNDS = 2'000'000;
constexpr double TILE_PRODUCTS = 2.0 * 16 * 16 * 32, VECTOR_PRODUCTS = 2.0 * 16 * 2;  // operations

// Both return the operations they made.
double with_tiles(const char *data) {
    AmxTiles tiles;
    tiles.configure();
    for (long round = 0; round < ROUNDS; ++round) {
        const char *at = data + round % (TILES / 2) * 2 * TILE_BYTES;
        tiles.load<6>(at, 64);
        tiles.load<7>(at + TILE_BYTES, 64);
        tiles.multiply<0, 6, 7>();
        tiles.multiply<1, 6, 7>();
        tiles.multiply<2, 6, 7>();
        tiles.multiply<3, 6, 7>();
    }
    tiles.release();
    return ROUNDS * 4 * TILE_PRODUCTS;
}

double with_vectors(const char *data) {
    __m512 sum[16];
    __m512bh row[4], pair[4];
    for (int i = 0; i < 4; ++i) {
        row[i] = (__m512bh)_mm512_loadu_si512(data + 64 * i);
        pair[i] = (__m512bh)_mm512_set1_epi32(reinterpret_cast<const int *>(data)[64 + i]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) sum[i] = _mm512_setzero_ps();
    constexpr long REPEATS = 16 * ROUNDS;
    for (long round = 0; round < REPEATS; ++round) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], row[i / 4], pair[i % 4]);
    }
    float used = 0;
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) used += _mm512_reduce_add_ps(sum[i]);
    volatile float kept = used;
    (void)kept;
    return REPEATS * 16 * VECTOR_PRODUCTS;
}

}  // namespace

int main(int count, char **words) {
    if (count != 4) return 2;
    const bool has_tiles = !std::strcmp(words[1], "amx");
    const int threads = std::atoi(words[2]);
    if (has_tiles && syscall(SYS_arch_prctl, 0x1023, 18)) return 3;  // see may_use_tiles in interface.cpp
    alignas(64) static char data[TILES * TILE_BYTES] = {};
    if (!std::strcmp(words[3], "random")) {
        std::mt19937 random;
        for (int i = 0; i + 1 < int(sizeof data); i += 2) {
            const float value = std::uniform_real_distribution<float>(-1, 1)(random);
            std::memcpy(data + i, reinterpret_cast<const char *>(&value) + 2, 2);  // its upper half is a bfloat16
        }
    }
    std::vector<double> operations(threads);
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> team;
    for (int i = 0; i < threads; ++i)
        team.emplace_back([&, i] { operations[i] = has_tiles ? with_tiles(data) : with_vectors(data); });
    for (std::thread &thread : team) thread.join();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    double all = 0;
    for (double one : operations) all += one;
    std::printf("%.4f\n", all / seconds.count() / 1e12);
}
