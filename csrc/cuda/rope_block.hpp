// What one CUDA thread does: one lane of a few heads of one token. There is no barrier and no
// shared memory, so that the same code runs on the host: the tests execute it thread by thread
// where there is no device.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include "rope_phase.hpp"
#include "rope_rows.hpp"

namespace ggufext::rope {

/// Frequencies and a few positions travel as kernel parameters (4 KiB at most), so that a call
/// needs no memory of its own and a small one no copy.
constexpr int kCudaPairs = 256;
constexpr int kInlinePositions = 224;

/// Heads that a thread rotates with the same cosines and sines. All their elements are asked for
/// before anything is computed: 128 bytes a thread keep the memory busy.
GGUFEXT_HOST_DEVICE constexpr uint32_t heads_together(Layout layout) {
  return layout == Layout::kHalf ? 4 : 8;
}

/// Threads rotate every n-th head of an operand, where n is the number of groups.
GGUFEXT_HOST_DEVICE inline uint32_t head_groups(int64_t heads, uint32_t together) {
  return (static_cast<uint32_t>(heads) + together - 1) / together;
}

/// Parameters of a launch.
struct Launch {
  Operand operands[2];
  uint32_t tokens;              ///< of one batch
  uint32_t total_tokens;        ///< of all batches
  uint32_t lanes;               ///< threads that share a head
  uint32_t groups;              ///< groups of heads of all operands
  const char* positions;        ///< null: the inline ones
  int64_t position_strides[3];  ///< bytes from row to row, batch to batch, token to token
  uint32_t position_step;       ///< added to inline positions for every token
  int32_t position_size;        ///< bytes of a position
  int32_t pairs;
  float factor;
  float factor_rest;
  int32_t sectioned;
  uint64_t steps[kCudaPairs];
  uint8_t rows[kCudaPairs];
  uint32_t inline_positions[kInlinePositions];
};
static_assert(sizeof(Launch) <= 4096, "kernel parameters end at 4 KiB");

/// Element types: from and to the bits as they are stored.
struct CudaFloat32 {
  using Storage = uint32_t;
  GGUFEXT_HOST_DEVICE static float load(Storage bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
  }
  GGUFEXT_HOST_DEVICE static Storage store(float x) {
    Storage bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
  }
};

struct CudaBFloat16 {
  using Storage = uint16_t;
  GGUFEXT_HOST_DEVICE static float load(Storage x) {
    return CudaFloat32::load(static_cast<uint32_t>(x) << 16);
  }
#ifdef __CUDA_ARCH__
  __device__ static Storage store(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
#else
  static Storage store(float x) {
    const uint32_t bits = CudaFloat32::store(x);
    if (x != x) return static_cast<Storage>((bits >> 16) | 0x40);
    return static_cast<Storage>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
#endif
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

/// V elements, moved in one piece, and kept in words: 16-bit ones would take a register each.
template <class Element, int V>
struct alignas(V * sizeof(typename Element::Storage)) Pack {
  using Storage = typename Element::Storage;
  using Word = std::conditional_t<V == 1, Storage, uint32_t>;
  static constexpr int kEach = sizeof(Word) / sizeof(Storage);  // elements of a word
  Word words[V / kEach];

  GGUFEXT_HOST_DEVICE float get(int i) const {
    return Element::load(static_cast<Storage>(words[i / kEach] >> (i % kEach * 16)));
  }
  GGUFEXT_HOST_DEVICE void set(int i, float x) {
    const int shift = i % kEach * 16;
    const uint32_t others = kEach == 1 ? 0 : words[i / kEach] & (0xffff0000u >> shift);
    words[i / kEach] =
        static_cast<Word>(others | static_cast<uint32_t>(Element::store(x)) << shift);
  }
};

/// Position of a token in one row of positions; values were checked, so the low bits are enough.
GGUFEXT_HOST_DEVICE inline uint32_t token_position(const Launch& l, int64_t row, int64_t batch,
                                                   uint32_t token) {
  const int64_t offset =
      row * l.position_strides[0] + batch * l.position_strides[1] + token * l.position_strides[2];
  if (l.positions == nullptr) return l.inline_positions[offset / 4] + token * l.position_step;
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

/// Cosines and sines of `count` pairs from `first` on.
template <int count, bool sectioned>
GGUFEXT_HOST_DEVICE void find_angles(const Launch& l, uint32_t first, uint32_t batch,
                                     uint32_t token, CosSin* angles) {
  uint32_t position = sectioned ? 0 : token_position(l, 0, batch, token);
  for (int i = 0; i < count; ++i) {
    if (sectioned) position = token_position(l, l.rows[first + i], batch, token);
    angles[i] = cos_sin(l.steps[first + i], position, l.factor, l.factor_rest);
  }
}

/// The elements a thread rotates in one head: V pairs in half layout, V / 2 interleaved.
template <class Element, Layout layout, int V>
struct Piece {
  using Storage = typename Element::Storage;
  using Data = Pack<Element, V>;
  static constexpr bool kHalf = layout == Layout::kHalf;
  static constexpr int kPairs = kHalf ? V : V / 2;

  Data a;
  Data b;  // half layout only

  GGUFEXT_HOST_DEVICE void load(const Launch& l, const char* head, uint32_t lane) {
    const auto* from = reinterpret_cast<const Storage*>(head) + lane * V;
    a = *reinterpret_cast<const Data*>(from);
    if (kHalf) b = *reinterpret_cast<const Data*>(from + l.pairs);
  }

  GGUFEXT_HOST_DEVICE void rotate(const CosSin* angles) {
    Data& other = kHalf ? b : a;
    for (int i = 0; i < kPairs; ++i) {
      const int first = kHalf ? i : 2 * i;
      const int second = kHalf ? i : 2 * i + 1;
      const float x0 = a.get(first);
      const float x1 = other.get(second);
      a.set(first, fmaf(x0, angles[i].cos, -x1 * angles[i].sin));
      other.set(second, fmaf(x1, angles[i].cos, x0 * angles[i].sin));
    }
  }

  GGUFEXT_HOST_DEVICE void store(const Launch& l, char* head, uint32_t lane) const {
    auto* to = reinterpret_cast<Storage*>(head) + lane * V;
    *reinterpret_cast<Data*>(to) = a;
    if (kHalf) *reinterpret_cast<Data*>(to + l.pairs) = b;
  }
};

/// The elements behind the rotated ones.
template <class Storage>
GGUFEXT_HOST_DEVICE void copy_rest(const Launch& l, const char* in, char* out, int64_t head_dim,
                                   uint32_t lane) {
  for (int64_t i = 2 * l.pairs + lane; i < head_dim; i += l.lanes) {
    reinterpret_cast<Storage*>(out)[i] = reinterpret_cast<const Storage*>(in)[i];
  }
}

/// Everything one thread does: its lane of one group of heads of token `index`, counted through
/// all batches.
template <class Element, Layout layout, int V>
GGUFEXT_HOST_DEVICE void rotate_group(const Launch& l, uint32_t index, uint32_t group,
                                      uint32_t lane) {
  using Work = Piece<Element, layout, V>;
  constexpr uint32_t kTogether = heads_together(layout);
  if (index >= l.total_tokens || group >= l.groups) return;
  const uint32_t batch = index / l.tokens;
  const uint32_t token = index - batch * l.tokens;
  const uint32_t groups_before = head_groups(l.operands[0].heads, kTogether);
  const bool second = group >= groups_before;
  const Operand& o = l.operands[second ? 1 : 0];
  const uint32_t first = second ? group - groups_before : group;
  const uint32_t step = head_groups(o.heads, kTogether);
  const auto heads = static_cast<uint32_t>(o.heads);
  const char* in =
      o.in + batch * o.in_strides[0] + token * o.in_strides[1] + first * o.in_strides[2];
  char* out =
      o.out + batch * o.out_strides[0] + token * o.out_strides[1] + first * o.out_strides[2];
  const int64_t in_step = step * o.in_strides[2];
  const int64_t out_step = step * o.out_strides[2];

  if (l.pairs > 0) {
    Work work[kTogether];
    for (uint32_t i = 0; i < kTogether; ++i) {
      if (first + i * step < heads) work[i].load(l, in + i * in_step, lane);
    }
    CosSin angles[Work::kPairs];
    if (l.sectioned) {
      find_angles<Work::kPairs, true>(l, lane * Work::kPairs, batch, token, angles);
    } else {
      find_angles<Work::kPairs, false>(l, lane * Work::kPairs, batch, token, angles);
    }
    for (uint32_t i = 0; i < kTogether; ++i) {
      if (first + i * step >= heads) break;
      work[i].rotate(angles);
      work[i].store(l, out + i * out_step, lane);
    }
  }
  if (in == out || o.head_dim == 2 * l.pairs) return;
  for (uint32_t i = 0; first + i * step < heads; ++i) {
    copy_rest<typename Element::Storage>(l, in + i * in_step, out + i * out_step, o.head_dim, lane);
  }
}

}  // namespace ggufext::rope
