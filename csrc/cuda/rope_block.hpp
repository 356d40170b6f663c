// What one CUDA block does: all heads of one token. The functions are the kernel's two halves,
// before and after its barrier, and run on the host as well: the tests execute them thread by
// thread where there is no device.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#endif

#include "rope_phase.hpp"
#include "rope_rows.hpp"

namespace ggufext::rope {

/// Frequencies and a few positions travel as kernel parameters (4 KiB at most), so that a call
/// needs no memory of its own and a small one no copy.
constexpr int kCudaPairs = 256;
constexpr int kInlinePositions = 224;

/// Parameters of a launch.
struct Launch {
  Operand operands[2];
  int32_t operand_count;
  int32_t total_heads;
  int64_t tokens;
  const char* positions;        ///< null: the inline ones
  int64_t position_strides[3];  ///< bytes from row to row, batch to batch, token to token
  int32_t position_size;        ///< bytes of a position
  int32_t pairs;
  int32_t lanes;  ///< threads that share a head
  float factor;
  float factor_rest;
  int32_t sectioned;
  uint64_t steps[kCudaPairs];
  uint8_t rows[kCudaPairs];
  uint32_t inline_positions[kInlinePositions];
};
static_assert(sizeof(Launch) <= 4096, "kernel parameters end at 4 KiB");

struct CudaFloat32 {
  using Storage = float;
  GGUFEXT_HOST_DEVICE static float load(Storage x) { return x; }
  GGUFEXT_HOST_DEVICE static Storage store(float x) { return x; }
};

struct CudaBFloat16 {
  using Storage = uint16_t;
  GGUFEXT_HOST_DEVICE static float load(Storage x) {
    const uint32_t bits = static_cast<uint32_t>(x) << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
  }
  /// To nearest even. A NaN that came from a bfloat16 has a lower half of zero and stays one; the
  /// device's own NaN, all ones, would not.
  GGUFEXT_HOST_DEVICE static Storage store(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return static_cast<Storage>((bits >> 16) | 0x40);
    return static_cast<Storage>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
};

struct CudaFloat16 {
  using Storage = uint16_t;
#ifdef __CUDA_ARCH__
  __device__ static float load(Storage x) { return __half2float(__ushort_as_half(x)); }
  __device__ static Storage store(float x) { return __half_as_ushort(__float2half_rn(x)); }
#else
  static float load(Storage x) {
    const int exponent = (x >> 10) & 31;
    const int fraction = x & 1023;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
    if (exponent == 31) value = fraction == 0 ? INFINITY : NAN;
    return x & 0x8000 ? -value : value;
  }
  static Storage store(float x) {
    const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    const float magnitude = std::fabs(x);
    if (std::isnan(x)) return sign | 0x7e00;
    if (magnitude >= 65520.0f) return sign | 0x7c00;
    if (magnitude == 0) return sign;
    const int exponent = std::ilogb(magnitude) < -14 ? -14 : std::ilogb(magnitude);
    const auto units = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
    return static_cast<uint16_t>(sign | (units + ((exponent + 14) << 10)));
  }
#endif
};

/// V elements, moved in one piece.
template <class Element, int V>
struct alignas(V * sizeof(typename Element::Storage)) Pack {
  typename Element::Storage x[V];
};

/// Position of a token in one row of positions; values were checked, so the low bits are enough.
GGUFEXT_HOST_DEVICE inline uint32_t token_position(const Launch& l, int64_t row, int64_t batch,
                                                   int64_t token) {
  const int64_t offset =
      row * l.position_strides[0] + batch * l.position_strides[1] + token * l.position_strides[2];
  if (l.positions == nullptr) return l.inline_positions[offset / 4];
  const char* at = l.positions + offset;
  switch (l.position_size) {
    case 1:
      return *reinterpret_cast<const uint8_t*>(at);
    case 2:
      return *reinterpret_cast<const uint16_t*>(at);
    case 4:
      return *reinterpret_cast<const uint32_t*>(at);
    default:
      return static_cast<uint32_t>(*reinterpret_cast<const uint64_t*>(at));
  }
}

/// Before the barrier: thread `thread` of `threads` computes its share of the token's tables.
GGUFEXT_HOST_DEVICE inline void fill_tables(const Launch& l, int64_t index, int thread, int threads,
                                            float* cos, float* sin) {
  const int64_t batch = index / l.tokens;
  const int64_t token = index - batch * l.tokens;
  for (int pair = thread; pair < l.pairs; pair += threads) {
    const uint32_t position = token_position(l, l.sectioned ? l.rows[pair] : 0, batch, token);
    const CosSin value = cos_sin(l.steps[pair], position, l.factor, l.factor_rest);
    cos[pair] = value.cos;
    sin[pair] = value.sin;
  }
}

/// Where a head begins in the input and in the output.
struct Head {
  const char* in;
  char* out;
  int64_t head_dim;
};

GGUFEXT_HOST_DEVICE inline Head find_head(const Launch& l, int64_t index, int head) {
  const int64_t batch = index / l.tokens;
  const int64_t token = index - batch * l.tokens;
  const int first = static_cast<int>(l.operands[0].heads);
  const Operand& o = l.operands[head < first ? 0 : 1];
  const int64_t h = head < first ? head : head - first;
  return {o.in + batch * o.in_strides[0] + token * o.in_strides[1] + h * o.in_strides[2],
          o.out + batch * o.out_strides[0] + token * o.out_strides[1] + h * o.out_strides[2],
          o.head_dim};
}

/// The elements a thread rotates in one head: V pairs in half layout, V / 2 interleaved.
template <class Element, Layout layout, int V>
struct Piece {
  using Data = Pack<Element, V>;
  static constexpr bool kHalf = layout == Layout::kHalf;
  static constexpr int kPairs = kHalf ? V : V / 2;

