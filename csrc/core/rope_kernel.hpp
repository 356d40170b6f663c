// The CPU kernel, compiled once per instruction set: the including file defines kWidth, the floats
// in a vector register, and the name of its table of kernels.
//
// Tokens are outside, heads inside: cosines and sines of a token are computed once, stay in the L1
// cache and serve every head of every operand.
#pragma once

#include <cstdint>

#include "rope_lanes.hpp"
#include "rope_phase.hpp"
#include "rope_rows.hpp"

namespace ggufext::rope {
namespace {

/// Pairs whose cosines and sines are held at a time: 8 KiB of tables.
constexpr int64_t kBlock = 512;

/// Interleaved layout stores each cosine twice and sines as (−s, s), so that a rotation is
/// x·cos + swapped(x)·sin without another shuffle.
template <Layout layout>
constexpr int64_t kSpread = layout == Layout::kInterleaved ? 2 : 1;

struct Tables {
  alignas(64) float cos[2 * kBlock];
  alignas(64) float sin[2 * kBlock];
};

/// Upper 32 bits of step · position, modulo 2^64, rounded.
template <int W>
inline Word<W> turn_fraction(Word<W> high, Word<W> low, Word<W> position) {
  typedef uint64_t Wide __attribute__((vector_size(4 * W)));
  const Wide low_wide = (Wide)low;
  const Wide position_wide = (Wide)position;
  const Wide even = (low_wide & 0xffffffffu) * (position_wide & 0xffffffffu) + 0x80000000u;
  const Wide odd = (low_wide >> 32) * (position_wide >> 32) + 0x80000000u;
  return high * position + (Word<W>)((even >> 32) | (odd & 0xffffffff00000000u));
}

/// The same arithmetic as cos_sin() in rope_phase.hpp, W pairs at a time.
template <int W>
inline void cos_sin(Word<W> fraction, const Rows& rows, Float<W>* cos, Float<W>* sin) {
  const Word<W> quadrant = (fraction + 0x20000000u) >> 30;
  const Int<W> offset = (Int<W>)(fraction - (quadrant << 30));
  const Float<W> y = __builtin_convertvector(offset, Float<W>) * kQuarterTurnPerUnit;
  const Float<W> z = y * y;
  const Float<W> sin_tail = kQuarterTurnRest + z * (kSin3 + z * (kSin5 + z * kSin7));
  const Float<W> s = y * kQuarterTurn + y * sin_tail;
  const Float<W> c = 1.0f + z * (kCos2 + z * (kCos4 + z * (kCos6 + z * kCos8)));
  const Int<W> is_odd = (Int<W>)((quadrant & 1) != 0);
  const Float<W> cos_value = (Float<W>)choose<W>(is_odd, (Word<W>)s, (Word<W>)c);
  const Float<W> sin_value = (Float<W>)choose<W>(is_odd, (Word<W>)c, (Word<W>)s);
  const Float<W> cos_scaled = cos_value * rows.factor + cos_value * rows.factor_rest;
  const Float<W> sin_scaled = sin_value * rows.factor + sin_value * rows.factor_rest;
  *cos = (Float<W>)((Word<W>)cos_scaled ^ (((quadrant + 1) & 2) << 30));
  *sin = (Float<W>)((Word<W>)sin_scaled ^ ((quadrant & 2) << 30));
}

template <int W>
struct Spread;

template <Layout layout, int W>
inline void store_table(Tables* tables, int64_t i, Float<W> cos, Float<W> sin) {
  if constexpr (layout == Layout::kHalf) {
    write(tables->cos + i, cos);
    write(tables->sin + i, sin);
  } else {
    const Float<W> minus = -sin;
    Spread<W>::twice(tables->cos + 2 * i, cos, cos);
    Spread<W>::twice(tables->sin + 2 * i, minus, sin);
  }
}

/// (a0, b0, a1, b1, …), two vectors.
template <>
struct Spread<4> {
  static void twice(float* to, Float<4> a, Float<4> b) {
    write(to, __builtin_shufflevector(a, b, 0, 4, 1, 5));
    write(to + 4, __builtin_shufflevector(a, b, 2, 6, 3, 7));
  }
};
template <>
struct Spread<8> {
  static void twice(float* to, Float<8> a, Float<8> b) {
    write(to, __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11));
    write(to + 8, __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15));
  }
};
template <>
struct Spread<16> {
  static void twice(float* to, Float<16> a, Float<16> b) {
    write(to, __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
    write(to + 16, __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14,
                                           30, 15, 31));
  }
};

