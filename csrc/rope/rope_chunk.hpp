// Chunks: the cosines and sines of W · U pairs in vector registers, and the rotation of those pairs
// in one head. Included by the kernel files only (see rope_lanes.hpp).
#pragma once

#include <cstdint>

#include "rope_lanes.hpp"
#include "rope_rows.hpp"

namespace ggufext::rope {
namespace {

// Shuffles of W lanes, spelled out because indices must be constants.
template <int W>
struct Shuffle;

#define GGUFEXT_SHUFFLE(W, SWAP, LOW, HIGH, EVEN, ODD)                                             \
  template <>                                                                                      \
  struct Shuffle<W> {                                                                              \
    /* (x1, x0, x3, x2, …) */                                                                      \
    static Float<W> swap(Float<W> x) { return __builtin_shufflevector(x, x, SWAP); }               \
    /* (a0, b0, a1, b1, …): lower and upper half */                                                \
    static Float<W> zip_low(Float<W> a, Float<W> b) { return __builtin_shufflevector(a, b, LOW); } \
    static Float<W> zip_high(Float<W> a, Float<W> b) {                                             \
      return __builtin_shufflevector(a, b, HIGH);                                                  \
    }                                                                                              \
    /* every second element of a, then of b */                                                     \
    static Float<W> even(Float<W> a, Float<W> b) { return __builtin_shufflevector(a, b, EVEN); }   \
    static Float<W> odd(Float<W> a, Float<W> b) { return __builtin_shufflevector(a, b, ODD); }     \
  };

#define GGUFEXT_LIST(...) __VA_ARGS__
GGUFEXT_SHUFFLE(2, GGUFEXT_LIST(1, 0), GGUFEXT_LIST(0, 2), GGUFEXT_LIST(1, 3), GGUFEXT_LIST(0, 2),
                GGUFEXT_LIST(1, 3))
GGUFEXT_SHUFFLE(4, GGUFEXT_LIST(1, 0, 3, 2), GGUFEXT_LIST(0, 4, 1, 5), GGUFEXT_LIST(2, 6, 3, 7),
                GGUFEXT_LIST(0, 2, 4, 6), GGUFEXT_LIST(1, 3, 5, 7))
GGUFEXT_SHUFFLE(8, GGUFEXT_LIST(1, 0, 3, 2, 5, 4, 7, 6), GGUFEXT_LIST(0, 8, 1, 9, 2, 10, 3, 11),
                GGUFEXT_LIST(4, 12, 5, 13, 6, 14, 7, 15), GGUFEXT_LIST(0, 2, 4, 6, 8, 10, 12, 14),
                GGUFEXT_LIST(1, 3, 5, 7, 9, 11, 13, 15))
GGUFEXT_SHUFFLE(16, GGUFEXT_LIST(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14),
                GGUFEXT_LIST(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
                GGUFEXT_LIST(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31),
                GGUFEXT_LIST(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
                GGUFEXT_LIST(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31))
#undef GGUFEXT_LIST
#undef GGUFEXT_SHUFFLE

/// kPairStride: bytes from one pair to the next in memory. rotate() takes the address of the
/// chunk's first element and the distance `half` from a pair's first element to its second
/// (half layout only).
template <class Element, Layout layout, int W, int U>
struct Chunk;

/// Elements i and i + half: two vectors at a time.
template <class Element, int W, int U>
struct Chunk<Element, Layout::kHalf, W, U> {
  static constexpr int kPairs = W * U;
  static constexpr int kPairStride = Element::kSize;
  Float<W> c[U];
  Float<W> s[U];

  Chunk(const float* cos, const float* sin) {
    for (int u = 0; u < U; ++u) {
      c[u] = read<Float<W>>(cos + u * W);
      s[u] = read<Float<W>>(sin + u * W);
    }
  }

  void rotate(const char* in, char* out, int64_t half) const {
    for (int u = 0; u < U; ++u) {
      const int at = u * W * Element::kSize;
      const Float<W> a = Element::template load<W>(in + at);
      const Float<W> b = Element::template load<W>(in + half + at);
      Element::template store<W>(out + at, a * c[u] - b * s[u]);
      Element::template store<W>(out + half + at, b * c[u] + a * s[u]);
    }
  }
};

/// Elements 2i and 2i + 1: x · (c, c) + swapped(x) · (−s, s) needs one cheap shuffle an element.
template <class Element, int W, int U>
struct Chunk<Element, Layout::kInterleaved, W, U> {
  static constexpr int kPairs = W * U;
  static constexpr int kPairStride = 2 * Element::kSize;
  Float<W> c[2 * U];
  Float<W> s[2 * U];

  Chunk(const float* cos, const float* sin) {
    for (int u = 0; u < U; ++u) {
      const Float<W> c0 = read<Float<W>>(cos + u * W);
      const Float<W> s0 = read<Float<W>>(sin + u * W);
      c[2 * u] = Shuffle<W>::zip_low(c0, c0);
      c[2 * u + 1] = Shuffle<W>::zip_high(c0, c0);
      s[2 * u] = Shuffle<W>::zip_low(-s0, s0);
      s[2 * u + 1] = Shuffle<W>::zip_high(-s0, s0);
    }
  }

  void rotate(const char* in, char* out, int64_t) const {
    for (int u = 0; u < 2 * U; ++u) {
      const int at = u * W * Element::kSize;
      const Float<W> x = Element::template load<W>(in + at);
      Element::template store<W>(out + at, x * c[u] + Shuffle<W>::swap(x) * s[u]);
    }
  }
};

/// A single pair.
template <class Element>
struct Chunk<Element, Layout::kInterleaved, 1, 1> {
  static constexpr int kPairs = 1;
  static constexpr int kPairStride = 2 * Element::kSize;
  Float<2> c;
  Float<2> s;

  Chunk(const float* cos, const float* sin) : c{*cos, *cos}, s{-*sin, *sin} {}

  void rotate(const char* in, char* out, int64_t) const {
    const Float<2> x = Element::template load<2>(in);
    Element::template store<2>(out, x * c + Shuffle<2>::swap(x) * s);
  }
};

/// bfloat16 without widening: a 32-bit lane holds two neighbours, and each is a float once the
/// other is shifted or masked away.
template <int W>
inline Float<W> lower(Word<W> lanes) {
  return (Float<W>)(lanes << 16);
}
template <int W>
inline Float<W> upper(Word<W> lanes) {
  return (Float<W>)(lanes & 0xffff0000u);
}
template <int W>
inline Word<W> join(Float<W> low, Float<W> high) {
  return (BFloat16::rounded<W>(low) >> 16) | (BFloat16::rounded<W>(high) & 0xffff0000u);
}

/// In interleaved layout a lane is a pair.
template <int W, int U>
struct WordsInterleaved {
  static constexpr int kPairs = W * U;
  static constexpr int kPairStride = 4;
  Float<W> c[U];
  Float<W> s[U];

  WordsInterleaved(const float* cos, const float* sin) {
    for (int u = 0; u < U; ++u) {
      c[u] = read<Float<W>>(cos + u * W);
      s[u] = read<Float<W>>(sin + u * W);
    }
  }

  void rotate(const char* in, char* out, int64_t) const {
    for (int u = 0; u < U; ++u) {
      const Word<W> x = read<Word<W>>(in + 4 * W * u);
      const Float<W> a = lower<W>(x);
      const Float<W> b = upper<W>(x);
      write(out + 4 * W * u, join<W>(a * c[u] - b * s[u], b * c[u] + a * s[u]));
    }
  }
};

/// In half layout a lane holds elements of two pairs: even ones below, odd ones above.
template <int W, int U>
struct WordsHalf {
  static constexpr int kPairs = 2 * W * U;
  static constexpr int kPairStride = 2;
  Float<W> c[U][2];
  Float<W> s[U][2];

  WordsHalf(const float* cos, const float* sin) {
    for (int u = 0; u < U; ++u) {
      split(cos + 2 * W * u, c[u]);
      split(sin + 2 * W * u, s[u]);
    }
  }

  static void split(const float* from, Float<W>* to) {
    const Float<W> first = read<Float<W>>(from);
    const Float<W> second = read<Float<W>>(from + W);
    to[0] = Shuffle<W>::even(first, second);
    to[1] = Shuffle<W>::odd(first, second);
  }

  void rotate(const char* in, char* out, int64_t half) const {
    for (int u = 0; u < U; ++u) {
      const int at = 4 * W * u;
      const Word<W> x = read<Word<W>>(in + at);
      const Word<W> y = read<Word<W>>(in + half + at);
      const Float<W> a0 = lower<W>(x), a1 = upper<W>(x);
      const Float<W> b0 = lower<W>(y), b1 = upper<W>(y);
      write(out + at, join<W>(a0 * c[u][0] - b0 * s[u][0], a1 * c[u][1] - b1 * s[u][1]));
      write(out + half + at, join<W>(b0 * c[u][0] + a0 * s[u][0], b1 * c[u][1] + a1 * s[u][1]));
    }
  }
};

template <>
struct Chunk<BFloat16, Layout::kInterleaved, kWidth, 4> : WordsInterleaved<kWidth, 4> {
  using WordsInterleaved::WordsInterleaved;
};
template <>
struct Chunk<BFloat16, Layout::kInterleaved, kWidth, 2> : WordsInterleaved<kWidth, 2> {
  using WordsInterleaved::WordsInterleaved;
};
template <>
struct Chunk<BFloat16, Layout::kInterleaved, kWidth, 1> : WordsInterleaved<kWidth, 1> {
  using WordsInterleaved::WordsInterleaved;
};
template <>
struct Chunk<BFloat16, Layout::kHalf, kWidth, 4> : WordsHalf<kWidth, 2> {
  using WordsHalf::WordsHalf;
};
template <>
struct Chunk<BFloat16, Layout::kHalf, kWidth, 2> : WordsHalf<kWidth, 1> {
  using WordsHalf::WordsHalf;
};

}  // namespace
}  // namespace ggufext::rope
