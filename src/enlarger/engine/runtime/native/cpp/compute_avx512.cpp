// The kernel with tiles of AVX-512 BF16, compiled for processors that have it. What other files use too is included
// before the compiler is told so: see vectors.hpp.

#include "work.hpp"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 11

#include <cmath>
#include <immintrin.h>

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#define ENLARGER_WITH_AVX512

#include "stages.hpp"
#include "tiles_avx512.hpp"

namespace enlarger {
void (*const compute_avx512)(Work &, void *) = compute<Avx512Tiles>;
}

#else

namespace enlarger {
void (*const compute_avx512)(Work &, void *) = nullptr;
}

#endif
