// The kernel for every processor of the architecture (SSE2; NEON on ARM): see cmake/libraries.cmake
// for its flags.
namespace ggufext::rope {
namespace {
constexpr int kWidth = 4;
}
}  // namespace ggufext::rope

#include "rope_kernel.hpp"

namespace ggufext::rope {
const Kernels& baseline_kernels() { return kKernels; }
}  // namespace ggufext::rope
