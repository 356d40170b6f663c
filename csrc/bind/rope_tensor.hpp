// Reading arrays of other libraries without copying: NumPy, DLPack, __cuda_array_interface__.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "rope.hpp"

namespace ggufext {

/// Objects that must stay alive while a Request points into them.
using Owners = std::vector<pybind11::object>;

/// The arguments of a call as Python passes them on; `second` is None for a single tensor.
struct RopeArguments {
  pybind11::object first, second, positions, inv_freq, attention_factor;
  pybind11::object layout, rotary_dim, sections, section_order, inverse, out;
  pybind11::object where;  ///< threads on the CPU, the stream on CUDA
  pybind11::object old_inv_freq, old_attention_factor;
};

using RunRotation = pybind11::object (*)(const RopeArguments& arguments);

/// Adds rope_rotate(first, second, …, `where`, …) to a module.
void define_rotation(pybind11::module_& m, const char* where, RunRotation run, const char* doc);

/// An integer; `name` is for the TypeError that anything else raises.
int64_t read_integer(pybind11::handle value, const std::string& name);

/// Everything but `where`.
rope::Request read_request(const RopeArguments& arguments, Owners* owners);

}  // namespace ggufext