template <int W>
inline Float<W> swap_neighbours(Float<W> x);
template <>
inline Float<2> swap_neighbours<2>(Float<2> x) {
  return __builtin_shufflevector(x, x, 1, 0);
}
template <>
inline Float<4> swap_neighbours<4>(Float<4> x) {
  return __builtin_shufflevector(x, x, 1, 0, 3, 2);
}
template <>
inline Float<8> swap_neighbours<8>(Float<8> x) {
  return __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6);
}
template <>
inline Float<16> swap_neighbours<16>(Float<16> x) {
  return __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
}

/// Positions of W pairs: the token's, or with sections each pair's own.
template <int W>
inline Word<W> pair_positions(const Rows& rows, const uint32_t* position, int64_t pair) {
  Word<W> result = {};
  if (rows.pair_rows == nullptr) return result + *position;
  for (int lane = 0; lane < W; ++lane) {
    result[lane] = position[rows.pair_rows[pair + lane] * rows.position_row_stride];
  }
  return result;
}

/// Tables of pairs first … first + count − 1; the steps are padded, so whole vectors are computed.
template <Layout layout>
void fill_tables(const Rows& rows, const uint32_t* position, int64_t first, int64_t count,
                 Tables* tables) {
  constexpr int W = kWidth;
  for (int64_t i = 0; i < count; i += W) {
    const Word<W> high = read<Word<W>>(rows.step_high + first + i);
    const Word<W> low = read<Word<W>>(rows.step_low + first + i);
    const Word<W> at = pair_positions<W>(rows, position, first + i);
    Float<W> cos;
    Float<W> sin;
    cos_sin<W>(turn_fraction<W>(high, low, at), rows, &cos, &sin);
    store_table<layout, W>(tables, i, cos, sin);
  }
}

/// Pairs (i, i + half) from i on, W at a time; returns where it stopped.
template <class Element, int W>
inline int64_t rotate_half(const char* in, char* out, int64_t half_bytes, int64_t i, int64_t count,
                           const Tables& tables) {
  for (; i + W <= count; i += W) {
    const char* from = in + i * Element::kSize;
    char* to = out + i * Element::kSize;
    const Float<W> a = Element::template load<W>(from);
    const Float<W> b = Element::template load<W>(from + half_bytes);
    const Float<W> c = read<Float<W>>(tables.cos + i);
    const Float<W> s = read<Float<W>>(tables.sin + i);
    Element::template store<W>(to, a * c - b * s);
    Element::template store<W>(to + half_bytes, b * c + a * s);
  }
  return i;
}

/// Elements from i on, W (W / 2 pairs) at a time; returns where it stopped.
template <class Element, int W>
inline int64_t rotate_interleaved(const char* in, char* out, int64_t i, int64_t count,
                                  const Tables& tables) {
  for (; i + W <= count; i += W) {
    const Float<W> x = Element::template load<W>(in + i * Element::kSize);
    const Float<W> c = read<Float<W>>(tables.cos + i);
    const Float<W> s = read<Float<W>>(tables.sin + i);
    Element::template store<W>(out + i * Element::kSize, x * c + swap_neighbours<W>(x) * s);
  }
  return i;
}

