// The kernel for processors with AVX2, FMA and F16C: see cmake/libraries.cmake for its flags.
namespace ggufext::rope {
namespace {
constexpr int kWidth = 8;
}
}  // namespace ggufext::rope

#include "rope_kernel.hpp"

namespace ggufext::rope {
const Kernels& avx2_kernels() { return kKernels; }
}  // namespace ggufext::rope
