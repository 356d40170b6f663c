// Vectors of W floats and how each element type is loaded into and stored from them. Included by
// the kernel files only: every name has internal linkage, because each file is compiled for another
// instruction set and the linker must not mix them. For the same reason nothing of the C++
// standard library is used here.
#pragma once

#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace ggufext::rope {
namespace {

template <int W>
struct Lanes {
  typedef float Float __attribute__((vector_size(4 * W)));
  typedef int32_t Int __attribute__((vector_size(4 * W)));
  typedef uint32_t Word __attribute__((vector_size(4 * W)));
  typedef uint16_t Half __attribute__((vector_size(2 * W)));
};

template <int W>
using Float = typename Lanes<W>::Float;
template <int W>
using Int = typename Lanes<W>::Int;
template <int W>
using Word = typename Lanes<W>::Word;
template <int W>
using Half = typename Lanes<W>::Half;

template <class V>
inline V read(const void* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

template <class V>
inline void write(void* to, V value) {
  __builtin_memcpy(to, &value, sizeof value);
}

/// All ones where the condition holds, as vector comparisons give it.
template <int W>
inline Word<W> choose(Int<W> condition, Word<W> yes, Word<W> no) {
  const Word<W> mask = (Word<W>)condition;
  return (mask & yes) | (~mask & no);
}

template <int W>
inline Word<W> widen(Half<W> half) {
  return __builtin_convertvector(half, Word<W>);
}

template <int W>
inline Half<W> narrow(Word<W> word) {
  return __builtin_convertvector(word, Half<W>);
}

struct Float32 {
  static constexpr int kSize = 4;
  template <int W>
  static Float<W> load(const char* from) {
    return read<Float<W>>(from);
  }
  template <int W>
  static void store(char* to, Float<W> value) {
    write(to, value);
  }
};

/// Rounds to nearest even by adding just under half a unit. AVX-512's own conversion flushes
/// subnormal numbers to zero, so it is not used. A NaN stays one: its lower half is zero, because
/// it came from a bfloat16 or is the processor's default NaN.
struct BFloat16 {
  static constexpr int kSize = 2;
  template <int W>
  static Float<W> load(const char* from) {
    return (Float<W>)(widen<W>(read<Half<W>>(from)) << 16);
  }
  /// The result is in the upper half of each lane.
  template <int W>
  static Word<W> rounded(Float<W> value) {
    const Word<W> bits = (Word<W>)value;
    return bits + 0x7fff + ((bits >> 16) & 1);
  }
  template <int W>
  static void store(char* to, Float<W> value) {
    write(to, narrow<W>(rounded<W>(value) >> 16));
  }
};

/// IEEE half precision in integer arithmetic, for widths the processor has no conversion for.
struct Float16 {
  static constexpr int kSize = 2;

  template <int W>
  static Float<W> load(const char* from) {
    const Word<W> half = widen<W>(read<Half<W>>(from));
    const Word<W> magnitude = half & 0x7fff;
    // 2^112 moves the exponent bias from 15 to 127 and normalises subnormal numbers on the way.
    const Float<W> scaled = (Float<W>)(magnitude << 13) * 5.192296858534828e33f;
    const Word<W> finite = (Word<W>)scaled;
    const Word<W> special = (magnitude << 13) | 0x7f800000;
    const Word<W> bits = choose<W>((Int<W>)magnitude >= 0x7c00, special, finite);
    return (Float<W>)(bits | ((half & 0x8000) << 16));
  }

  template <int W>
  static void store(char* to, Float<W> value) {
    const Word<W> bits = (Word<W>)value;
    const Word<W> magnitude = bits & 0x7fffffff;
    const Int<W> order = (Int<W>)magnitude;
    const Word<W> normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    // 0.5 has 2^-24, half precision's smallest number, as its unit in the last place.
    const Word<W> subnormal = (Word<W>)((Float<W>)magnitude + 0.5f) - 0x3f000000;
    Word<W> half = choose<W>(order < 0x38800000, subnormal, normal);
    half = choose<W>(order >= 0x477ff000, half * 0 + 0x7c00, half);
    half = choose<W>(order > 0x7f800000, half * 0 + 0x7e00, half);
    write(to, narrow<W>(half | ((bits >> 16) & 0x8000)));
  }
};

#if defined(__AVX512F__)
template <>
inline Float<16> Float16::load<16>(const char* from) {
  return (Float<16>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
template <>
inline void Float16::store<16>(char* to, Float<16> value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT));
}
#endif

#if defined(__F16C__)
template <>
inline Float<8> Float16::load<8>(const char* from) {
  return (Float<8>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
template <>
inline void Float16::store<8>(char* to, Float<8> value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT));
}
template <>
inline Float<4> Float16::load<4>(const char* from) {
  return (Float<4>)_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
}
template <>
inline void Float16::store<4>(char* to, Float<4> value) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to),
                   _mm_cvtps_ph((__m128)value, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__aarch64__)
template <>
inline Float<4> Float16::load<4>(const char* from) {
  return (Float<4>)vcvt_f32_f16(read<float16x4_t>(from));
}
template <>
inline void Float16::store<4>(char* to, Float<4> value) {
  write(to, vcvt_f16_f32((float32x4_t)value));
}
#endif

}  // namespace
}  // namespace ggufext::rope
