#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "rope.hpp"
#include "rope_tensor.hpp"

namespace py = pybind11;

namespace ggufext {
namespace {

/// A C-ordered NumPy array like `like`; its strides and address go into the job.
py::array allocate_like(const py::array& like, const rope::Tensor& in, rope::Operand* operand) {
  py::array made(like.dtype(), std::vector<py::ssize_t>(like.shape(), like.shape() + like.ndim()));
  operand->out = static_cast<char*>(made.mutable_data());
  int64_t stride = rope::element_size(in.type) * in.shape[3];
  for (int i = 2; i >= 0; --i) {
    operand->out_strides[i] = stride;
    stride *= in.shape[i];
  }
  return made;
}

/// Gives the outputs back: those of the caller, or new arrays.
py::object take_outputs(const RopeArguments& arguments, const rope::Request& request, rope::Job* job) {
  if (!arguments.out.is_none()) return arguments.out;
  py::list made;
  for (size_t i = 0; i < request.in.size(); ++i) {
    const py::object& like = i == 0 ? arguments.first : arguments.second;
    if (!py::isinstance<py::array>(like)) throw py::value_error("out: expected an array, got None");
    made.append(allocate_like(like, request.in[i], &job->operands[i]));
  }
  return request.in.size() == 1 ? py::object(made[0]) : py::object(py::tuple(made));
}

py::object rope_rotate(const RopeArguments& arguments, int threads) {
  Owners owners;
  const rope::Request request = read_request(arguments, &owners);
  rope::Job job;
  std::vector<uint32_t> positions;
  if (const Status s = rope::prepare(request, &job); !s.is_ok()) raise_argument_error(s);
  if (const Status s = rope::read_positions(request.positions, &positions); !s.is_ok()) {
    raise_argument_error(s);
  }
  const py::object out = take_outputs(arguments, request, &job);
  {
    const py::gil_scoped_release released;
    rope::rotate_on_cpu(job, positions.data(), threads);
  }
  return out;
}

}  // namespace

void register_rope(py::module_& m) {
  m.def(
      "rope_rotate",
      [](py::object first, py::object second, py::object positions, py::object inv_freq,
         double attention_factor, py::object layout, py::object rotary_dim, py::object sections,
         py::object section_order, bool inverse, py::object out, int threads,
         py::object old_inv_freq, double old_attention_factor) {
        return rope_rotate({std::move(first), std::move(second), std::move(positions),
                            std::move(inv_freq), std::move(layout), std::move(rotary_dim),
                            std::move(sections), std::move(section_order), std::move(out),
                            std::move(old_inv_freq), attention_factor, old_attention_factor,
                            inverse},
                           threads);
      },
      py::arg("first"), py::arg("second"), py::arg("positions"), py::arg("inv_freq"),
      py::arg("attention_factor"), py::arg("layout"), py::arg("rotary_dim"), py::arg("sections"),
      py::arg("section_order"), py::arg("inverse"), py::arg("out"), py::arg("threads"),
      py::arg("old_inv_freq") = py::none(), py::arg("old_attention_factor") = 1.0,
      "Rotates one tensor, or two with the same positions, on the CPU.");
  m.def("rope_instruction_set", &rope::instruction_set,
        "Instruction set of the CPU kernels: avx512, avx2 or baseline.");
}

}  // namespace ggufext
