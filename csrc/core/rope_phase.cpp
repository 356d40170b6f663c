#include "rope_phase.hpp"

namespace ggufext::rope {
namespace {

// 1/(2π), binary digits behind the point, most significant word first.
constexpr int kWords = 18;
constexpr uint64_t kInverseTurn[kWords] = {
    0x28be60db9391054a, 0x7f09d5f47d4d3770, 0x36d8a5664f10e410, 0x7f9458eaf7aef158,
    0x6dc91b8e909374b8, 0x01924bba82746487, 0x3f877ac72c4a69cf, 0xba208d7d4baed121,
    0x3a671c09ad17df90, 0x4e64758e60d4ce7d, 0x272117e2ef7e4a0e, 0xc7fe25fff7816603,
    0xfbcbc462d6829b47, 0xdb4d9fb3c9f2c26d, 0xd3d18fd9a797fa8b, 0x5d49eeb1faf97c5e,
    0xcf41ce7de294a4ba, 0x9afed7ec47e35742,
};

uint64_t word(int64_t index) { return index >= 0 && index < kWords ? kInverseTurn[index] : 0; }

/// 64 digits of 1/(2π) from digit `first` on; digit 0 stands behind the point, those before are 0.
uint64_t digits(int64_t first) {
  const int64_t index = first >= 0 ? first / 64 : -((63 - first) / 64);
  const int64_t shift = first - index * 64;
  return shift == 0 ? word(index) : (word(index) << shift) | (word(index + 1) >> (64 - shift));
}

}  // namespace

uint64_t phase_step(double radians_per_token) {
  if (radians_per_token == 0) return 0;
  int exponent = 0;
  const double significand = std::frexp(radians_per_token, &exponent);
  const auto integer = static_cast<uint64_t>(std::ldexp(significand, 53));
  // integer · 2^(exponent − 53) / (2π) · 2^64: whole digits end, and the 64 that decide the
  // rounding begin, at digit exponent + 11.
  const int64_t point = exponent + 11;
  const uint64_t whole = digits(point - 64);
  const uint64_t rest = digits(point);
  const auto carry = static_cast<unsigned __int128>(integer) * rest;
  const auto rounded = (carry + (static_cast<unsigned __int128>(1) << 63)) >> 64;
  return integer * whole + static_cast<uint64_t>(rounded);
}

}  // namespace ggufext::rope
