// Exact angles. An angle p·ω is kept as a fraction of a full turn in 64-bit fixed point, so that
// p·ω mod 2π costs one integer multiplication that wraps by itself: exact at any position. What is
// left for floating point lies within an eighth of a turn.
//
// Plain arithmetic, shared by the CPU kernels, the CUDA kernels and the tests that evaluate the
// CUDA mathematics on the host.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define GGUFEXT_HOST_DEVICE __host__ __device__
#else
#define GGUFEXT_HOST_DEVICE
#endif

namespace ggufext::rope {

/// Turns per token of a frequency in radians per token, times 2^64, modulo 2^64, rounded to
/// nearest. Exact for every finite double ≥ 0: the bits of 1/(2π) that matter are cut out of a
/// table (Payne and Hanek's reduction).
uint64_t phase_step(double radians_per_token);

/// Polynomials for |y| ≤ 1/2, z = y²: interpolants at Chebyshev nodes in z.
///   sin(πy/2) = y·(π/2 + z·(kSin3 + z·(kSin5 + z·kSin7))), within 1.0e-8
///   cos(πy/2) = 1 + z·(kCos2 + z·(kCos4 + z·(kCos6 + z·kCos8))), within 2.0e-10
/// π/2 is split in two because its rounding to float alone would cost 2e-8.
constexpr float kQuarterTurn = 1.57079637050628662109375f;
constexpr float kQuarterTurnRest = -4.37113900018624283e-8f;
constexpr float kSin3 = -0.645964019822f;
constexpr float kSin5 = 0.0796870312242f;
constexpr float kSin7 = -0.00462196673223f;
constexpr float kCos2 = -1.23370054937f;
constexpr float kCos4 = 0.253669410357f;
constexpr float kCos6 = -0.0208615283422f;
constexpr float kCos8 = 0.000906739898403f;
/// Quarter turns per unit of a 32-bit fraction of a turn: 2^-30.
constexpr float kQuarterTurnPerUnit = 1.0f / 1073741824.0f;

struct CosSin {
  float cos;
  float sin;
};

/// Cosine and sine of `position` steps, within 1.5e-7, times the attention factor, which is given
/// in two floats (`factor` + `factor_rest`) so that its rounding adds no error of its own.
GGUFEXT_HOST_DEVICE inline CosSin cos_sin(uint64_t step, uint32_t position, float factor,
                                          float factor_rest) {
  const auto fraction = static_cast<uint32_t>((step * position + 0x80000000u) >> 32);
  const uint32_t quadrant = (fraction + 0x20000000u) >> 30;
  const float y =
      static_cast<float>(static_cast<int32_t>(fraction - (quadrant << 30))) * kQuarterTurnPerUnit;
  const float z = y * y;
  const float sin_tail = fmaf(z, fmaf(z, fmaf(z, kSin7, kSin5), kSin3), kQuarterTurnRest);
  const float s = fmaf(y, kQuarterTurn, y * sin_tail);
  const float c = fmaf(z, fmaf(z, fmaf(z, fmaf(z, kCos8, kCos6), kCos4), kCos2), 1.0f);
  const float cos_value = (quadrant & 1) ? s : c;
  const float sin_value = (quadrant & 1) ? c : s;
  const float cos_scaled = fmaf(cos_value, factor, cos_value * factor_rest);
  const float sin_scaled = fmaf(sin_value, factor, sin_value * factor_rest);
  return {((quadrant + 1) & 2) ? -cos_scaled : cos_scaled,
          (quadrant & 2) ? -sin_scaled : sin_scaled};
}

}  // namespace ggufext::rope
