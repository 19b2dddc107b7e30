// Memory, and the layout of feature maps.
//
// A feature map lies as rows; a row as chunks of 32 channels; a chunk as pixels, 64 bytes each:
//
//     row y:  │ chunk 0: pixel −1, 0, 1 … width − 1, width, 16 more │ chunk 1: … │
//
// Sixteen neighbouring pixels of a chunk are one tile, 1 KB in a row. Channels are joined for free: a convolution
// writes its chunk beside the others. The pixels −1 and `width` stay zero; the 16 beyond are read with the last tile
// of a row and only ever spoil sums that are thrown away. Of a ring, only the last few rows exist: row y is at y mod
// `ring`. Rows outside the picture are one row of zeros that everybody shares.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace enlarger {

constexpr int CHUNK = 32;       // channels
constexpr int TILE_PIXELS = 16;
constexpr int SPARE = TILE_PIXELS + 2;  // pixels of a row beside its own

// Zeroed memory, aligned to 64 bytes, given back at the end. Throws std::bad_alloc.
class Memory {
  public:
    Memory() = default;
    explicit Memory(std::size_t bytes) : bytes_(bytes) {
        if (bytes) allocate();
    }
    Memory(Memory &&other) noexcept { *this = std::move(other); }
    Memory &operator=(Memory &&other) noexcept {
        std::swap(bytes_, other.bytes_);
        std::swap(start_, other.start_);
        std::swap(mapped_, other.mapped_);
        std::swap(mapped_bytes_, other.mapped_bytes_);
        return *this;
    }
    ~Memory() { release(); }

    void *start() const { return start_; }

  private:
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
    void allocate() {
#ifdef ENLARGER_GUARD_PAGES  // a read or write past the end, or a page before the start, ends the process
        const std::size_t page = sysconf(_SC_PAGESIZE), used = (bytes_ + page - 1) / page * page, guard = page;
        const std::size_t gap = used - (bytes_ + 63) / 64 * 64;
#else
        const std::size_t used = bytes_, guard = 0, gap = 0;
#endif
        mapped_bytes_ = used + 2 * guard;
        void *mapped = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped == MAP_FAILED) throw std::bad_alloc();
        mapped_ = mapped;
        start_ = static_cast<char *>(mapped) + guard + gap;
        if (guard) {
            mprotect(mapped_, guard, PROT_NONE);
            mprotect(static_cast<char *>(mapped_) + guard + used, guard, PROT_NONE);
        } else {
            madvise(mapped_, mapped_bytes_, MADV_HUGEPAGE);
        }
    }
    void release() {
        if (mapped_) munmap(mapped_, mapped_bytes_);
    }
#else
    void allocate() {
        void *memory = nullptr;
        if (posix_memalign(&memory, 64, bytes_)) throw std::bad_alloc();
        start_ = mapped_ = std::memset(memory, 0, bytes_);
    }
    void release() { std::free(mapped_); }
#endif

    std::size_t bytes_ = 0, mapped_bytes_ = 0;
    void *start_ = nullptr, *mapped_ = nullptr;
};

// A feature map of bf16, or a ring of its last rows. `left` is the column of its first pixel.
struct Map {
    std::uint16_t *samples = nullptr;
    std::ptrdiff_t chunk_stride = 0;  // samples
    std::ptrdiff_t row_stride = 0;
    int ring = 1;
    int left = 0;

    static std::ptrdiff_t row_samples(int width, int chunks) {
        return std::ptrdiff_t{chunks} * (width + SPARE) * CHUNK;
    }

    static std::size_t bytes(int rows, int width, int chunks) { return rows * row_samples(width, chunks) * 2; }

    // A map over `memory`, which must hold bytes(rows, width, chunks).
    static Map over(void *memory, int rows, int left, int width, int chunks) {
        Map map;
        map.samples = static_cast<std::uint16_t *>(memory);
        map.chunk_stride = row_samples(width, 1);
        map.row_stride = row_samples(width, chunks);
        map.ring = rows;
        map.left = left;
        return map;
    }

    // The first chunk of the pixel; x may be one pixel outside.
    std::uint16_t *at(int y, int x) const {
        return samples + (y % ring) * row_stride + std::ptrdiff_t{x - left + 1} * CHUNK;
    }
};

// Rows [top, bottom) and columns [left, right).
struct Box {
    int top, bottom, left, right;

    // Grown by `halo` on all sides, but not beyond `within`.
    Box grown(int halo, const Box &within) const {
        return Box{top - halo, bottom + halo, left - halo, right + halo}.inside(within);
    }

    Box inside(const Box &within) const {
        return {top > within.top ? top : within.top, bottom < within.bottom ? bottom : within.bottom,
                left > within.left ? left : within.left, right < within.right ? right : within.right};
    }

    Box times(int factor) const { return {top * factor, bottom * factor, left * factor, right * factor}; }
    bool empty() const { return top >= bottom || left >= right; }
    int width() const { return right - left; }
    std::int64_t pixels() const { return empty() ? 0 : std::int64_t{bottom - top} * width(); }
};

}  // namespace enlarger
