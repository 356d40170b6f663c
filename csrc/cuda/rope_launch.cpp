#include "rope_launch.hpp"

#include <algorithm>
#include <cstring>

namespace ggufext::rope {
namespace {

constexpr int kVectorBytes = 16;
constexpr int kLargestBlock = 512;

/// Whether every access of a rotation may be 16 bytes wide.
bool vectors_fit(const Job& job) {
  const int64_t size = element_size(job.type);
  const int64_t piece = job.pairs() * size * (job.layout == Layout::kHalf ? 1 : 2);
  uint64_t bits = static_cast<uint64_t>(piece);
  for (const Operand& o : job.operands) {
    bits |= reinterpret_cast<uint64_t>(o.in) | reinterpret_cast<uint64_t>(o.out);
    for (int i = 0; i < 3; ++i) {
      bits |= static_cast<uint64_t>(o.in_strides[i]) | static_cast<uint64_t>(o.out_strides[i]);
    }
  }
  return bits % kVectorBytes == 0;
}

int64_t total_heads(const Job& job) {
  int64_t heads = 0;
  for (const Operand& o : job.operands) heads += o.heads;
  return heads;
}

}  // namespace

Geometry choose_geometry(const Job& job) {
  const int64_t size = element_size(job.type);
  const int64_t elements = job.layout == Layout::kHalf ? job.pairs() : 2 * job.pairs();
  const int64_t narrow = job.layout == Layout::kHalf ? size : 2 * size;
  const int64_t vector = vectors_fit(job) ? kVectorBytes : narrow;
  const int64_t lanes = std::max<int64_t>(1, elements * size / vector);
  const int64_t heads = std::max<int64_t>(1, total_heads(job));
  const int64_t most = std::max<int64_t>(1, kLargestBlock / lanes);
  const int64_t rounds = (heads + most - 1) / most;
  const int64_t per_round = (heads + rounds - 1) / rounds;
  return {static_cast<int>(vector), static_cast<int>(lanes), static_cast<int>(lanes * per_round)};
}

Status fill_launch(const Job& job, Launch* launch) {
  if (job.pairs() > kCudaPairs) {
    return Status::error("value",
                         "has " + std::to_string(job.pairs()) + " frequencies, expected at most " +
                             std::to_string(kCudaPairs) + " on CUDA",
                         "inv_freq");
  }
  std::memset(static_cast<void*>(launch), 0, sizeof *launch);
  std::copy(job.operands.begin(), job.operands.end(), launch->operands);
  launch->operand_count = static_cast<int32_t>(job.operands.size());
  launch->total_heads = static_cast<int32_t>(total_heads(job));
  launch->tokens = job.tokens;
  launch->pairs = static_cast<int32_t>(job.pairs());
  launch->lanes = choose_geometry(job).lanes;
  launch->factor = job.factor;
  launch->factor_rest = job.factor_rest;
  launch->sectioned = !job.rows.empty();
  std::copy(job.steps.begin(), job.steps.end(), launch->steps);
  std::copy(job.rows.begin(), job.rows.end(), launch->rows);
  return Status::ok();
}

void set_packed_positions(const Job& job, const void* data, Launch* launch) {
  launch->positions = static_cast<const char*>(data);
  launch->position_size = 4;
  launch->position_strides[0] = 4 * job.tokens * (job.batched_positions ? job.batch : 1);
  launch->position_strides[1] = job.batched_positions ? 4 * job.tokens : 0;
  launch->position_strides[2] = 4;
}

void set_inline_positions(const Job& job, const std::vector<uint32_t>& positions, Launch* launch) {
  set_packed_positions(job, nullptr, launch);
  std::copy(positions.begin(), positions.end(), launch->inline_positions);
}

void set_array_positions(const Job& job, const Positions& positions, Launch* launch) {
  const bool sectioned = !job.rows.empty();
  const int dims = positions.dims;
  launch->positions = positions.data;
  launch->position_size = positions.item_size;
  launch->position_strides[0] = sectioned ? positions.strides[0] : 0;
  launch->position_strides[1] = job.batched_positions ? positions.strides[dims - 2] : 0;
  launch->position_strides[2] = positions.strides[dims - 1];
}

}  // namespace ggufext::rope
