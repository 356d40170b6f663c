// What a rotation is, checked once and completely before any kernel may run. No Python, no CUDA.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rope_rows.hpp"
#include "status.hpp"

namespace ggufext::rope {

/// How pairs are dealt to the rows of positions: in blocks (MROPE) or in turn (IMROPE).
enum class SectionOrder { kNone, kBlocked, kInterleaved };

/// Where memory lies; `index` tells devices of one kind apart.
struct Place {
  bool cuda = false;
  int index = 0;
  bool operator==(const Place& other) const { return cuda == other.cuda && index == other.index; }
  bool operator!=(const Place& other) const { return !(*this == other); }
  std::string name() const { return cuda ? "CUDA device " + std::to_string(index) : "the CPU"; }
};

/// A tensor [batch, tokens, heads, head_dim] that somebody else owns. Strides count bytes. Three
/// dimensions as given become four with batch 1.
struct Tensor {
  std::string name;  ///< the argument it came from, for errors
  ElementType type = ElementType::kFloat32;
  Place place;
  char* data = nullptr;
  int given_dims = 4;
  int64_t shape[4] = {1, 0, 0, 0};
  int64_t strides[4] = {0, 0, 0, 0};
  bool writable = true;
  bool allocate = false;  ///< an output that does not exist yet: only its input is checked
};

/// Positions: [tokens], [batch, tokens], and a leading [rows] with sections. Strides count bytes.
struct Positions {
  Place place;
  const char* data = nullptr;
  int dims = 1;
  int64_t shape[3] = {0, 0, 0};
  int64_t strides[3] = {0, 0, 0};
  int item_size = 8;
  bool is_signed = true;
};

/// A call as the user wrote it. `in` and `out` hold x, or q and k.
struct Request {
  std::vector<Tensor> in;
  std::vector<Tensor> out;
  Positions positions;
  std::vector<double> inv_freq;      ///< radians per token, one a pair
  std::vector<double> old_inv_freq;  ///< frequencies to take away again (rebase), or empty
  double attention_factor = 1.0;
  double old_attention_factor = 1.0;
  Layout layout = Layout::kInterleaved;
  int64_t rotary_dim = -1;  ///< −1: twice the number of frequencies
  std::vector<int64_t> sections;
  SectionOrder section_order = SectionOrder::kNone;
  bool inverse = false;
};

constexpr int64_t kLargestPosition = 2147483647;

/// A checked request, in the form the kernels read.
struct Job {
  ElementType type = ElementType::kFloat32;
  Layout layout = Layout::kInterleaved;
  Place place;
  std::vector<uint64_t> steps;  ///< phase_step of each pair
  std::vector<uint8_t> rows;    ///< with sections: the row of positions each pair reads
  float factor = 1.0f;          ///< attention factor, rounded to float
  float factor_rest = 0.0f;     ///< what the rounding lost
  int64_t batch = 1;
  int64_t tokens = 0;
  int64_t position_rows = 1;
  bool batched_positions = false;
  std::vector<Operand> operands;

  int64_t pairs() const { return static_cast<int64_t>(steps.size()); }
  int64_t bytes_per_token() const;
};

/// Checks everything but the values of positions. Writes nothing. Output operands that are to be
/// allocated get a null `out`.
Status prepare(const Request& request, Job* job);

/// Positions in host memory, checked and packed as [rows][batch or 1][tokens].
Status read_positions(const Positions& positions, std::vector<uint32_t>* packed);

/// "positions: 7,000,000,000 at token 3 …": also for values that were found on a device.
Status position_error(const std::string& value);

/// Rotates on the CPU. `threads` 0: as many as the size is worth.
void rotate_on_cpu(const Job& job, const uint32_t* positions, int threads);

/// Instruction set the CPU kernels use here: "avx512", "avx2" or "baseline"; the environment
/// variable GGUFEXT_ISA lowers it.
const char* instruction_set();

}  // namespace ggufext::rope
