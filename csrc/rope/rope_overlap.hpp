// Whether tensors share memory, exactly: fused QKV tensors interleave without overlapping.
#pragma once

#include "rope.hpp"

namespace ggufext::rope {

/// Same elements at the same addresses: the in-place case.
bool same_memory(const Tensor& a, const Tensor& b);

/// Whether any byte belongs to both.
bool overlap(const Tensor& a, const Tensor& b);

/// Whether two elements may lie at one address: strides that do not nest count as such.
bool overlaps_itself(const Tensor& t);

}  // namespace ggufext::rope