  Data a;
  Data b;  // half layout only

  GGUFEXT_HOST_DEVICE void load(const Launch& l, const Head& head, int lane) {
    const auto* from = reinterpret_cast<const typename Element::Storage*>(head.in) + lane * V;
    a = *reinterpret_cast<const Data*>(from);
    if (kHalf) b = *reinterpret_cast<const Data*>(from + l.pairs);
  }

  GGUFEXT_HOST_DEVICE void rotate(const float* c, const float* s) {
    for (int i = 0; i < kPairs; ++i) {
      auto& first = kHalf ? a.x[i] : a.x[2 * i];
      auto& second = kHalf ? b.x[i] : a.x[2 * i + 1];
      const float x0 = Element::load(first);
      const float x1 = Element::load(second);
      first = Element::store(fmaf(x0, c[i], -x1 * s[i]));
      second = Element::store(fmaf(x1, c[i], x0 * s[i]));
    }
  }

  GGUFEXT_HOST_DEVICE void store(const Launch& l, const Head& head, int lane) const {
    auto* to = reinterpret_cast<typename Element::Storage*>(head.out) + lane * V;
    *reinterpret_cast<Data*>(to) = a;
    if (kHalf) *reinterpret_cast<Data*>(to + l.pairs) = b;
  }
};

/// The elements behind the rotated ones, when the result goes elsewhere.
template <class Element>
GGUFEXT_HOST_DEVICE void copy_rest(const Launch& l, const Head& head, int lane) {
  if (head.in == head.out) return;
  const auto* from = reinterpret_cast<const typename Element::Storage*>(head.in);
  auto* to = reinterpret_cast<typename Element::Storage*>(head.out);
  for (int64_t i = 2 * l.pairs + lane; i < head.head_dim; i += l.lanes) to[i] = from[i];
}

/// One thread's part of a block. start() asks for the first head's elements before the barrier, so
/// that memory works while the tables are computed.
template <class Element, Layout layout, int V>
struct BlockThread {
  using Work = Piece<Element, layout, V>;
  Work piece;

  GGUFEXT_HOST_DEVICE void start(const Launch& l, int64_t index, int thread) {
    const int head = thread / l.lanes;
    if (head < l.total_heads && l.pairs > 0) {
      piece.load(l, find_head(l, index, head), thread % l.lanes);
    }
  }

  GGUFEXT_HOST_DEVICE void finish(const Launch& l, int64_t index, int thread, int threads,
                                  const float* cos, const float* sin) {
    const int lane = thread % l.lanes;
    float c[Work::kPairs];
    float s[Work::kPairs];
    for (int i = 0; i < Work::kPairs && l.pairs > 0; ++i) {
      c[i] = cos[lane * Work::kPairs + i];
      s[i] = sin[lane * Work::kPairs + i];
    }
    for (int head = thread / l.lanes; head < l.total_heads; head += threads / l.lanes) {
      const Head place = find_head(l, index, head);
      if (l.pairs > 0) {
        if (head != thread / l.lanes) piece.load(l, place, lane);
        piece.rotate(c, s);
        piece.store(l, place, lane);
      }
      copy_rest<Element>(l, place, lane);
    }
  }
};

}  // namespace ggufext::rope
