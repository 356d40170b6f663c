#include "header.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <string_view>

#include "ggml_types.hpp"
#include "raise.hpp"

namespace py = pybind11;

namespace ggufext {
namespace {

HeaderIndex open_index(int fd) {
  HeaderIndex index;
  Status status = Status::ok();
  {
    py::gil_scoped_release release;
    status = HeaderIndex::open(fd, &index);
  }
  raise_on_error(status, "HeaderError");
  return index;
}

HeaderIndex parse_index(const py::bytes& data, uint64_t file_size) {
  const std::string_view view = data;
  HeaderIndex index;
  Status status = Status::ok();
  {
    py::gil_scoped_release release;
    status = HeaderIndex::parse(reinterpret_cast<const uint8_t*>(view.data()), view.size(),
                                file_size, &index);
  }
  raise_on_error(status, "HeaderError");
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

/// A payload behind its type and count, decoded element by element. A payload that was indexed
/// always fits; one that was read later may not, if the file changed unseen.
class PayloadDecoder {
 public:
  explicit PayloadDecoder(std::string_view payload) : rest_(payload) {}

  py::object element(ValueType type) {
    switch (type) {
      case ValueType::kUint8:
        return py::int_(take<uint8_t>());
      case ValueType::kInt8:
        return py::int_(take<int8_t>());
      case ValueType::kUint16:
        return py::int_(take<uint16_t>());
      case ValueType::kInt16:
        return py::int_(take<int16_t>());
      case ValueType::kUint32:
        return py::int_(take<uint32_t>());
      case ValueType::kInt32:
        return py::int_(take<int32_t>());
      case ValueType::kFloat32:
        return py::float_(static_cast<double>(take<float>()));
      case ValueType::kBool:
        return py::bool_(take<uint8_t>() != 0);
      case ValueType::kString:
        return string();
      case ValueType::kUint64:
        return py::int_(take<uint64_t>());
      case ValueType::kInt64:
        return py::int_(take<int64_t>());
      case ValueType::kFloat64:
        return py::float_(take<double>());
      case ValueType::kArray:
        break;
    }
    fail();
  }

  py::tuple array(ValueType element_type, uint64_t count) {
    const uint64_t smallest = element_type == ValueType::kString ? 8 : value_size(element_type);
    if (smallest == 0 || count > rest_.size() / smallest) fail();
    py::tuple values(static_cast<size_t>(count));
    for (uint64_t i = 0; i < count; ++i) {
      PyTuple_SET_ITEM(values.ptr(), static_cast<Py_ssize_t>(i),
                       element(element_type).release().ptr());
    }
    return values;
  }

  void finish() const {
    if (!rest_.empty()) fail();
  }

 private:
  [[noreturn]] static void fail() {
    raise_on_error(Status::error("changed_meanwhile",
                                 "the value is not what the header said when it was read: read "
                                 "the file again when nothing writes to it"),
                   "HeaderError");
    throw py::error_already_set();  // not reached
  }

  template <typename T>
  T take() {
    if (rest_.size() < sizeof(T)) fail();
    T value;
    std::memcpy(&value, rest_.data(), sizeof(T));
    rest_.remove_prefix(sizeof(T));
    return value;
  }

  py::str string() {
    const uint64_t length = take<uint64_t>();
    if (length > rest_.size()) fail();
    py::str value = text(rest_.data(), static_cast<size_t>(length));
    rest_.remove_prefix(static_cast<size_t>(length));
    return value;
  }

  std::string_view rest_;
};

ValueType checked_type(int32_t number) {
  if (number < 0 || number > 12) throw py::value_error("no such value type");
  return static_cast<ValueType>(number);
}

py::object decode_value(const py::bytes& payload, int32_t type, std::optional<int32_t> element_type,
                        uint64_t count) {
  PayloadDecoder decoder{std::string_view(payload)};
  py::object value = element_type ? decoder.array(checked_type(*element_type), count)
                                  : decoder.element(checked_type(type));
  decoder.finish();
  return value;
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
  m.def("ggml_types", &ggml_types);
}

}  // namespace ggufext
