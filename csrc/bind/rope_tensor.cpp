#include "rope_tensor.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <optional>

#include "dlpack.hpp"

namespace py = pybind11;

namespace ggufext {
namespace {

using rope::ElementType;

/// An array of any library, before its type is judged. Strides count bytes.
struct Array {
  char* data = nullptr;
  rope::Place place;
  char kind = '?';  // f float, b bfloat16, i signed, u unsigned, otherwise not supported
  int item_size = 0;
  std::string type_name;  // for kinds that are not supported
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
  bool writable = true;
};

[[noreturn]] void fail_type(const std::string& name, const std::string& message) {
  throw py::type_error(name + ": " + message);
}

[[noreturn]] void fail_value(const std::string& name, const std::string& message) {
  throw py::value_error(name + ": " + message);
}

std::string type_of(py::handle object) {
  return py::str(py::type::handle_of(object).attr("__name__")).cast<std::string>();
}

/// "float64", "int32", or what the library calls a type that has no such name.
std::string element_name(const Array& a) {
  const std::string bits = std::to_string(8 * a.item_size);
  switch (a.kind) {
    case 'f':
      return "float" + bits;
    case 'b':
      return "bfloat16";
    case 'i':
      return "int" + bits;
    case 'u':
      return "uint" + bits;
    default:
      return a.type_name;
  }
}

/// ml_dtypes registers bfloat16 as a user-defined type of NumPy: found by name once, then known by
/// its number.
bool is_bfloat16(const py::dtype& type) {
  static std::atomic<int> number{-1};
  if (type.num() == number.load(std::memory_order_relaxed)) return true;
  if (type.kind() != 'V' || type.itemsize() != 2) return false;
  if (py::str(type.attr("name")).cast<std::string>() != "bfloat16") return false;
  number.store(type.num(), std::memory_order_relaxed);
  return true;
}

std::vector<int64_t> c_order_strides(const std::vector<int64_t>& shape, int item_size) {
  std::vector<int64_t> strides(shape.size());
  int64_t next = item_size;
  for (size_t i = shape.size(); i-- > 0; next *= shape[i]) strides[i] = next;
  return strides;
}

Array read_numpy(const py::array& array) {
  Array a;
  const py::dtype type = array.dtype();
  a.data = const_cast<char*>(static_cast<const char*>(array.data()));
  a.item_size = static_cast<int>(type.itemsize());
  const char order = type.byteorder();
  const bool native = order == '=' || order == '|' || order == '<';
  // NumPy's kind 'b' is bool.
  if (native && type.kind() != 'b') a.kind = is_bfloat16(type) ? 'b' : type.kind();
  if (a.kind != 'f' && a.kind != 'b' && a.kind != 'i' && a.kind != 'u') {
    a.kind = '?';
    a.type_name = py::str(type).cast<std::string>();
  }
  a.writable = array.writeable();
  a.shape.assign(array.shape(), array.shape() + array.ndim());
  a.strides.assign(array.strides(), array.strides() + array.ndim());
  return a;
}

char dlpack_kind(const dlpack::DataType& type) {
  if (type.lanes != 1) return '?';
  switch (type.code) {
    case dlpack::kInt:
      return 'i';
    case dlpack::kUInt:
      return 'u';
    case dlpack::kFloat:
      return 'f';
    case dlpack::kBFloat:
      return 'b';
    default:
      return '?';
  }
}

Array from_dlpack(const dlpack::Tensor& t, bool writable, const std::string& name) {
  Array a;
  if (t.device.type == dlpack::kCuda || t.device.type == dlpack::kCudaManaged) {
    a.place = {true, t.device.id};
  } else if (t.device.type != dlpack::kCpu && t.device.type != dlpack::kCudaHost) {
    fail_value(name, "lies on a device of DLPack type " + std::to_string(t.device.type) +
                         ", expected the CPU or a CUDA device");
  }
  a.data = static_cast<char*>(t.data) + t.byte_offset;
  a.kind = dlpack_kind(t.type);
  a.item_size = t.type.bits / 8;
  a.type_name =
      "DLPack type " + std::to_string(t.type.code) + " of " + std::to_string(t.type.bits) + " bits";
  a.writable = writable;
  a.shape.assign(t.shape, t.shape + t.ndim);
  a.strides = c_order_strides(a.shape, a.item_size);
  for (int i = 0; t.strides && i < t.ndim; ++i) a.strides[i] = t.strides[i] * a.item_size;
  return a;
}

/// Asks for a capsule. No stream is named: the work is launched on the producer's own stream.
py::object dlpack_capsule(py::handle object, const std::string& name) {
  const bool cuda =
      object.attr("__dlpack_device__")().cast<py::tuple>()[0].cast<int>() != dlpack::kCpu;
  const py::object stream = cuda ? py::object(py::int_(-1)) : py::object(py::none());
  const py::object method = object.attr("__dlpack__");
  try {
    try {
      return method(py::arg("stream") = stream, py::arg("max_version") = py::make_tuple(1, 0));
    } catch (py::error_already_set& e) {
      if (!e.matches(PyExc_TypeError)) throw;  // a producer older than max_version
      return method(py::arg("stream") = stream);
    }
  } catch (py::error_already_set& e) {
    if (!e.matches(PyExc_BufferError) && !e.matches(PyExc_RuntimeError)) throw;
    fail_value(name, "its DLPack export failed: " + py::str(e.value()).cast<std::string>());
  }
}

/// What a capsule of this name holds, null for one of another.
template <class T>
const T* held_by(const py::object& capsule, const char* name) {
  if (!PyCapsule_IsValid(capsule.ptr(), name)) return nullptr;
  return static_cast<const T*>(PyCapsule_GetPointer(capsule.ptr(), name));
}

/// The capsule keeps the memory alive and frees it, because it is never marked as consumed.
Array read_dlpack(py::handle object, const std::string& name, Owners* owners) {
  py::object capsule = dlpack_capsule(object, name);
  owners->push_back(capsule);
  if (const auto* managed = held_by<dlpack::ManagedVersioned>(capsule, "dltensor_versioned")) {
    if (managed->major != 1) {
      fail_value(name, "exports DLPack version " + std::to_string(managed->major) + ", expected 1");
    }
    return from_dlpack(managed->tensor, !(managed->flags & dlpack::kReadOnly), name);
  }
  if (const auto* managed = held_by<dlpack::Managed>(capsule, "dltensor")) {
    return from_dlpack(managed->tensor, true, name);
  }
  fail_value(name, "__dlpack__() did not return a DLPack capsule");
}

/// "<f4" and the like. bfloat16 has no code there: such arrays come through DLPack.
void read_typestr(const std::string& typestr, Array* a) {
  a->type_name = "type '" + typestr + "'";
  if (typestr.size() < 3 || typestr[0] == '>') return;
  if (typestr[1] == 'f' || typestr[1] == 'i' || typestr[1] == 'u') a->kind = typestr[1];
  a->item_size = std::atoi(typestr.c_str() + 2);
}

Array read_cuda_interface(py::handle object, const std::string& name) {
  const py::dict d = object.attr("__cuda_array_interface__");
  Array a;
  const auto data = d["data"].cast<py::tuple>();
  a.data = reinterpret_cast<char*>(data[0].cast<uintptr_t>());
  a.writable = !data[1].cast<bool>();
  a.place = {true, py::hasattr(object, "device") && py::hasattr(object.attr("device"), "id")
                       ? object.attr("device").attr("id").cast<int>()
                       : 0};
  if (d.contains("mask") && !d["mask"].is_none()) fail_value(name, "is a masked array");
  read_typestr(d["typestr"].cast<std::string>(), &a);
  a.shape = d["shape"].cast<std::vector<int64_t>>();
  if (d.contains("strides") && !d["strides"].is_none()) {
    a.strides = d["strides"].cast<std::vector<int64_t>>();
  } else {
    a.strides = c_order_strides(a.shape, a.item_size);
  }
  if (a.strides.size() != a.shape.size())
    fail_value(name, "has a different number of strides than of dimensions");
  return a;
}

bool read_array(py::handle object, const std::string& name, Owners* owners, Array* a) {
  if (py::isinstance<py::array>(object)) {
    *a = read_numpy(py::reinterpret_borrow<py::array>(object));
  } else if (py::hasattr(object, "__dlpack__") && py::hasattr(object, "__dlpack_device__")) {
    *a = read_dlpack(object, name, owners);
  } else if (py::hasattr(object, "__cuda_array_interface__")) {
    *a = read_cuda_interface(object, name);
  } else {
    return false;
  }
  return true;
}

rope::Tensor read_tensor(py::handle object, const std::string& name, Owners* owners) {
  Array a;
  if (!read_array(object, name, owners, &a)) {
    fail_type(name, "is " + type_of(object) +
                        ", expected a NumPy array or an array with DLPack or "
                        "__cuda_array_interface__ (PyTorch, CuPy)");
  }
  rope::Tensor t;
  t.name = name;
  if (a.kind == 'f' && a.item_size == 4) {
    t.type = ElementType::kFloat32;
  } else if (a.kind == 'f' && a.item_size == 2) {
    t.type = ElementType::kFloat16;
  } else if (a.kind == 'b' && a.item_size == 2) {
    t.type = ElementType::kBFloat16;
  } else {
    fail_type(name,
              "has elements of " + element_name(a) + ", expected float32, float16 or bfloat16");
  }
  const auto dims = static_cast<int>(a.shape.size());
  if (dims != 3 && dims != 4) {
    fail_value(name, "has " + std::to_string(dims) +
                         " dimensions, expected 3 [tokens, heads, head_dim] or 4 "
                         "[batch, tokens, heads, head_dim]");
  }
  t.data = a.data;
  t.place = a.place;
  t.given_dims = dims;
  t.writable = a.writable;
  std::copy(a.shape.begin(), a.shape.end(), t.shape + 4 - dims);
  std::copy(a.strides.begin(), a.strides.end(), t.strides + 4 - dims);
  return t;
}

rope::Positions read_positions_array(py::handle object, Owners* owners) {
  Array a;
  if (!read_array(object, "positions", owners, &a)) {
    const py::array made = py::array::ensure(object);
    if (!made) {
      PyErr_Clear();
      fail_type("positions", "is " + type_of(object) + ", expected an array of integers");
    }
    owners->push_back(made);
    a = read_numpy(made);
  }
  const bool sized = a.item_size == 1 || a.item_size == 2 || a.item_size == 4 || a.item_size == 8;
  if ((a.kind != 'i' && a.kind != 'u') || !sized) {
    fail_type("positions", "has elements of " + element_name(a) + ", expected an integer type");
  }
  if (a.shape.empty() || a.shape.size() > 3) {
    fail_value("positions", "has " + std::to_string(a.shape.size()) +
                                " dimensions, expected [tokens], [batch, tokens], or with sections "
                                "a leading axis of rows");
  }
  rope::Positions p;
  p.place = a.place;
  p.data = a.data;
  p.dims = static_cast<int>(a.shape.size());
  p.item_size = a.item_size;
  p.is_signed = a.kind == 'i';
  std::copy(a.shape.begin(), a.shape.end(), p.shape);
  std::copy(a.strides.begin(), a.strides.end(), p.strides);
  return p;
}

std::optional<double> as_double(py::handle value) {
  const double result = PyFloat_AsDouble(value.ptr());
  if (result != -1.0 || !PyErr_Occurred()) return result;
  PyErr_Clear();
  return std::nullopt;
}

std::vector<double> read_frequencies(py::handle values, const std::string& name) {
  std::vector<double> result;
  if (py::isinstance<py::tuple>(values) || py::isinstance<py::list>(values)) {
    // A copy of a list: reading a number may run code of the user's, which may change the list.
    const auto numbers = py::reinterpret_steal<py::tuple>(PySequence_Tuple(values.ptr()));
    if (!numbers) throw py::error_already_set();
    result.reserve(numbers.size());
    for (const py::handle number : numbers) {
      const std::optional<double> value = as_double(number);
      if (!value) {
        fail_type(name, "element " + std::to_string(result.size()) + " is " + type_of(number) +
                            ", expected a number");
      }
      result.push_back(*value);
    }
    return result;
  }
  const py::array array = py::array::ensure(values);
  if (!array) PyErr_Clear();
  const char kind = array ? array.dtype().kind() : '?';
  if (kind != 'f' && kind != 'i' && kind != 'u') {
    fail_type(name, "is " + type_of(values) + ", expected a sequence of numbers");
  }
  if (array.ndim() != 1) {
    fail_value(name, "has " + std::to_string(array.ndim()) +
                         " dimensions, expected 1 (one number a pair)");
  }
  const auto doubles = py::array_t<double, py::array::forcecast>::ensure(array);
  for (py::ssize_t i = 0; i < doubles.size(); ++i) result.push_back(doubles.at(i));
  return result;
}

std::string text_of(const py::object& value) { return py::repr(value).cast<std::string>(); }

bool equals(const py::object& value, const char* text) {
  return PyUnicode_Check(value.ptr()) && PyUnicode_CompareWithASCIIString(value.ptr(), text) == 0;
}

double read_number(py::handle value, const std::string& name) {
  const std::optional<double> result = as_double(value);
  if (!result) fail_type(name, "is " + type_of(value) + ", expected a number");
  return *result;
}

void read_outputs(const RopeArguments& arguments, rope::Request* request, Owners* owners) {
  const size_t count = request->in.size();
  if (arguments.out.is_none()) {
    for (size_t i = 0; i < count; ++i) {
      rope::Tensor out = request->in[i];
      out.name = "out";
      out.allocate = true;
      request->out.push_back(out);
    }
    return;
  }
  if (count == 1) {
    request->out.push_back(read_tensor(arguments.out, "out", owners));
    return;
  }
  if (!py::isinstance<py::tuple>(arguments.out) || py::len(arguments.out) != 2) {
    fail_type("out", "is " + type_of(arguments.out) + ", expected None or a tuple (q_out, k_out)");
  }
  const auto pair = py::reinterpret_borrow<py::tuple>(arguments.out);
  for (size_t i = 0; i < 2; ++i) {
    request->out.push_back(read_tensor(pair[i], "out[" + std::to_string(i) + "]", owners));
  }
}

void read_sections(const RopeArguments& arguments, rope::Request* request) {
  if (!arguments.section_order.is_none()) {
    if (equals(arguments.section_order, "blocked")) {
      request->section_order = rope::SectionOrder::kBlocked;
    } else if (equals(arguments.section_order, "interleaved")) {
      request->section_order = rope::SectionOrder::kInterleaved;
    } else {
      fail_value("section_order", "is " + text_of(arguments.section_order) +
                                      ", expected \"blocked\" or \"interleaved\"");
    }
  }
  if (arguments.sections.is_none()) return;
  if (!py::isinstance<py::sequence>(arguments.sections) ||
      py::isinstance<py::str>(arguments.sections)) {
    fail_type("sections", "is " + type_of(arguments.sections) + ", expected (t, h, w, e)");
  }
  for (const py::handle n : arguments.sections) {
    request->sections.push_back(read_integer(n, "sections"));
  }
  if (request->sections.empty()) fail_value("sections", "is empty, expected (t, h, w, e)");
}

}  // namespace

int64_t read_integer(py::handle value, const std::string& name) {
  const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  int overflow = 0;
  const int64_t result = index ? PyLong_AsLongLongAndOverflow(index.ptr(), &overflow) : 0;
  if (!index || PyBool_Check(value.ptr())) {
    PyErr_Clear();
    fail_type(name, "is " + type_of(value) + ", expected an integer");
  }
  if (overflow != 0) fail_value(name, "is out of range");
  return result;
}

rope::Request read_request(const RopeArguments& arguments, Owners* owners) {
  rope::Request request;
  const bool two = !arguments.second.is_none();
  const bool rebases = !arguments.old_inv_freq.is_none();
  request.in.push_back(read_tensor(arguments.first, two ? "q" : rebases ? "k" : "x", owners));
  if (two) request.in.push_back(read_tensor(arguments.second, "k", owners));
  request.inv_freq = read_frequencies(arguments.inv_freq, "inv_freq");
  if (rebases) {
    request.old_inv_freq = read_frequencies(arguments.old_inv_freq, "old.inv_freq");
    request.old_attention_factor =
        read_number(arguments.old_attention_factor, "old.attention_factor");
  }
  request.attention_factor = read_number(arguments.attention_factor, "attention_factor");
  if (equals(arguments.layout, "half")) {
    request.layout = rope::Layout::kHalf;
  } else if (!equals(arguments.layout, "interleaved")) {
    fail_value("layout",
               "is " + text_of(arguments.layout) + ", expected \"interleaved\" or \"half\"");
  }
  if (!arguments.rotary_dim.is_none()) {
    request.rotary_dim = read_integer(arguments.rotary_dim, "rotary_dim");
    if (request.rotary_dim < 0) {
      fail_value("rotary_dim",
                 "is " + std::to_string(request.rotary_dim) + ", expected at least 0");
    }
  }
  read_sections(arguments, &request);
  if (!PyBool_Check(arguments.inverse.ptr())) {
    fail_type("inverse", "is " + type_of(arguments.inverse) + ", expected True or False");
  }
  request.inverse = arguments.inverse.is(py::bool_(true));
  request.positions = read_positions_array(arguments.positions, owners);
  read_outputs(arguments, &request, owners);
  return request;
}

void define_rotation(py::module_& m, const char* where, RunRotation run, const char* doc) {
  m.def(
      "rope_rotate",
      [run](const py::object& first, const py::object& second, const py::object& positions,
            const py::object& inv_freq, const py::object& attention_factor,
            const py::object& layout, const py::object& rotary_dim, const py::object& sections,
            const py::object& section_order, const py::object& inverse, const py::object& out,
            const py::object& where_, const py::object& old_inv_freq,
            const py::object& old_attention_factor) {
        return run({first, second, positions, inv_freq, attention_factor, layout, rotary_dim,
                    sections, section_order, inverse, out, where_, old_inv_freq,
                    old_attention_factor});
      },
      py::arg("first"), py::arg("second"), py::arg("positions"), py::arg("inv_freq"),
      py::arg("attention_factor"), py::arg("layout"), py::arg("rotary_dim"), py::arg("sections"),
      py::arg("section_order"), py::arg("inverse"), py::arg("out"), py::arg(where),
      py::arg("old_inv_freq"), py::arg("old_attention_factor"), doc);
}

}  // namespace ggufext
