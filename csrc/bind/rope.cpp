#include "rope.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>

#include "raise.hpp"
#include "rope_tensor.hpp"

namespace py = pybind11;

namespace ggufext {
namespace {

/// More threads than any machine has processors would only cost their start.
constexpr int64_t kMostThreads = 1024;

/// A C-ordered NumPy array like `like`; its strides and address go into the job.
py::array allocate_like(const py::array& like, rope::Operand* operand) {
  py::array made(like.dtype(), std::vector<py::ssize_t>(like.shape(), like.shape() + like.ndim()));
  operand->out = static_cast<char*>(made.mutable_data());
  const auto outer = made.ndim() - 1;  // the elements of a head lie side by side
  std::copy(made.strides(), made.strides() + outer, operand->out_strides + 3 - outer);
  return made;
}

/// Gives the outputs back: those of the caller, or new arrays.
py::object take_outputs(const RopeArguments& arguments, rope::Job* job) {
  if (!arguments.out.is_none()) return arguments.out;
  py::list made;
  for (size_t i = 0; i < job->operands.size(); ++i) {
    const py::object& like = i == 0 ? arguments.first : arguments.second;
    if (!py::isinstance<py::array>(like)) throw py::value_error("out: expected an array, got None");
    made.append(allocate_like(like, &job->operands[i]));
  }
  return job->operands.size() == 1 ? py::object(made[0]) : py::object(py::tuple(made));
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
  raise_on_error(rope::prepare(request, &job), "NativeError");
  raise_on_error(rope::read_positions(request.positions, &positions), "NativeError");
  if (job.place.cuda) throw py::type_error("x: lies on a CUDA device, expected the CPU");
  const py::object out = take_outputs(arguments, &job);
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
