#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "status.hpp"

namespace ggufext {

/// Text for Python from bytes that a file holds: bytes that are no UTF-8 become surrogates, and
/// encoding with "surrogateescape" gives them back.
inline pybind11::str text(const char* data, size_t size) {
  PyObject* decoded = PyUnicode_DecodeUTF8(data, static_cast<Py_ssize_t>(size), "surrogateescape");
  if (decoded == nullptr) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::str>(decoded);
}

inline pybind11::str text(const std::string& bytes) { return text(bytes.data(), bytes.size()); }

/// Raises the error class of ggufext.errors with what a failed Status says.
inline void raise_on_error(const Status& status, const char* error_class) {
  namespace py = pybind11;
  if (status.is_ok()) return;
  py::object type = py::module_::import("ggufext.errors").attr(error_class);
  py::object field = py::none();
  py::object offset = py::none();
  if (!status.field().empty()) field = text(status.field());
  if (status.offset()) offset = py::int_(*status.offset());
  py::object error =
      type(py::arg("code") = status.code(), py::arg("message") = text(status.message()),
           py::arg("field") = field, py::arg("offset") = offset);
  PyErr_SetObject(type.ptr(), error.ptr());
  throw py::error_already_set();
}

}  // namespace ggufext
