// The kernel for compilers without vector extensions (MSVC), one pair at a time: it stands in the
// place of rope_baseline.cpp there.
#include <cstddef>
#include <cstring>

#include "rope_phase.hpp"
#include "rope_rows.hpp"

namespace ggufext::rope {
namespace {

template <class To, class From>
To bits_of(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

template <class T>
T load_as(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

struct Float32 {
  static constexpr int64_t kSize = 4;
  static float load(const char* from) { return load_as<float>(from); }
  static void store(char* to, float value) { std::memcpy(to, &value, sizeof value); }
};

/// As in rope_lanes.hpp, which explains the arithmetic.
struct BFloat16 {
  static constexpr int64_t kSize = 2;
  static float load(const char* from) {
    return bits_of<float>(static_cast<uint32_t>(load_as<uint16_t>(from)) << 16);
  }
  static void store(char* to, float value) {
    const auto bits = bits_of<uint32_t>(value);
    const auto half = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    std::memcpy(to, &half, sizeof half);
  }
};

struct Float16 {
  static constexpr int64_t kSize = 2;
  static float load(const char* from) {
    const uint32_t half = load_as<uint16_t>(from);
    const uint32_t magnitude = half & 0x7fff;
    const float scaled = bits_of<float>(magnitude << 13) * 5.192296858534828e33f;
    const uint32_t bits =
        magnitude >= 0x7c00 ? (magnitude << 13) | 0x7f800000 : bits_of<uint32_t>(scaled);
    return bits_of<float>(bits | ((half & 0x8000) << 16));
  }
  static void store(char* to, float value) {
    const auto bits = bits_of<uint32_t>(value);
    const uint32_t magnitude = bits & 0x7fffffff;
    uint32_t half = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    if (magnitude < 0x38800000) {
      half = bits_of<uint32_t>(bits_of<float>(magnitude) + 0.5f) - 0x3f000000;
    }
    if (magnitude >= 0x477ff000) half = 0x7c00;
    if (magnitude > 0x7f800000) half = 0x7e00;
    const auto signed_half = static_cast<uint16_t>(half | ((bits >> 16) & 0x8000));
    std::memcpy(to, &signed_half, sizeof signed_half);
  }
};

/// Pairs whose cosines and sines are held at a time.
constexpr int64_t kBlock = 512;

template <class Element, Layout layout>
void rotate_heads(const Rows& rows, const Operand& o, const char* in, char* out, int64_t first,
                  int64_t count, const CosSin* turns) {
  const bool half = layout == Layout::kHalf;
  const int64_t step = (half ? 1 : 2) * Element::kSize;
  const int64_t apart = half ? rows.pairs * Element::kSize : Element::kSize;
  for (int64_t head = 0; head < o.heads; ++head) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = (first + i) * step;
      const float a = Element::load(in + at);
      const float b = Element::load(in + at + apart);
      Element::store(out + at, a * turns[i].cos - b * turns[i].sin);
      Element::store(out + at + apart, b * turns[i].cos + a * turns[i].sin);
    }
    in += o.in_strides[2];
    out += o.out_strides[2];
  }
}

/// What lies behind the rotated elements of each head, unless the operand is rotated in place.
template <class Element>
void copy_rest(const Rows& rows, const Operand& o, const char* in, char* out) {
  const int64_t skip = 2 * rows.pairs * Element::kSize;
  const int64_t rest = o.head_dim * Element::kSize - skip;
  if (o.in == o.out || rest == 0) return;
  for (int64_t head = 0; head < o.heads; ++head) {
    std::memcpy(out + head * o.out_strides[2] + skip, in + head * o.in_strides[2] + skip,
                static_cast<size_t>(rest));
  }
}

template <class Element, Layout layout>
void rotate_rows(const Rows& rows, int64_t begin, int64_t end) {
  CosSin turns[kBlock];
  for (int64_t row = begin; row < end; ++row) {
    const int64_t batch = row / rows.tokens;
    const int64_t token = row - batch * rows.tokens;
    const uint32_t* position = rows.positions + batch * rows.position_batch_stride + token;
    const auto each_operand = [&](auto&& work) {
      for (int k = 0; k < rows.operand_count; ++k) {
        const Operand& o = rows.operands[k];
        work(o, o.in + batch * o.in_strides[0] + token * o.in_strides[1],
             o.out + batch * o.out_strides[0] + token * o.out_strides[1]);
      }
    };
    for (int64_t first = 0; first < rows.pairs; first += kBlock) {
      const int64_t count = rows.pairs - first < kBlock ? rows.pairs - first : kBlock;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t pair = first + i;
        const uint64_t step = uint64_t{rows.step_high[pair]} << 32 | rows.step_low[pair];
        const int64_t position_row = rows.pair_rows == nullptr ? 0 : rows.pair_rows[pair];
        turns[i] = cos_sin(step, position[position_row * rows.position_row_stride], rows.factor,
                           rows.factor_rest);
      }
      each_operand([&](const Operand& o, const char* in, char* out) {
        rotate_heads<Element, layout>(rows, o, in, out, first, count, turns);
      });
    }
    each_operand(
        [&](const Operand& o, const char* in, char* out) { copy_rest<Element>(rows, o, in, out); });
  }
}

constexpr Kernels kKernels = {{
    {rotate_rows<Float32, Layout::kInterleaved>, rotate_rows<Float32, Layout::kHalf>},
    {rotate_rows<Float16, Layout::kInterleaved>, rotate_rows<Float16, Layout::kHalf>},
    {rotate_rows<BFloat16, Layout::kInterleaved>, rotate_rows<BFloat16, Layout::kHalf>},
}};

}  // namespace

const Kernels& baseline_kernels() { return kKernels; }

}  // namespace ggufext::rope
