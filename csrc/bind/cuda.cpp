// ggufext._cuda: loaded only when a tensor lies on a CUDA device.
#include <pybind11/pybind11.h>

#include "rope_cuda.hpp"
#include "rope_tensor.hpp"

namespace py = pybind11;

namespace ggufext {
namespace {

[[noreturn]] void raise_native_error(const Status& status) {
  const py::object type = py::module_::import("ggufext.errors").attr("NativeError");
  const py::object error =
      type(py::arg("code") = status.code(), py::arg("message") = status.message());
  PyErr_SetObject(type.ptr(), error.ptr());
  throw py::error_already_set();
}

void raise(const Status& status) {
  if (status.is_ok()) return;
  if (status.code() == "cuda_failed") raise_native_error(status);
  raise_argument_error(status);
}

py::object rope_rotate(const RopeArguments& arguments) {
  Owners owners;
  const auto stream = static_cast<uint64_t>(read_integer(arguments.where, "stream"));
  const rope::Request request = read_request(arguments, &owners);
  rope::Job job;
  raise(rope::prepare(request, &job));
  Status status = Status::ok();
  {
    const py::gil_scoped_release released;
    status = rope::rotate_on_cuda(job, request.positions, stream);
  }
  raise(status);
  return arguments.out;
}

int device_count() {
  int count = 0;
  raise(rope::count_cuda_devices(&count));
  return count;
}

}  // namespace
}  // namespace ggufext

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "RoPE rotation on CUDA devices.";
  ggufext::define_rotation(m, "stream", &ggufext::rope_rotate,
                           "Rotates one tensor, or two with the same positions, on a CUDA stream.");
  m.def("device_count", &ggufext::device_count, "CUDA devices that can be used here.");
}
