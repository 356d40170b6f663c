#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "rope.hpp"
#include "rope_overlap.hpp"
#include "rope_phase.hpp"

namespace ggufext::rope {
namespace {

Status type_error(const std::string& field, const std::string& message) {
  return Status::error("type", message, field);
}

Status value_error(const std::string& field, const std::string& message) {
  return Status::error("value", message, field);
}

const char* type_name(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return "float32";
    case ElementType::kFloat16:
      return "float16";
    default:
      return "bfloat16";
  }
}

std::string shape_text(const int64_t* shape, int dims) {
  std::string text = "[";
  for (int i = 0; i < dims; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string shape_text(const Tensor& t) {
  return shape_text(t.shape + 4 - t.given_dims, t.given_dims);
}

bool is_empty(const Tensor& t) {
  return std::any_of(t.shape, t.shape + 4, [](int64_t n) { return n == 0; });
}

Status check_last_axis(const Tensor& t) {
  if (t.shape[3] <= 1 || is_empty(t) || t.strides[3] == element_size(t.type)) return Status::ok();
  return value_error(t.name, "the last axis has a stride of " + std::to_string(t.strides[3]) +
                                 " bytes, expected " + std::to_string(element_size(t.type)) +
                                 " (elements side by side); this layout would need a copy: make "
                                 "one, or pass a view whose last axis is contiguous");
}

Status check_alignment(const Tensor& t) {
  if (!t.place.cuda) return Status::ok();
  uint64_t bits = reinterpret_cast<uint64_t>(t.data);
  for (int i = 0; i < 3; ++i) {
    if (t.shape[i] > 1) bits |= static_cast<uint64_t>(t.strides[i]);
  }
  if (is_empty(t) || bits % static_cast<uint64_t>(element_size(t.type)) == 0) return Status::ok();
  return value_error(t.name,
                     "its address or strides are not multiples of the element size, which "
                     "a CUDA device cannot read: pass an aligned array");
}

Status check_inputs(const Request& request) {
  const Tensor& first = request.in[0];
  for (const Tensor& t : request.in) {
    if (t.type != first.type) {
      return type_error(t.name, std::string("is ") + type_name(t.type) + " but " + first.name +
                                    " is " + type_name(first.type) + ": use one type for both");
    }
    if (t.place != first.place) {
      return value_error(t.name, "lies on " + t.place.name() + " but " + first.name + " on " +
                                     first.place.name() + ": move one of them");
    }
    if (t.given_dims != first.given_dims || t.shape[0] != first.shape[0] ||
        t.shape[1] != first.shape[1]) {
      return value_error(t.name, "has shape " + shape_text(t) + " but " + first.name + " has " +
                                     shape_text(first) + ": batch and tokens must agree");
    }
    if (Status s = check_last_axis(t); !s.is_ok()) return s;
    if (Status s = check_alignment(t); !s.is_ok()) return s;
  }
  return Status::ok();
}

Status check_output(const Tensor& out, const Tensor& in) {
  if (out.type != in.type) {
    return type_error(out.name, std::string("is ") + type_name(out.type) + ", expected " +
                                    type_name(in.type) + " like " + in.name);
  }
  if (out.place != in.place) {
    return value_error(out.name, "lies on " + out.place.name() + ", expected " + in.place.name() +
                                     " like " + in.name);
  }
  if (out.given_dims != in.given_dims || !std::equal(out.shape, out.shape + 4, in.shape)) {
    return value_error(out.name, "has shape " + shape_text(out) + ", expected " + shape_text(in) +
                                     " like " + in.name);
  }
  if (!out.writable) {
    return value_error(out.name, "is read-only: pass an array that may be written");
  }
  if (Status s = check_last_axis(out); !s.is_ok()) return s;
  if (Status s = check_alignment(out); !s.is_ok()) return s;
  if (overlaps_itself(out)) {
    return value_error(out.name, "has several elements at one address: pass an array of its own");
  }
  return Status::ok();
}

/// In place is the one way in which an output may share memory with anything.
Status check_overlap(const Request& request) {
  for (size_t i = 0; i < request.out.size(); ++i) {
    const Tensor& out = request.out[i];
    if (out.allocate) continue;
    for (size_t j = 0; j < request.in.size(); ++j) {
      if (i == j && same_memory(out, request.in[j])) continue;
      if (overlap(out, request.in[j])) {
        return value_error(out.name, "shares memory with " + request.in[j].name +
                                         " without being the same array: results would overwrite "
                                         "what is still to be read");
      }
    }
    for (size_t j = i + 1; j < request.out.size(); ++j) {
      if (!request.out[j].allocate && overlap(out, request.out[j])) {
        return value_error(request.out[j].name, "shares memory with " + out.name);
      }
    }
  }
  return Status::ok();
}

Status check_frequencies(const std::vector<double>& inv_freq, const std::string& name) {
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    if (std::isfinite(inv_freq[i]) && inv_freq[i] >= 0) continue;
    return value_error(name, "element " + std::to_string(i) + " is " + std::to_string(inv_freq[i]) +
                                 ", expected a finite number of radians per token, at least 0");
  }
  return Status::ok();
}

Status check_factor(double factor, const std::string& name) {
  if (std::isfinite(factor) && factor > 0 && factor <= std::numeric_limits<float>::max() &&
      1 / factor <= std::numeric_limits<float>::max())
    return Status::ok();
  return value_error(name, "is " + std::to_string(factor) +
                               ", expected a finite number above 0 that fits float32");
}

Status check_rotary_dim(const Request& request) {
  const auto pairs = static_cast<int64_t>(request.inv_freq.size());
  if (request.rotary_dim >= 0 && request.rotary_dim % 2 != 0) {
    return value_error("rotary_dim", "is " + std::to_string(request.rotary_dim) +
                                         ", expected an even number: elements rotate in pairs");
  }
  if (request.rotary_dim >= 0 && request.rotary_dim != 2 * pairs) {
    return value_error("inv_freq", "has " + std::to_string(pairs) + " frequencies, expected " +
                                       std::to_string(request.rotary_dim / 2) +
                                       " (rotary_dim / 2)");
  }
  for (const Tensor& t : request.in) {
    if (2 * pairs <= t.shape[3]) continue;
    const std::string dims = std::to_string(2 * pairs);
    if (request.rotary_dim >= 0) {
      return value_error("rotary_dim", "is " + dims + ", more than head_dim " +
                                           std::to_string(t.shape[3]) + " of " + t.name);
    }
    return value_error("inv_freq", "has " + std::to_string(pairs) + " frequencies for " + dims +
                                       " elements, more than head_dim " +
                                       std::to_string(t.shape[3]) + " of " + t.name);
  }
  return Status::ok();
}

Status check_sections(const Request& request) {
  if (request.sections.empty()) {
    if (request.section_order == SectionOrder::kNone) return Status::ok();
    return value_error("section_order", "is given without sections: pass sections=(t, h, w, e)");
  }
  if (request.section_order == SectionOrder::kNone) {
    return value_error("section_order",
                       "is missing: pass \"blocked\" (MROPE) or \"interleaved\" (IMROPE)");
  }
  const auto pairs = static_cast<int64_t>(request.inv_freq.size());
  int64_t sum = 0;
  bool valid = request.sections.size() == 3 || request.sections.size() == 4;
  for (const int64_t n : request.sections) {
    valid = valid && n >= 0 && n <= pairs;
    sum += valid ? n : 0;
  }
  if (valid && sum == pairs) return Status::ok();
  return value_error(
      "sections", shape_text(request.sections.data(), static_cast<int>(request.sections.size())) +
                      ", expected 3 or 4 numbers of pairs (t, h, w, e), at least 0, that add up "
                      "to the " +
                      std::to_string(pairs) + " frequencies");
}

Status check_position_shape(const Request& request) {
  const Positions& p = request.positions;
  const Tensor& x = request.in[0];
  const bool sectioned = !request.sections.empty();
  const int lead = sectioned ? 1 : 0;
  const bool batched = p.dims == lead + 2;
  const bool dims_fit = p.dims == lead + 1 || (batched && x.given_dims == 4);
  const bool fits = dims_fit && p.shape[p.dims - 1] == x.shape[1] &&
                    (!batched || p.shape[lead] == x.shape[0]) &&
                    (!sectioned || p.shape[0] == static_cast<int64_t>(request.sections.size()));
  if (fits) return Status::ok();
  std::string rows = sectioned ? std::to_string(request.sections.size()) + ", " : "";
  std::string expected = "[" + rows + std::to_string(x.shape[1]) + "]";
  if (x.given_dims == 4) {
    expected +=
        " or [" + rows + std::to_string(x.shape[0]) + ", " + std::to_string(x.shape[1]) + "]";
  }
  return value_error("positions", "has shape " + shape_text(p.shape, p.dims) + ", expected " +
                                      expected + " for " + x.name + " of shape " + shape_text(x));
}

Status check_position_place(const Request& request) {
  const Place& place = request.positions.place;
  if (!place.cuda || place == request.in[0].place) return Status::ok();
  return value_error("positions", "lies on " + place.name() + ", expected the CPU or " +
                                      request.in[0].place.name() + " like " + request.in[0].name);
}

Status check_all(const Request& request) {
  if (Status s = check_inputs(request); !s.is_ok()) return s;
  if (Status s = check_frequencies(request.inv_freq, "inv_freq"); !s.is_ok()) return s;
  if (Status s = check_factor(request.attention_factor, "attention_factor"); !s.is_ok()) return s;
  if (Status s = check_frequencies(request.old_inv_freq, "old.inv_freq"); !s.is_ok()) return s;
  if (!request.old_inv_freq.empty() && request.old_inv_freq.size() != request.inv_freq.size()) {
    return value_error("old.inv_freq", "has " + std::to_string(request.old_inv_freq.size()) +
                                           " frequencies, expected " +
                                           std::to_string(request.inv_freq.size()) +
                                           " like the new");
  }
  if (Status s = check_factor(request.old_attention_factor, "old.attention_factor"); !s.is_ok()) {
    return s;
  }
  if (Status s = check_rotary_dim(request); !s.is_ok()) return s;
  if (Status s = check_sections(request); !s.is_ok()) return s;
  if (Status s = check_position_shape(request); !s.is_ok()) return s;
  if (Status s = check_position_place(request); !s.is_ok()) return s;
  for (size_t i = 0; i < request.out.size(); ++i) {
    if (request.out[i].allocate) continue;
    if (Status s = check_output(request.out[i], request.in[i]); !s.is_ok()) return s;
  }
  return check_overlap(request);
}

/// The row of positions that pair `pair` reads (llama.cpp: ggml_mrope_cache_init).
uint8_t section_row(const Request& request, int64_t pair) {
  const auto& sections = request.sections;
  const auto count = static_cast<int64_t>(sections.size());
  if (request.section_order == SectionOrder::kInterleaved) {
    const int64_t turn = pair % 3;
    if (pair < 3 * sections[turn]) return static_cast<uint8_t>(turn);
    return static_cast<uint8_t>(count == 4 ? 3 : 0);
  }
  int64_t row = 0;
  int64_t end = sections[0];
  while (pair >= end) end += sections[++row];
  return static_cast<uint8_t>(row);
}

void fill_steps(const Request& request, Job* job) {
  const size_t pairs = request.inv_freq.size();
  job->steps.resize(pairs);
  for (size_t i = 0; i < pairs; ++i) {
    uint64_t step = phase_step(request.inv_freq[i]);
    if (!request.old_inv_freq.empty()) step -= phase_step(request.old_inv_freq[i]);
    job->steps[i] = request.inverse ? 0 - step : step;
  }
  double factor = request.attention_factor / request.old_attention_factor;
  if (request.inverse) factor = 1 / factor;
  job->factor = static_cast<float>(factor);
  job->factor_rest = static_cast<float>(factor - static_cast<double>(job->factor));
  for (size_t i = 0; i < pairs && !request.sections.empty(); ++i) {
    job->rows.push_back(section_row(request, static_cast<int64_t>(i)));
  }
}

/// One element as an unsigned number; false when it is out of range.
template <class T>
bool read_position(const char* at, uint32_t* position) {
  T value;
  std::memcpy(&value, at, sizeof value);
  *position = static_cast<uint32_t>(value);
  const bool negative = value < T(0);
  return !negative && static_cast<uint64_t>(value) <= static_cast<uint64_t>(kLargestPosition);
}

template <class T>
Status pack(const Positions& p, std::vector<uint32_t>* packed) {
  int64_t shape[3] = {1, 1, 1};
  int64_t strides[3] = {0, 0, 0};
  for (int i = 0; i < p.dims; ++i) {
    shape[3 - p.dims + i] = p.shape[i];
    strides[3 - p.dims + i] = p.strides[i];
  }
  packed->resize(static_cast<size_t>(shape[0] * shape[1] * shape[2]));
  uint32_t* to = packed->data();
  for (int64_t row = 0; row < shape[0]; ++row) {
    for (int64_t batch = 0; batch < shape[1]; ++batch) {
      const char* at = p.data + row * strides[0] + batch * strides[1];
      for (int64_t token = 0; token < shape[2]; ++token, at += strides[2], ++to) {
        if (read_position<T>(at, to)) continue;
        T value;
        std::memcpy(&value, at, sizeof value);
        return position_error(std::to_string(value) + " at index " + std::to_string(token));
      }
    }
  }
  return Status::ok();
}

}  // namespace

int64_t Job::bytes_per_token() const {
  int64_t elements = 0;
  for (const Operand& o : operands) elements += o.heads * o.head_dim;
  return elements * element_size(type);
}

Status prepare(const Request& request, Job* job) {
  if (Status s = check_all(request); !s.is_ok()) return s;
  const Tensor& first = request.in[0];
  job->type = first.type;
  job->layout = request.layout;
  job->place = first.place;
  job->batch = first.shape[0];
  job->tokens = first.shape[1];
  job->position_rows = request.sections.empty() ? 1 : request.positions.shape[0];
  job->batched_positions = request.positions.dims == (request.sections.empty() ? 2 : 3);
  fill_steps(request, job);
  for (size_t i = 0; i < request.in.size(); ++i) {
    const Tensor& in = request.in[i];
    const Tensor& out = request.out[i];
    Operand operand{in.data, out.allocate ? nullptr : out.data, {}, {}, in.shape[2], in.shape[3]};
    std::copy(in.strides, in.strides + 3, operand.in_strides);
    std::copy(out.strides, out.strides + 3, operand.out_strides);
    job->operands.push_back(operand);
  }
  return Status::ok();
}

Status position_error(const std::string& value) {
  return value_error("positions", value + ", expected 0 … 2147483647");
}

Status read_positions(const Positions& p, std::vector<uint32_t>* packed) {
  switch (p.item_size) {
    case 1:
      return p.is_signed ? pack<int8_t>(p, packed) : pack<uint8_t>(p, packed);
    case 2:
      return p.is_signed ? pack<int16_t>(p, packed) : pack<uint16_t>(p, packed);
    case 4:
      return p.is_signed ? pack<int32_t>(p, packed) : pack<uint32_t>(p, packed);
    default:
      return p.is_signed ? pack<int64_t>(p, packed) : pack<uint64_t>(p, packed);
  }
}

}  // namespace ggufext::rope
