#include "header.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string_view>

#include "ggml_types.hpp"
#include "raise.hpp"
#include "value.hpp"

namespace py = pybind11;

namespace ggufext {
namespace {

HeaderIndex open_index(int fd) {
  HeaderIndex index;
  run_unlocked("HeaderError", [&] { return HeaderIndex::open(fd, &index); });
  return index;
}

HeaderIndex parse_index(const py::bytes& data, uint64_t file_size) {
  const std::string_view view = data;
  const auto* bytes = reinterpret_cast<const uint8_t*>(view.data());
  HeaderIndex index;
  run_unlocked("HeaderError",
               [&] { return HeaderIndex::parse(bytes, view.size(), file_size, &index); });
  return index;
}

py::list key_spans(const HeaderIndex& index) {
  py::list list;
  for (const KeySpan& span : index.keys()) {
    py::object element_type = py::none();
    if (span.type == ValueType::kArray) {
      element_type = py::int_(static_cast<int32_t>(span.element_type));
    }
    list.append(py::make_tuple(text(span.key), static_cast<int32_t>(span.type), element_type,
                               span.count, span.start, span.value_start, span.end));
  }
  return list;
}

py::list tensor_spans(const HeaderIndex& index) {
  py::list list;
  for (const TensorSpan& span : index.tensors()) {
    py::tuple shape(span.dimensions);
    for (uint32_t i = 0; i < span.dimensions; ++i) shape[i] = span.shape[i];
    list.append(py::make_tuple(text(span.name), shape, span.type->name, span.offset, span.size));
  }
  return list;
}

py::object kept(const HeaderIndex& index, size_t i) {
  if (i >= index.keys().size()) throw py::index_error("no such key");
  const KeySpan& span = index.keys()[i];
  if (!span.is_kept()) return py::none();
  return py::bytes(span.kept);
}

py::list ggml_types() {
  py::list list;
  for (int32_t number = 0; number < ggml_type_count(); ++number) {
    const GgmlType* type = find_ggml_type(number);
    if (!type->is_removed()) {
      list.append(py::make_tuple(number, type->name, type->block_size, type->block_bytes));
    }
  }
  return list;
}

}  // namespace

void register_header(py::module_& m) {
  py::class_<HeaderIndex>(m, "HeaderIndex")
      .def_static("open", &open_index, py::arg("fd"))
      .def_static("parse", &parse_index, py::arg("data"), py::kw_only(), py::arg("file_size"))
      .def_property_readonly("version", &HeaderIndex::version)
      .def_property_readonly("alignment", &HeaderIndex::alignment)
      .def_property_readonly("file_size", &HeaderIndex::file_size)
      .def_property_readonly("tensor_count",
                             [](const HeaderIndex& index) { return index.tensors().size(); })
      .def_property_readonly("keys_end", &HeaderIndex::keys_end)
      .def_property_readonly("infos_end", &HeaderIndex::infos_end)
      .def_property_readonly("data_offset", &HeaderIndex::data_offset)
      .def_property_readonly("data_end", &HeaderIndex::data_end)
      .def("key_spans", &key_spans)
      .def("tensor_spans", &tensor_spans)
      .def("kept", &kept, py::arg("key_number"));
  m.def("decode_value", &decode_value, py::arg("payload"), py::kw_only(), py::arg("value_type"),
        py::arg("element_type"), py::arg("count"));
  m.def("read_value", &read_value, py::arg("fd"), py::kw_only(), py::arg("start"), py::arg("end"),
        py::arg("value_type"), py::arg("element_type"), py::arg("count"));
  m.def("ggml_types", &ggml_types);
}

}  // namespace ggufext
