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

rope::Tensor read_tensor(pybind11::handle array, const std::string& name, Owners* owners);
rope::Positions read_positions_array(pybind11::handle array, Owners* owners);

/// A NumPy array, a tuple or any other sequence of numbers.
std::vector<double> read_frequencies(pybind11::handle values, const std::string& name);

/// The arguments of a call as Python passes them on; `second` is None for a single tensor.
struct RopeArguments {
  pybind11::object first, second, positions, inv_freq, layout, rotary_dim, sections, section_order;
  pybind11::object out, old_inv_freq;
  double attention_factor;
  double old_attention_factor;
  bool inverse;
};

rope::Request read_request(const RopeArguments& arguments, Owners* owners);

/// Raises the ValueError or TypeError that a failed Status stands for.
void raise_argument_error(const Status& status);

}  // namespace ggufext
