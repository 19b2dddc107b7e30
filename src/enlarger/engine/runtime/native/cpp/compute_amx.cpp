// The kernel with the tiles of AMX, compiled for processors that have it, and AVX-512 with it. What other files use too
// is included before the compiler is told so: see vectors.hpp.

#include "work.hpp"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 11

#include <cmath>
#include <immintrin.h>

#ifndef ENLARGER_TRAPPED_AMX  // the tests emulate the instructions of AMX, but not those of AVX-512
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#define ENLARGER_WITH_AVX512  // gcc before 13 does not define its own names for these in C++
#endif

#include "stages.hpp"
#include "tiles_amx.hpp"

namespace enlarger {
void (*const compute_amx)(Work &, void *) = compute<AmxTiles>;
}

#else

namespace enlarger {
void (*const compute_amx)(Work &, void *) = nullptr;
}

#endif
