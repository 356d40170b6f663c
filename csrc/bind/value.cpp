#include "value.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "byte_reader.hpp"
#include "header.hpp"
#include "raise.hpp"

namespace py = pybind11;

namespace ggufext {
namespace {

PyObject* checked(PyObject* object) {
  if (object == nullptr) throw py::error_already_set();
  return object;
}

[[noreturn]] void fail() {
  raise(Status::error("changed_meanwhile",
                      "the value is not what the header said when it was read: read the file "
                      "again when nothing writes to it"),
        "HeaderError");
}

/// Strings of at most this many bytes are decoded here; a vocabulary has hardly a longer one.
constexpr size_t kShortText = 64;

/// Code points of text whose characters have one to three well-formed bytes, and their largest.
/// Returns how many there are, 0 for all other text.
size_t decode_short_text(std::string_view text, Py_UCS2* code_points, Py_UCS2* largest) {
  size_t count = 0;
  Py_UCS2 seen = 0;
  const auto* byte = reinterpret_cast<const uint8_t*>(text.data());
  const auto* const end = byte + text.size();
  while (byte < end) {
    uint32_t code_point = *byte;
    if (code_point < 0x80) {
      byte += 1;
    } else if (code_point >= 0xC2 && code_point < 0xE0 && end - byte >= 2 &&
               (byte[1] & 0xC0) == 0x80) {
      code_point = (code_point & 0x1F) << 6 | (byte[1] & 0x3Fu);
      byte += 2;
    } else if ((code_point & 0xF0) == 0xE0 && end - byte >= 3 && (byte[1] & 0xC0) == 0x80 &&
               (byte[2] & 0xC0) == 0x80) {
      code_point = (code_point & 0x0F) << 12 | (byte[1] & 0x3Fu) << 6 | (byte[2] & 0x3Fu);
      const bool is_surrogate = code_point >= 0xD800 && code_point < 0xE000;
      if (code_point < 0x800 || is_surrogate) return 0;
      byte += 3;
    } else {
      return 0;
    }
    const auto unit = static_cast<Py_UCS2>(code_point);
    seen |= unit;  // the power of two above the largest decides how Python stores the text
    code_points[count++] = unit;
  }
  *largest = seen;
  return count;
}

/// New reference. As PyUnicode_DecodeUTF8 with "surrogateescape", which needs twice the time for
/// the short strings with a few characters outside ASCII that vocabularies are made of.
PyObject* decode_text(std::string_view bytes) {
  Py_UCS2 code_points[kShortText];
  Py_UCS2 largest = 0;
  const size_t count = bytes.size() > 1 && bytes.size() <= kShortText
                           ? decode_short_text(bytes, code_points, &largest)
                           : 0;
  if (count < 2) {  // Python shares its strings of one character
    return text(bytes).release().ptr();
  }
  PyObject* value = checked(PyUnicode_New(static_cast<Py_ssize_t>(count), largest));
  if (largest < 0x80) {
    std::memcpy(PyUnicode_1BYTE_DATA(value), bytes.data(), count);
  } else if (largest < 0x100) {
    std::copy_n(code_points, count, PyUnicode_1BYTE_DATA(value));
  } else {
    std::memcpy(PyUnicode_2BYTE_DATA(value), code_points, count * sizeof(Py_UCS2));
  }
  return value;
}

/// A payload, decoded element by element. One that was indexed always fits; one that was read
/// later may not, if the file changed unseen.
class PayloadDecoder {
 public:
  explicit PayloadDecoder(ByteReader* reader) : reader_(*reader) {}

