#include "rope.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "pool.hpp"
#include "rope_rows.hpp"
#include "system.hpp"

#ifdef GGUFEXT_X86_KERNELS
#include <cpuid.h>
#endif

namespace ggufext::rope {
namespace {

struct InstructionSet {
  const char* name;
  const Kernels& (*kernels)();
};

#ifdef GGUFEXT_X86_KERNELS
bool has_avx2() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool has_f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
  return has_f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

/// The best set this processor has, or the lower one that GGUFEXT_ISA names.
InstructionSet choose_instruction_set() {
#ifdef GGUFEXT_X86_KERNELS
  const char* named = std::getenv("GGUFEXT_ISA");
  const std::string limit = named ? named : "";
  if (has_avx512() && limit != "avx2" && limit != "baseline") return {"avx512", avx512_kernels};
  if (has_avx2() && limit != "baseline") return {"avx2", avx2_kernels};
#endif
  return {"baseline", baseline_kernels};
}

/// Chosen while the module is loaded: nothing may change the environment meanwhile, as another
/// thread could later.
const InstructionSet chosen = choose_instruction_set();

/// Below this many bytes, waking a helper costs more than it saves.
constexpr int64_t kParallelBytes = 512 * 1024;
/// Bytes of a chunk: large enough for the hardware to stream, small enough to share out evenly.
constexpr int64_t kChunkBytes = 256 * 1024;

struct Call {
  Rows rows;
  RotateRows rotate;
};

void run_call(const void* context, int64_t begin, int64_t end) {
  const auto* call = static_cast<const Call*>(context);
  call->rotate(call->rows, begin, end);
}

int64_t padded(int64_t pairs) { return (pairs + kStepPadding - 1) / kStepPadding * kStepPadding; }

}  // namespace

const char* instruction_set() { return chosen.name; }

void rotate_on_cpu(const Job& job, const uint32_t* positions, int threads) {
  const int64_t items = job.batch * job.tokens;
  if (items == 0) return;
  const auto room = static_cast<size_t>(padded(job.pairs()));
  std::vector<uint32_t> high(room), low(room);
  for (size_t i = 0; i < job.steps.size(); ++i) {
    high[i] = static_cast<uint32_t>(job.steps[i] >> 32);
    low[i] = static_cast<uint32_t>(job.steps[i]);
  }
  std::vector<uint32_t> pair_rows(job.rows.begin(), job.rows.end());
  if (!pair_rows.empty()) pair_rows.resize(room);

  Call call{};
  Rows& rows = call.rows;
  rows.step_high = high.data();
  rows.step_low = low.data();
  rows.pair_rows = pair_rows.empty() ? nullptr : pair_rows.data();
  rows.positions = positions;
  rows.position_rows = static_cast<uint32_t>(job.position_rows);
  rows.position_batch_stride = job.batched_positions ? job.tokens : 0;
  rows.position_row_stride = job.tokens * (job.batched_positions ? job.batch : 1);
  rows.pairs = job.pairs();
  rows.tokens = job.tokens;
  rows.factor = job.factor;
  rows.factor_rest = job.factor_rest;
  rows.operands = job.operands.data();
  rows.operand_count = static_cast<int>(job.operands.size());
  call.rotate = chosen.kernels().rotate[static_cast<int>(job.type)][static_cast<int>(job.layout)];

  const int64_t token_bytes = std::max<int64_t>(1, job.bytes_per_token());
  if (threads == 0)
    threads = items * token_bytes < kParallelBytes ? 1 : system::available_processors();
  run_parallel({run_call, &call, items, std::max<int64_t>(1, kChunkBytes / token_bytes)}, threads);
}

}  // namespace ggufext::rope
