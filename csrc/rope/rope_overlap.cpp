#include "rope_overlap.hpp"

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

namespace ggufext::rope {
namespace {

struct Axis {
  int64_t stride;  // bytes, > 0
  int64_t count;   // > 1
};

/// A set of byte runs: `run` bytes at `start` + Σ index · stride; axes with the largest stride
/// first. An address is a number here, so that runs of two tensors compare.
struct Runs {
  int64_t start;
  int64_t run;
  std::vector<Axis> axes;

  int64_t extent(size_t first_axis = 0) const {
    int64_t bytes = run;
    for (size_t i = first_axis; i < axes.size(); ++i) bytes += axes[i].stride * (axes[i].count - 1);
    return bytes;
  }
};

/// Empty tensors give a run of 0 bytes.
Runs runs_of(const Tensor& t) {
  Runs runs{reinterpret_cast<int64_t>(t.data), t.shape[3] * element_size(t.type), {}};
  for (int i = 0; i < 3; ++i) {
    if (t.shape[i] == 0) runs.run = 0;
    if (t.shape[i] <= 1 || t.strides[i] == 0) continue;
    if (t.strides[i] < 0) runs.start += t.strides[i] * (t.shape[i] - 1);
    runs.axes.push_back({std::abs(t.strides[i]), t.shape[i]});
  }
  std::sort(runs.axes.begin(), runs.axes.end(),
            [](const Axis& a, const Axis& b) { return a.stride > b.stride; });
  while (!runs.axes.empty() && runs.axes.back().stride <= runs.run) {
    runs.run += runs.axes.back().stride * (runs.axes.back().count - 1);
    runs.axes.pop_back();
  }
  return runs;
}

bool disjoint_extents(int64_t a, int64_t a_bytes, int64_t b, int64_t b_bytes) {
  return a + a_bytes <= b || b + b_bytes <= a;
}

/// Both repeat with the same largest stride and fit between its steps: compare one period. This
/// answers fused QKV tensors at once.
bool disjoint_in_period(const Runs& a, const Runs& b) {
  if (a.axes.empty() || b.axes.empty() || a.axes[0].stride != b.axes[0].stride) return false;
  const int64_t period = a.axes[0].stride;
  const int64_t a_bytes = a.extent(1);
  const int64_t b_bytes = b.extent(1);
  const int64_t gap = ((b.start - a.start) % period + period) % period;
  return gap >= a_bytes && gap + b_bytes <= period;
}

bool overlap_runs(const Runs& a, const Runs& b);

/// Fixes each index of a's outermost axis in turn; only those that reach b's extent matter.
bool overlap_along_axis(const Runs& a, const Runs& b) {
  Runs part = a;
  part.axes.erase(part.axes.begin());
  const Axis axis = a.axes[0];
  const int64_t reach = part.extent();
  const int64_t low = (b.start - a.start - reach) / axis.stride;
  const int64_t high = (b.start + b.extent() - a.start) / axis.stride;
  for (int64_t i = std::max<int64_t>(0, low); i <= std::min(axis.count - 1, high); ++i) {
    part.start = a.start + i * axis.stride;
    if (overlap_runs(part, b)) return true;
  }
  return false;
}

bool overlap_runs(const Runs& a, const Runs& b) {
  if (disjoint_extents(a.start, a.extent(), b.start, b.extent())) return false;
  if (disjoint_in_period(a, b)) return false;
  if (a.axes.empty() && b.axes.empty()) return true;
  const bool split_a = b.axes.empty() || (!a.axes.empty() && a.extent() >= b.extent());
  return split_a ? overlap_along_axis(a, b) : overlap_along_axis(b, a);
}

}  // namespace

bool same_memory(const Tensor& a, const Tensor& b) {
  if (a.data != b.data) return false;
  for (int i = 0; i < 4; ++i) {
    if (a.shape[i] != b.shape[i]) return false;
    if (i < 3 && a.shape[i] > 1 && a.strides[i] != b.strides[i]) return false;
  }
  return true;
}

bool overlap(const Tensor& a, const Tensor& b) {
  const Runs first = runs_of(a);
  const Runs second = runs_of(b);
  if (first.run == 0 || second.run == 0) return false;
  return overlap_runs(first, second);
}

bool overlaps_itself(const Tensor& t) {
  int64_t extent = t.shape[3] * element_size(t.type);
  std::vector<Axis> axes;
  for (int i = 0; i < 3; ++i) {
    if (t.shape[i] == 0) return false;
    if (t.shape[i] > 1) axes.push_back({std::abs(t.strides[i]), t.shape[i]});
  }
  std::sort(axes.begin(), axes.end(),
            [](const Axis& a, const Axis& b) { return a.stride < b.stride; });
  for (const Axis& axis : axes) {
    if (axis.stride < extent) return extent > 0;
    extent += axis.stride * (axis.count - 1);
  }
  return false;
}

}  // namespace ggufext::rope
