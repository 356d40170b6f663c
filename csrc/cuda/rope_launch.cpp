#include "rope_launch.hpp"

#include <algorithm>
#include <cstring>

namespace ggufext::rope {
namespace {

constexpr int kVectorBytes = 16;
constexpr int kLargestBlockDepth = 64;  // CUDA's limit

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

int64_t total_groups(const Job& job) {
  int64_t groups = 0;
  for (const Operand& o : job.operands) groups += head_groups(o.heads, heads_together(job.layout));
  return groups;
}

bool counts_up(const uint32_t* positions, size_t count) {
  uint32_t difference = 0;
  for (size_t i = 0; i < count; ++i) {
    difference |= positions[i] - positions[0] - static_cast<uint32_t>(i);
  }
  return difference == 0;
}

int64_t round_up_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

Geometry choose_geometry(const Job& job) {
  const int64_t size = element_size(job.type);
  const int64_t elements = job.layout == Layout::kHalf ? job.pairs() : 2 * job.pairs();
  const int64_t narrow = job.layout == Layout::kHalf ? size : 2 * size;
  const int64_t vector = vectors_fit(job) ? kVectorBytes : narrow;
  const int64_t lanes = std::max<int64_t>(1, elements * size / vector);
  const int64_t groups = std::max<int64_t>(1, total_groups(job));
  const int64_t most = std::max<int64_t>(1, kBlockThreads / lanes);
  const int64_t rounds = round_up_divide(groups, most);
  const int64_t block_groups = round_up_divide(groups, rounds);
  const int64_t block_tokens = std::clamp<int64_t>(most / block_groups, 1, kLargestBlockDepth);
  Geometry g{};
  g.vector_bytes = static_cast<int>(vector);
  g.block[0] = static_cast<unsigned>(lanes);
  g.block[1] = static_cast<unsigned>(block_groups);
  g.block[2] = static_cast<unsigned>(block_tokens);
  g.grid[0] = static_cast<unsigned>(round_up_divide(job.batch * job.tokens, block_tokens));
  g.grid[1] = static_cast<unsigned>(rounds);
  return g;
}

Status fill_launch(const Job& job, Launch* launch) {
  if (job.pairs() > kCudaPairs) {
    return Status::error("value",
                         "has " + std::to_string(job.pairs()) + " frequencies, expected at most " +
                             std::to_string(kCudaPairs) + " on CUDA",
                         "inv_freq");
  }
  if (job.batch * job.tokens > kLargestPosition) {
    return Status::error("value", "more than 2147483647 tokens in one call", "positions");
  }
  std::memset(static_cast<void*>(launch), 0, sizeof *launch);
  std::copy(job.operands.begin(), job.operands.end(), launch->operands);
  launch->tokens = static_cast<uint32_t>(job.tokens);
  launch->total_tokens = static_cast<uint32_t>(job.batch * job.tokens);
  launch->lanes = choose_geometry(job).block[0];
  launch->groups = static_cast<uint32_t>(total_groups(job));
  launch->pairs = static_cast<int32_t>(job.pairs());
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

bool set_inline_positions(const Job& job, const std::vector<uint32_t>& positions, Launch* launch) {
  if (positions.size() <= kInlinePositions) {
    set_packed_positions(job, nullptr, launch);
    std::copy(positions.begin(), positions.end(), launch->inline_positions);
    return true;
  }
  const auto tokens = static_cast<size_t>(job.tokens);
  const size_t sequences = positions.size() / tokens;
  if (sequences > kInlinePositions) return false;
  for (size_t i = 0; i < sequences; ++i) {
    const uint32_t* sequence = positions.data() + i * tokens;
    if (!counts_up(sequence, tokens)) return false;
    launch->inline_positions[i] = *sequence;
  }
  set_packed_positions(job, nullptr, launch);
  launch->position_strides[0] /= job.tokens;
  launch->position_strides[1] /= job.tokens;
  launch->position_strides[2] = 0;
  launch->position_step = 1;
  return true;
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
