// The most that AMX does on this machine with nothing but products in it: a loop of two tile loads and four products,
// as in the kernel, over data in the nearest cache.
//
//     amx_ceiling THREADS zero|random     → TFLOP/s of all threads together
//
// On zeros the clock stays higher, so a share of that ceiling would be too small, and one of zeros alone flatters.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include <sys/syscall.h>
#include <unistd.h>

#include "tiles_amx.hpp"

namespace {

constexpr int TILE_BYTES = 1024, TILES = 24;
constexpr long ROUNDS = 2'000'000;
constexpr double OPERATIONS = 4 * 2.0 * 16 * 16 * 32;  // of the products of a round

void multiply(const char *data) {
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
}

}  // namespace

int main(int count, char **words) {
    if (count != 3) return 2;
    const int threads = std::atoi(words[1]);
    if (syscall(SYS_arch_prctl, 0x1023, 18)) return 3;  // see may_use_tiles in interface.cpp
    alignas(64) static char data[TILES * TILE_BYTES] = {};
    if (!std::strcmp(words[2], "random")) {
        std::mt19937 random;
        for (int i = 0; i + 1 < int(sizeof data); i += 2) {
            const float value = std::uniform_real_distribution<float>(-1, 1)(random);
            std::memcpy(data + i, reinterpret_cast<const char *>(&value) + 2, 2);  // its upper half is a bfloat16
        }
    }
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> team;
    for (int i = 0; i < threads; ++i) team.emplace_back(multiply, data);
    for (std::thread &thread : team) thread.join();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf("%.4f\n", threads * ROUNDS * OPERATIONS / seconds.count() / 1e12);
}
