// From a checked job to the parameters and the shape of a launch: host code, tested without a
// device.
#pragma once

#include <vector>

#include "rope.hpp"
#include "rope_block.hpp"

namespace ggufext::rope {

/// Most threads of a block. A head of kCudaPairs pairs takes as many, one a pair.
constexpr int kBlockThreads = 256;
static_assert(kBlockThreads >= kCudaPairs, "a head fits a block");

struct Geometry {
  int vector_bytes;   ///< 16, or the smallest access the layout allows
  unsigned block[3];  ///< threads: lanes of a head, groups of heads, tokens
  unsigned grid[2];   ///< blocks: tokens, groups of heads
};

/// 16-byte accesses when every address allows them; whole tokens a block where they fit, of even
/// load.
Geometry choose_geometry(const Job& job);

/// Parameters but for positions. Fails when there are more frequencies than a launch can carry.
Status fill_launch(const Job& job, Launch* launch);

/// Positions in memory of the device or of the host, packed as read_positions() leaves them.
void set_packed_positions(const Job& job, const void* data, Launch* launch);

/// Positions inside the launch itself: at most kInlinePositions, or any number when they count up
/// by one from token to token, as in a prompt. False when neither holds.
bool set_inline_positions(const Job& job, const std::vector<uint32_t>& positions, Launch* launch);

/// Positions as the user's device array holds them.
void set_array_positions(const Job& job, const Positions& positions, Launch* launch);

}  // namespace ggufext::rope
