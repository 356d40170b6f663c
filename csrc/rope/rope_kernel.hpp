// The CPU kernel, compiled once per instruction set: the including file defines kWidth, the floats
// in a vector register, and the name of its table of kernels.
//
// Tokens are outside, heads inside: cosines and sines of a token are computed once, stay in
// registers and serve every head of every operand.
#pragma once

#include <cstddef>
#include <cstdint>

#include "rope_chunk.hpp"
#include "rope_lanes.hpp"
#include "rope_phase.hpp"
#include "rope_rows.hpp"

namespace ggufext::rope {
namespace {

/// Pairs whose cosines and sines are held at a time: 4 KiB of tables.
constexpr int64_t kBlock = 512;

struct Tables {
  alignas(64) float cos[kBlock];
  alignas(64) float sin[kBlock];
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

/// Positions of W pairs: the token's, or with sections each pair's own.
template <int W>
inline Word<W> pair_positions(const Rows& rows, const uint32_t* position, int64_t pair) {
  const Word<W> zero = {};
  if (rows.pair_rows == nullptr) return zero + *position;
  const Word<W> row = read<Word<W>>(rows.pair_rows + pair);
  Word<W> result = zero;
  for (uint32_t r = 0; r < rows.position_rows; ++r) {
    const Word<W> here = zero + position[r * rows.position_row_stride];
    result = choose<W>((Int<W>)(row == r), here, result);
  }
  return result;
}

/// Tables of pairs first … first + count − 1; the steps are padded, so whole vectors are computed.
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
    write(tables->cos + i, cos);
    write(tables->sin + i, sin);
  }
}

/// One block of one token.
struct Place {
  const Rows& rows;
  int64_t batch;
  int64_t token;
  int64_t first;  ///< pair with which the block begins
  int64_t count;  ///< pairs in it
};

/// Rotates pairs from i on in all heads of all operands, as many at a time as Chunk holds in
/// registers; returns where it stopped.
template <class Chunk>
inline int64_t rotate_chunks(const Place& place, const Tables& tables, int64_t i) {
  for (; i + Chunk::kPairs <= place.count; i += Chunk::kPairs) {
    const Chunk chunk(tables.cos + i, tables.sin + i);
    const int64_t offset = (place.first + i) * Chunk::kPairStride;
    const int64_t half = place.rows.pairs * Chunk::kPairStride;
    for (int k = 0; k < place.rows.operand_count; ++k) {
      const Operand& o = place.rows.operands[k];
      const char* in =
          o.in + place.batch * o.in_strides[0] + place.token * o.in_strides[1] + offset;
      char* out = o.out + place.batch * o.out_strides[0] + place.token * o.out_strides[1] + offset;
      for (int64_t head = 0; head < o.heads; ++head) {
        chunk.rotate(in, out, half);
        in += o.in_strides[2];
        out += o.out_strides[2];
      }
    }
  }
  return i;
}

template <class Element, Layout layout>
void rotate_token(const Rows& rows, int64_t batch, int64_t token, Tables* tables) {
  const uint32_t* position = rows.positions + batch * rows.position_batch_stride + token;
  for (int64_t first = 0; first < rows.pairs; first += kBlock) {
    const int64_t left = rows.pairs - first;
    const Place place{rows, batch, token, first, left < kBlock ? left : kBlock};
    fill_tables(rows, position, first, place.count, tables);
    int64_t i = 0;
    i = rotate_chunks<Chunk<Element, layout, kWidth, 4>>(place, *tables, i);
    i = rotate_chunks<Chunk<Element, layout, kWidth, 2>>(place, *tables, i);
    i = rotate_chunks<Chunk<Element, layout, kWidth, 1>>(place, *tables, i);
    if constexpr (kWidth > 8) i = rotate_chunks<Chunk<Element, layout, 8, 1>>(place, *tables, i);
    if constexpr (kWidth > 4) i = rotate_chunks<Chunk<Element, layout, 4, 1>>(place, *tables, i);
    rotate_chunks<Chunk<Element, layout, 1, 1>>(place, *tables, i);
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
