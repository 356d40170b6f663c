#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <string_view>

#include "status.hpp"

namespace ggufext {

/// Text for Python from bytes that a file holds: bytes that are no UTF-8 become surrogates, and
/// encoding with "surrogateescape" gives them back.
inline pybind11::str text(std::string_view bytes) {
  PyObject* decoded =
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "surrogateescape");
  if (decoded == nullptr) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::str>(decoded);
}

/// Raises what a failed Status stands for: TypeError and ValueError for the codes "type" and
/// "value", which begin with the argument's name; for every other code a class of ggufext.errors.
[[noreturn]] inline void raise(const Status& status, const char* error_class) {
  namespace py = pybind11;
  if (status.code() == "type") throw py::type_error(status.field() + ": " + status.message());
  if (status.code() == "value") throw py::value_error(status.field() + ": " + status.message());
  const py::object type = py::module_::import("ggufext.errors").attr(error_class);
  py::object field = py::none();
  py::object offset = py::none();
  if (!status.field().empty()) field = text(status.field());
  if (status.offset()) offset = py::int_(*status.offset());
  const py::object error =
      type(py::arg("code") = status.code(), py::arg("message") = text(status.message()),
           py::arg("field") = field, py::arg("offset") = offset);
  PyErr_SetObject(type.ptr(), error.ptr());
  throw py::error_already_set();
}

inline void raise_on_error(const Status& status, const char* error_class) {
  if (!status.is_ok()) raise(status, error_class);
}

/// Does work that touches no Python object while other threads run Python, then raises its error.
template <class Work>
void run_unlocked(const char* error_class, Work work) {
  Status status = Status::ok();
  {
    const pybind11::gil_scoped_release released;
    status = work();
  }
  raise_on_error(status, error_class);
}

}  // namespace ggufext
