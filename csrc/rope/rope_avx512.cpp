// The kernel for processors with AVX-512 (F, BW, DQ, VL): see cmake/libraries.cmake for its flags.
namespace ggufext::rope {
namespace {
constexpr int kWidth = 16;
}
}  // namespace ggufext::rope

#include "rope_kernel.hpp"

namespace ggufext::rope {
const Kernels& avx512_kernels() { return kKernels; }
}  // namespace ggufext::rope
