#include <algorithm>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "rope.hpp"
#include "rope_tensor.hpp"

namespace py = pybind11;

namespace ggufext {
namespace {

/// More threads than any machine has processors would only cost their start.
constexpr int64_t kMostThreads = 1024;

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
py::object take_outputs(const RopeArguments& arguments, const rope::Request& request,
                        rope::Job* job) {
  if (!arguments.out.is_none()) return arguments.out;
  py::list made;
  for (size_t i = 0; i < request.in.size(); ++i) {
    const py::object& like = i == 0 ? arguments.first : arguments.second;
    if (!py::isinstance<py::array>(like)) throw py::value_error("out: expected an array, got None");
    made.append(allocate_like(like, request.in[i], &job->operands[i]));
  }
  return request.in.size() == 1 ? py::object(made[0]) : py::object(py::tuple(made));
}

/// 0 for None: as many as the size is worth.
int read_threads(const py::object& threads) {
  if (threads.is_none()) return 0;
  const int64_t count = read_integer(threads, "threads");
  if (count < 1) {
    throw py::value_error("threads: is " + std::to_string(count) + ", expected at least 1");
  }
  return static_cast<int>(std::min<int64_t>(count, kMostThreads));
}

py::object rope_rotate(const RopeArguments& arguments) {
  Owners owners;
  const int threads = read_threads(arguments.where);
  const rope::Request request = read_request(arguments, &owners);
  rope::Job job;
  std::vector<uint32_t> positions;
  if (const Status s = rope::prepare(request, &job); !s.is_ok()) raise_argument_error(s);
  if (const Status s = rope::read_positions(request.positions, &positions); !s.is_ok()) {
    raise_argument_error(s);
  }
  if (job.place.cuda) throw py::type_error("x: lies on a CUDA device, expected the CPU");
  const py::object out = take_outputs(arguments, request, &job);
  {
    const py::gil_scoped_release released;
    rope::rotate_on_cpu(job, positions.data(), threads);
  }
  return out;
}

}  // namespace

void register_rope(py::module_& m) {
  define_rotation(m, "threads", &rope_rotate,
                  "Rotates one tensor, or two with the same positions, on the CPU.");
  m.def("rope_instruction_set", &rope::instruction_set,
        "Instruction set of the CPU kernels: avx512, avx2 or baseline.");
}

}  // namespace ggufext