  /// New reference.
  PyObject* element(ValueType type) {
    switch (type) {
      case ValueType::kUint8:
        return checked(PyLong_FromLong(take<uint8_t>()));
      case ValueType::kInt8:
        return checked(PyLong_FromLong(take<int8_t>()));
      case ValueType::kUint16:
        return checked(PyLong_FromLong(take<uint16_t>()));
      case ValueType::kInt16:
        return checked(PyLong_FromLong(take<int16_t>()));
      case ValueType::kUint32:
        return checked(PyLong_FromUnsignedLongLong(take<uint32_t>()));
      case ValueType::kInt32:
        return checked(PyLong_FromLong(take<int32_t>()));
      case ValueType::kFloat32:
        return checked(PyFloat_FromDouble(static_cast<double>(take<float>())));
      case ValueType::kBool:
        return checked(PyBool_FromLong(take<uint8_t>()));
      case ValueType::kString:
        return string();
      case ValueType::kUint64:
        return checked(PyLong_FromUnsignedLongLong(take<uint64_t>()));
      case ValueType::kInt64:
        return checked(PyLong_FromLongLong(take<int64_t>()));
      case ValueType::kFloat64:
        return checked(PyFloat_FromDouble(take<double>()));
      case ValueType::kArray:
        break;
    }
    fail();
  }

  py::tuple array(ValueType element_type, uint64_t count) {
    const uint64_t smallest = element_type == ValueType::kString ? 8 : value_size(element_type);
    if (smallest == 0 || count > remaining() / smallest) fail();
    py::tuple values(static_cast<size_t>(count));
    // It holds no containers, so the collector need not know it; and nobody may find it half filled
    // there while a read lets other threads run.
    PyObject_GC_UnTrack(values.ptr());
    for (uint64_t i = 0; i < count; ++i) {
      PyTuple_SET_ITEM(values.ptr(), static_cast<Py_ssize_t>(i), element(element_type));
    }
    return values;
  }

  void finish() const {
    if (remaining() != 0) fail();
  }

 private:
  uint64_t remaining() const { return reader_.remaining() - taken_; }

  /// The next `size` bytes, at most `ByteReader::kWindow`.
  const char* take(size_t size) {
    if (window_.size() - taken_ < size) refill(size);
    const char* bytes = window_.data() + taken_;
    taken_ += size;
    return bytes;
  }

  void refill(size_t size) {
    if (size > remaining()) fail();
    reader_.skip(taken_);
    taken_ = 0;
    run_unlocked("HeaderError", [&] { return reader_.peek(size, &window_); });
  }

  template <typename T>
  T take() {
    T value;
    std::memcpy(&value, take(sizeof(T)), sizeof(T));
    return value;
  }

  PyObject* string() {
    const uint64_t length = take<uint64_t>();
    if (length > remaining()) fail();
    const size_t size = static_cast<size_t>(length);
    if (size <= ByteReader::kWindow) return decode_text({take(size), size});

    std::string text;
    text.reserve(size);
    while (text.size() < size) {
      const size_t piece = std::min(size - text.size(), ByteReader::kWindow);
      text.append(take(piece), piece);
    }
    return decode_text(text);
  }

  ByteReader& reader_;
  std::string_view window_;  // what can be read without the reader
  size_t taken_ = 0;         // of the window
};

ValueType checked_type(int32_t number) {
  if (number < 0 || number > 12) throw py::value_error("no such value type");
  return static_cast<ValueType>(number);
}

py::object decode(ByteReader* reader, int32_t value_type, std::optional<int32_t> element_type,
                  uint64_t count) {
  PayloadDecoder decoder(reader);
  py::object value =
      element_type ? decoder.array(checked_type(*element_type), count)
                   : py::reinterpret_steal<py::object>(decoder.element(checked_type(value_type)));
  decoder.finish();
  return value;
}

}  // namespace

py::object decode_value(const py::bytes& payload, int32_t value_type,
                        std::optional<int32_t> element_type, uint64_t count) {
  const std::string_view view = payload;
  ByteReader reader(reinterpret_cast<const uint8_t*>(view.data()), view.size(), view.size());
  return decode(&reader, value_type, element_type, count);
}

py::object read_value(int fd, uint64_t start, uint64_t end, int32_t value_type,
                      std::optional<int32_t> element_type, uint64_t count) {
  if (start > end) throw py::value_error("start is behind end");
  ByteReader reader(fd, end);
  reader.seek(start);
  return decode(&reader, value_type, element_type, count);
}

}  // namespace ggufext
