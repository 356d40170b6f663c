// ggufext._cuda: loaded only when a tensor lies on a CUDA device.
#include <pybind11/pybind11.h>

#include "raise.hpp"
#include "rope_cuda.hpp"
#include "rope_tensor.hpp"

namespace py = pybind11;

namespace ggufext {
namespace {

py::object rope_rotate(const RopeArguments& arguments) {
  Owners owners;
  const auto stream = static_cast<uint64_t>(read_integer(arguments.where, "stream"));
  const rope::Request request = read_request(arguments, &owners);
  rope::Job job;
  raise_on_error(rope::prepare(request, &job), "NativeError");
  run_unlocked("NativeError", [&] { return rope::rotate_on_cuda(job, request.positions, stream); });
  return arguments.out;
}

int device_count() {
  int count = 0;
  raise_on_error(rope::count_cuda_devices(&count), "NativeError");
  return count;
}

}  // namespace
}  // namespace ggufext

PYBIND11_MODULE(_cuda, m, pybind11::mod_gil_not_used()) {
  m.doc() = "RoPE rotation on CUDA devices.";
  ggufext::define_rotation(m, "stream", &ggufext::rope_rotate,
                           "Rotates one tensor, or two with the same positions, on a CUDA stream.");
  m.def("device_count", &ggufext::device_count, "CUDA devices that can be used here.");
}
