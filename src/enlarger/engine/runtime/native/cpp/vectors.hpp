// Sixteen floats, and bfloat16.
//
// Everything here has internal linkage on purpose: each backend is a translation unit compiled for another processor,
// and a function shared between them by the linker could hold instructions that this machine does not have.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE__)
#include <immintrin.h>
#endif

namespace {

using bf16 = std::uint16_t;  // the upper half of a float
typedef float F16 __attribute__((vector_size(64)));
typedef std::uint32_t U16 __attribute__((vector_size(64)));
typedef std::int32_t I16 __attribute__((vector_size(64)));
typedef std::uint16_t H16 __attribute__((vector_size(32)));

#define INLINE inline __attribute__((always_inline))

INLINE F16 load(const float *from) {
    F16 value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

INLINE void store(float *to, F16 value) { std::memcpy(to, &value, sizeof value); }

INLINE F16 load(const bf16 *from) {
    H16 halves;
    std::memcpy(&halves, from, sizeof halves);
    return (F16)(__builtin_convertvector(halves, U16) << 16);
}

// To the nearest, ties to even; denormals become zero and NaN stays NaN, as vcvtneps2bf16 does it.
INLINE void store(bf16 *to, F16 value) {
#ifdef ENLARGER_WITH_AVX512
    const __m256bh halves = _mm512_cvtneps_pbh((__m512)value);
#else
    const U16 bits = (U16)value;
    const U16 nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const U16 kept = (U16)(value != value) & ((bits >> 16) | 0x40);
    const U16 normal = (U16)((bits & 0x7f800000) != 0) & (U16)(value == value);
    const U16 sign = (bits >> 16) & 0x8000;
    const H16 halves = __builtin_convertvector((nearest & normal) | (sign & ~normal) | kept, H16);
#endif
    std::memcpy(to, &halves, sizeof halves);
}

INLINE F16 larger(F16 a, F16 b) { return (F16)(((U16)a & (U16)(a > b)) | ((U16)b & ~(U16)(a > b))); }

constexpr float SLOPE = 0.2f;     // of every LeakyReLU
constexpr float RESIDUAL = 0.2f;  // share of a block's output that is added to its input

// A slope below 1 makes the larger of the two the right one.
INLINE F16 leaky_relu(F16 x) { return larger(x, x * SLOPE); }

// The tile unit treats denormals as zero; so does the rest of a thread that has called this.
INLINE void ignore_denormals() {
#ifdef __SSE__
    _mm_setcsr(_mm_getcsr() | 0x8040);  // flush to zero, denormals are zero
#endif
}

}  // namespace
