// What the per-instruction-set kernel files read and offer. Plain types: no standard library, whose
// inline functions the linker could take from a file compiled for another processor.
#pragma once

#include <cstdint>

namespace ggufext::rope {

enum class ElementType { kFloat32, kFloat16, kBFloat16 };

inline int64_t element_size(ElementType type) { return type == ElementType::kFloat32 ? 4 : 2; }

/// Which elements form a pair: 2i and 2i + 1, or i and i + rotary_dim / 2.
enum class Layout { kInterleaved, kHalf };

/// One tensor of a job: strides of batch, token and head in bytes.
struct Operand {
  const char* in;
  char* out;
  int64_t in_strides[3];
  int64_t out_strides[3];
  int64_t heads;
  int64_t head_dim;
};

/// A Job with everything the inner loops need in plain arrays.
struct Rows {
  const uint32_t* step_high;  ///< upper and lower halves of the phase steps, padded with zeros to
  const uint32_t* step_low;   ///< a multiple of kStepPadding
  const uint32_t* pair_rows;  ///< row of positions each pair reads (padded alike), or null
  const uint32_t* positions;  ///< [rows][batch or 1][tokens]
  uint32_t position_rows;
  int64_t position_row_stride;    ///< elements
  int64_t position_batch_stride;  ///< elements; 0 when all batches share positions
  int64_t pairs;
  int64_t tokens;
  float factor;
  float factor_rest;
  const Operand* operands;
  int operand_count;
};

constexpr int64_t kStepPadding = 32;

/// Rotates tokens begin … end − 1, counted through all batches.
using RotateRows = void (*)(const Rows& rows, int64_t begin, int64_t end);

/// Kernels of one instruction set, by [ElementType][Layout].
struct Kernels {
  RotateRows rotate[3][2];
};

const Kernels& baseline_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();

}  // namespace ggufext::rope
