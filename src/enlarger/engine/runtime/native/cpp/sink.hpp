// Where a result goes: into the caller's array, as integers or floats, without a copy in between.

#pragma once

#include <cmath>

#include "dense.hpp"

namespace {

class Sink {
  public:
    explicit Sink(const enlarger_sink &to) : to_(to) {}

    bool is_finite() const { return is_finite_; }

    // One pixel of the window's result. Those outside the sink are dropped.
    INLINE void write(int y, int x, float red, float green, float blue) {
        y -= to_.top, x -= to_.left;
        if (y < 0 || y >= to_.height || x < 0 || x >= to_.width) return;
        is_finite_ &= std::isfinite(red) & std::isfinite(green) & std::isfinite(blue);
        const std::ptrdiff_t at = y * to_.row_stride + x * to_.pixel_stride;
        if (to_.kind == ENLARGER_F32) return write_as<float>(at, red, green, blue, [](float value) { return value; });
        const float top = to_.kind == ENLARGER_U8 ? 255.0f : 65535.0f;
        auto integer = [top](float value) { return std::nearbyint(clamped(value) * top); };
        if (to_.kind == ENLARGER_U8) return write_as<std::uint8_t>(at, red, green, blue, integer);
        write_as<std::uint16_t>(at, red, green, blue, integer);
    }

    // One sample of features.
    INLINE void write(int channel, int y, int x, float value) {
        is_finite_ &= std::isfinite(value);
        const std::ptrdiff_t at = y * to_.row_stride + x * to_.pixel_stride + channel * to_.channel_stride;
        static_cast<float *>(to_.samples)[at] = value;
    }

  private:
    // NaN becomes 0: it is told apart, but must not be converted to an integer.
    static INLINE float clamped(float value) { return value > 0 ? (value < 1 ? value : 1) : 0; }

    template <class Sample, class Convert>
    INLINE void write_as(std::ptrdiff_t at, float red, float green, float blue, Convert convert) {
        auto *to = static_cast<Sample *>(to_.samples) + at;
        if (to_.channels == 1) {  // ITU-R BT.601
            *to = Sample(convert(clamped(red) * 0.299f + clamped(green) * 0.587f + clamped(blue) * 0.114f));
            return;
        }
        to[0] = Sample(convert(red));
        to[to_.channel_stride] = Sample(convert(green));
        to[2 * to_.channel_stride] = Sample(convert(blue));
    }

    const enlarger_sink to_;
    bool is_finite_ = true;
};

}  // namespace
