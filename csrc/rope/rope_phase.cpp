#include "rope_phase.hpp"

#include <cstring>

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

/// a·b / 2^64, rounded to nearest, without a type of 128 bits. The result must not overflow.
uint64_t rounded_high_product(uint64_t a, uint64_t b) {
  const uint64_t a_high = a >> 32, a_low = a & 0xffffffff;
  const uint64_t b_high = b >> 32, b_low = b & 0xffffffff;
  const uint64_t middle = a_high * b_low + (a_low * b_low >> 32);
  const uint64_t lower_middle = a_low * b_high + (middle & 0xffffffff);
  const uint64_t high = a_high * b_high + (middle >> 32) + (lower_middle >> 32);
  // Half a unit is the highest bit of the lower half, which is bit 31 of its upper word.
  return high + (lower_middle >> 31 & 1);
}

}  // namespace

uint64_t phase_step(double radians_per_token) {
  uint64_t bits;
  std::memcpy(&bits, &radians_per_token, sizeof bits);
  const auto biased = static_cast<int64_t>(bits >> 52 & 0x7ff);
  const uint64_t fraction = bits & 0xfffffffffffff;
  const uint64_t integer = biased == 0 ? fraction : fraction | uint64_t{1} << 52;
  // The frequency is integer · 2^(exponent − 1075). Of its product with 1/(2π) · 2^64, whole digits
  // end, and the 64 that decide the rounding begin, at this digit:
  const int64_t point = (biased == 0 ? 1 : biased) - 1075 + 64;
  return integer * digits(point - 64) + rounded_high_product(integer, digits(point));
}

}  // namespace ggufext::rope