/// One head, the pairs of one block.
template <class Element, Layout layout>
inline void rotate_head(const char* in, char* out, int64_t all_pairs, int64_t first, int64_t count,
                        const Tables& tables) {
  in += first * kSpread<layout> * Element::kSize;
  out += first * kSpread<layout> * Element::kSize;
  int64_t i = 0;
  if constexpr (layout == Layout::kHalf) {
    const int64_t half = all_pairs * Element::kSize;
    i = rotate_half<Element, kWidth>(in, out, half, i, count, tables);
    if constexpr (kWidth > 8) i = rotate_half<Element, 8>(in, out, half, i, count, tables);
    if constexpr (kWidth > 4) i = rotate_half<Element, 4>(in, out, half, i, count, tables);
    rotate_half<Element, 1>(in, out, half, i, count, tables);
  } else {
    i = rotate_interleaved<Element, kWidth>(in, out, i, 2 * count, tables);
    if constexpr (kWidth > 8) i = rotate_interleaved<Element, 8>(in, out, i, 2 * count, tables);
    if constexpr (kWidth > 4) i = rotate_interleaved<Element, 4>(in, out, i, 2 * count, tables);
    rotate_interleaved<Element, 2>(in, out, i, 2 * count, tables);
  }
}

template <class Element, Layout layout>
void rotate_token(const Rows& rows, int64_t batch, int64_t token, Tables* tables) {
  const uint32_t* position = rows.positions + batch * rows.position_batch_stride + token;
  for (int64_t first = 0; first < rows.pairs; first += kBlock) {
    const int64_t left = rows.pairs - first;
    const int64_t count = left < kBlock ? left : kBlock;
    fill_tables<layout>(rows, position, first, count, tables);
    for (int k = 0; k < rows.operand_count; ++k) {
      const Operand& o = rows.operands[k];
      const char* in = o.in + batch * o.in_strides[0] + token * o.in_strides[1];
      char* out = o.out + batch * o.out_strides[0] + token * o.out_strides[1];
      for (int64_t head = 0; head < o.heads; ++head) {
        rotate_head<Element, layout>(in + head * o.in_strides[2], out + head * o.out_strides[2],
                                     rows.pairs, first, count, *tables);
      }
    }
  }
}

/// What lies behind the rotated elements of each head, unless the operand is rotated in place.
template <class Element>
void copy_rest(const Rows& rows, int64_t batch, int64_t token) {
  for (int k = 0; k < rows.operand_count; ++k) {
    const Operand& o = rows.operands[k];
    const int64_t rest = (o.head_dim - 2 * rows.pairs) * Element::kSize;
    if (o.in == o.out || rest == 0) continue;
    const int64_t skip = 2 * rows.pairs * Element::kSize;
    const char* in = o.in + batch * o.in_strides[0] + token * o.in_strides[1] + skip;
    char* out = o.out + batch * o.out_strides[0] + token * o.out_strides[1] + skip;
    for (int64_t head = 0; head < o.heads; ++head) {
      __builtin_memcpy(out + head * o.out_strides[2], in + head * o.in_strides[2],
                       static_cast<size_t>(rest));
    }
  }
}

template <class Element, Layout layout>
void rotate_rows(const Rows& rows, int64_t begin, int64_t end) {
  Tables tables;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t batch = row / rows.tokens;
    const int64_t token = row - batch * rows.tokens;
    rotate_token<Element, layout>(rows, batch, token, &tables);
    copy_rest<Element>(rows, batch, token);
  }
}

constexpr Kernels kKernels = {{
    {rotate_rows<Float32, Layout::kInterleaved>, rotate_rows<Float32, Layout::kHalf>},
    {rotate_rows<Float16, Layout::kInterleaved>, rotate_rows<Float16, Layout::kHalf>},
    {rotate_rows<BFloat16, Layout::kInterleaved>, rotate_rows<BFloat16, Layout::kHalf>},
}};

}  // namespace
}  // namespace ggufext::rope
