// Runs what the CUDA kernel's threads do on the host, for the tests that have no device: the same
// function, the same parameters, the same geometry.
#include <algorithm>
#include <iterator>
#include <vector>

#include "rope_launch.hpp"

using namespace ggufext;
using namespace ggufext::rope;

namespace {

/// All threads, the last one first: no result may depend on their order.
template <class Element, Layout layout, int V>
void run_threads(const Launch& launch, const Geometry& g) {
  for (unsigned token = g.grid[0] * g.block[2]; token-- > 0;) {
    for (unsigned group = g.grid[1] * g.block[1]; group-- > 0;) {
      for (unsigned lane = g.block[0]; lane-- > 0;) {
        rotate_group<Element, layout, V>(launch, token, group, lane);
      }
    }
  }
}

template <class Element, Layout layout>
void run_layout(const Launch& launch, const Geometry& g) {
  constexpr int kWide = 16 / sizeof(typename Element::Storage);
  constexpr int kNarrow = layout == Layout::kHalf ? 1 : 2;
  if (g.vector_bytes == 16) {
    run_threads<Element, layout, kWide>(launch, g);
  } else {
    run_threads<Element, layout, kNarrow>(launch, g);
  }
}

template <class Element>
void run_type(const Job& job, const Launch& launch) {
  const Geometry g = choose_geometry(job);
  if (job.layout == Layout::kHalf) {
    run_layout<Element, Layout::kHalf>(launch, g);
  } else {
    run_layout<Element, Layout::kInterleaved>(launch, g);
  }
}

}  // namespace

/// Arguments of one tensor, four dimensions, strides in bytes.
struct Array {
  void* data;
  int64_t shape[4];
  int64_t strides[4];
};

namespace {

Tensor tensor_of(const Array& a, int type) {
  Tensor t;
  t.type = static_cast<ElementType>(type);
  t.data = static_cast<char*>(a.data);
  for (int i = 0; i < 4; ++i) {
    t.shape[i] = a.shape[i];
    t.strides[i] = a.strides[i];
  }
  return t;
}

}  // namespace

/// Rotates `count` tensors as the CUDA path would. Positions are int64 [rows][batch][tokens] when
/// `rows` is not 0, else [tokens]. `as_array` chooses between a device array of positions and
/// packed or inline ones. Returns bytes of an access, lanes, groups and tokens of a block, groups
/// of blocks, and whether positions were inline in `geometry`; 0 on success.
extern "C" int emulate(int type, int layout, int count, const Array* in, const Array* out,
                       const int64_t* positions, int rows, const int64_t* sections, int order,
                       const double* inv_freq, int pairs, double factor, int as_array,
                       int* geometry) {
  Request request;
  for (int i = 0; i < count; ++i) {
    request.in.push_back(tensor_of(in[i], type));
    request.out.push_back(tensor_of(out[i], type));
  }
  const int64_t batch = in[0].shape[0], tokens = in[0].shape[1];
  Positions& p = request.positions;
  p.data = reinterpret_cast<const char*>(positions);
  if (rows == 0) {
    p.dims = 1;
    p.shape[0] = tokens;
    p.strides[0] = 8;
  } else {
    p.dims = 3;
    const int64_t shape[3] = {rows, batch, tokens};
    const int64_t strides[3] = {8 * batch * tokens, 8 * tokens, 8};
    for (int i = 0; i < 3; ++i) {
      p.shape[i] = shape[i];
      p.strides[i] = strides[i];
    }
    request.sections.assign(sections, sections + rows);
    request.section_order = static_cast<SectionOrder>(order);
  }
  request.inv_freq.assign(inv_freq, inv_freq + pairs);
  request.attention_factor = factor;
  request.layout = static_cast<Layout>(layout);
  Job job;
  if (!prepare(request, &job).is_ok()) return 1;
  Launch launch;
  if (!fill_launch(job, &launch).is_ok()) return 2;
  std::vector<uint32_t> packed;
  if (!read_positions(p, &packed).is_ok()) return 3;
  bool is_inline = false;
  if (as_array) {
    set_array_positions(job, p, &launch);
  } else if (set_inline_positions(job, packed, &launch)) {
    is_inline = true;
  } else {
    set_packed_positions(job, packed.data(), &launch);
  }
  const Geometry g = choose_geometry(job);
  const int values[] = {g.vector_bytes,
                        static_cast<int>(g.block[0]),
                        static_cast<int>(g.block[1]),
                        static_cast<int>(g.block[2]),
                        static_cast<int>(g.grid[1]),
                        is_inline};
  std::copy(std::begin(values), std::end(values), geometry);
  switch (job.type) {
    case ElementType::kFloat32:
      run_type<CudaFloat32>(job, launch);
      break;
    case ElementType::kFloat16:
      run_type<CudaFloat16>(job, launch);
      break;
    case ElementType::kBFloat16:
      run_type<CudaBFloat16>(job, launch);
      break;
  }
  return 0;
}
