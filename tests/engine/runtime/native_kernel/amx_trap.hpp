// AMX for processors that have none: each of its instructions ends in SIGILL here, is taken apart, carried out as the
// Intel SDM describes it, and skipped. It shows that the very instructions of the kernel, with their registers, strides
// and configuration, compute what they should. Only what the kernel uses is known; anything else ends the process.

#pragma once

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <ucontext.h>

namespace trap {

struct Tile {
    unsigned char bytes[16][64];
};

struct Unit {
    bool is_configured = false;
    int rows[8] = {}, row_bytes[8] = {};
    Tile tiles[8] = {};
};

inline thread_local Unit unit;
inline long trapped = 0;  // products, by all threads; may lose a count

[[noreturn]] inline void refuse(const char *why, const unsigned char *at) {
    std::fprintf(stderr, "%s: %02x %02x %02x %02x %02x %02x\n", why, at[0], at[1], at[2], at[3], at[4], at[5]);
    std::abort();
}

inline std::uint64_t general(const ucontext_t *context, int index) {
    static const int registers[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                      REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return context->uc_mcontext.gregs[registers[index]];
}

// A memory operand: its address (base + displacement), its index register for tiles, and the bytes it took.
struct Operand {
    std::uint64_t base = 0, stride = 0;
    int length = 1;  // with the ModRM byte
};

inline Operand memory_operand(const ucontext_t *context, const unsigned char *modrm, int x_bit, int b_bit) {
    Operand found;
    const int mod = *modrm >> 6, rm = *modrm & 7;
    int base = rm + 8 * b_bit;
    if (rm == 4) {
        const int sib = modrm[1], scale = sib >> 6, index = (sib >> 3 & 7) + 8 * x_bit;
        base = (sib & 7) + 8 * b_bit;
        ++found.length;
        if (index != 4) found.stride = general(context, index) << scale;
    }
    if (mod == 0 && (base & 7) == 5) refuse("an address the trap does not know", modrm);
    found.base = general(context, base);
    if (mod == 1) found.base += std::int64_t(std::int8_t(modrm[found.length]));
    if (mod == 2) {
        std::int32_t displacement;
        std::memcpy(&displacement, modrm + found.length, 4);
        found.base += std::int64_t(displacement);
    }
    found.length += mod == 1 ? 1 : mod == 2 ? 4 : 0;
    return found;
}

inline void configure(const unsigned char *config) {
    Unit fresh;
    if (config[0] != 1) refuse("not palette 1", config);
    for (int t = 0; t < 8; ++t) {
        std::uint16_t bytes;
        std::memcpy(&bytes, config + 16 + 2 * t, 2);
        fresh.row_bytes[t] = bytes;
        fresh.rows[t] = config[48 + t];
    }
    fresh.is_configured = true;
    unit = fresh;
}

inline float widened(std::uint16_t half) {
    const std::uint32_t bits = (half & 0x7f80) ? std::uint32_t(half) << 16 : std::uint32_t(half & 0x8000) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline void multiply(int c, int a, int b) {
    for (int m = 0; m < unit.rows[c]; ++m) {
        float sums[32] = {};
        for (int k = 0; k < unit.row_bytes[a] / 4; ++k)
            for (int n = 0; n < unit.row_bytes[c] / 4; ++n)
                for (int half = 0; half < 2; ++half) {
                    std::uint16_t left, right;
                    std::memcpy(&left, &unit.tiles[a].bytes[m][4 * k + 2 * half], 2);
                    std::memcpy(&right, &unit.tiles[b].bytes[k][4 * n + 2 * half], 2);
                    sums[2 * n + half] += widened(left) * widened(right);  // the product is exact
                }
        for (int n = 0; n < unit.row_bytes[c] / 4; ++n) {
            float sum;
            std::memcpy(&sum, &unit.tiles[c].bytes[m][4 * n], 4);
            sum += sums[2 * n] + sums[2 * n + 1];
            std::memcpy(&unit.tiles[c].bytes[m][4 * n], &sum, 4);
        }
    }
    ++trapped;
}

inline void move(int tile, const Operand &memory, bool is_load) {
    Tile &registers = unit.tiles[tile];
    for (int row = 0; row < unit.rows[tile]; ++row) {
        auto *at = reinterpret_cast<unsigned char *>(memory.base + row * memory.stride);
        if (is_load) std::memcpy(registers.bytes[row], at, unit.row_bytes[tile]);
        else std::memcpy(at, registers.bytes[row], unit.row_bytes[tile]);
    }
}

// VEX.128 with map 0F38: C4, then R X B and the map, then W, vvvv, L and the prefix, the opcode, ModRM.
inline void on_illegal(int, siginfo_t *, void *raw) {
    auto *context = static_cast<ucontext_t *>(raw);
    auto *at = reinterpret_cast<unsigned char *>(context->uc_mcontext.gregs[REG_RIP]);
    if (at[0] != 0xc4 || (at[1] & 0x1f) != 2 || (at[2] & 0x84) != 0) refuse("not an instruction of AMX", at);
    const int x_bit = !(at[1] & 0x40), b_bit = !(at[1] & 0x20), prefix = at[2] & 3, opcode = at[3];
    const int vvvv = ~(at[2] >> 3) & 15, reg = at[4] >> 3 & 7, rm = at[4] & 7;
    const bool names_memory = at[4] >> 6 != 3;
    int length = 1;
    if (opcode == 0x49 && prefix == 0 && !names_memory) {
        unit = Unit();
    } else if (opcode == 0x49 && prefix == 0) {
        const Operand memory = memory_operand(context, at + 4, x_bit, b_bit);
        configure(reinterpret_cast<const unsigned char *>(memory.base));
        length = memory.length;
    } else if (!unit.is_configured) {
        refuse("no configuration", at);
    } else if (opcode == 0x4b && (prefix == 3 || prefix == 2) && names_memory) {
        const Operand memory = memory_operand(context, at + 4, x_bit, b_bit);
        move(reg, memory, prefix == 3);
        length = memory.length;
    } else if (opcode == 0x5c && prefix == 2 && !names_memory) {
        multiply(reg, rm, vvvv);
    } else {
        refuse("an instruction the trap does not know", at);
    }
    context->uc_mcontext.gregs[REG_RIP] += 4 + length;
}

inline void install() {
    struct sigaction action = {};
    action.sa_sigaction = on_illegal;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGILL, &action, nullptr);
}

}  // namespace trap
