#pragma once

#include "rope.hpp"

namespace ggufext::rope {

/// Rotates on the job's device, on `stream` (the address of a cudaStream_t, 0: the legacy default
/// stream). Returns as soon as the work is queued, except that positions in device memory are read
/// once to check them; a stream that is being captured into a graph cannot be, and skips that.
Status rotate_on_cuda(const Job& job, const Positions& positions, uint64_t stream);

/// Devices that can be used, or an error that says why there are none.
Status count_cuda_devices(int* count);

}  // namespace ggufext::rope
