#include <algorithm>

#include "header_parser.hpp"
#include "message.hpp"

namespace ggufext {
namespace {

// Limits of llama.cpp (gguf.cpp), of the GGUF specification (keys), and our own (alignment).
constexpr uint64_t kStringLimit = uint64_t{1} << 30;
constexpr uint64_t kArrayLimit = uint64_t{1} << 30;
constexpr uint64_t kKeyLimit = uint64_t{1} << 16;
// Ten times what the largest vocabularies take. Editing holds a header in memory, and a file of
// holes can claim any size.
constexpr uint64_t kKeysLimit = uint64_t{1} << 28;
constexpr uint32_t kAlignmentLimit = uint32_t{1} << 20;

const char* type_name(ValueType type) {
  constexpr const char* kNames[] = {"UINT8",  "INT8",    "UINT16", "INT16",  "UINT32",
                                    "INT32",  "FLOAT32", "BOOL",   "STRING", "ARRAY",
                                    "UINT64", "INT64",   "FLOAT64"};
  return kNames[static_cast<size_t>(type)];
}

bool is_value_type(int32_t number) { return number >= 0 && number <= 12; }

}  // namespace

size_t value_size(ValueType type) {
  constexpr size_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kSizes[static_cast<size_t>(type)];
}

Status HeaderParser::read_keys(uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    field_ = "key " + std::to_string(i + 1) + " of " + std::to_string(count);
    KeySpan span;
    RETURN_IF_ERROR(read_key(&span));
    field_ = shortened(span.key);
    RETURN_IF_ERROR(read_value(&span));
    RETURN_IF_ERROR(check_keys_size(span));
    index_.keys_.push_back(std::move(span));
  }
  index_.keys_end_ = reader_.position();

  const KeySpan* repeated = first_repeated(index_.keys_, &KeySpan::key);
  if (repeated == nullptr) return Status::ok();
  field_ = shortened(repeated->key);
  return error("duplicate_key",
               "found this key a second time, expected every key once, as llama.cpp does: get "
               "the file again, or write it again with the program that made it",
               repeated->start);
}

Status HeaderParser::read_key(KeySpan* span) {
  span->start = reader_.position();
  uint64_t length = 0;
  RETURN_IF_ERROR(read("the length of a key", &length));
  if (length == 0) {
    return error("empty_key",
                 "found a key without a name, expected at least one byte: " + std::string(kDamaged),
                 span->start);
  }
  RETURN_IF_ERROR(check_string_length(length, kKeyLimit, span->start));

  std::string_view key;
  RETURN_IF_ERROR(peek(length, "a key", &key));
  if (!is_utf8(key)) {
    return error(
        "key_not_utf8",
        "found the key \"" + escaped(key.substr(0, 64)) + "\", expected UTF-8: " + kDamaged,
        span->start);
  }
  if (key.find('\0') != std::string_view::npos) {
    return error("key_has_nul",
                 "found the key \"" + escaped(key.substr(0, 64)) +
                     "\" with a zero byte, expected none: " + kDamaged,
                 span->start);
  }
  span->key = key;
  reader_.skip(length);
  return Status::ok();
}

/// Refuses keys that lie too far behind the start of the file, as soon as one does.
Status HeaderParser::check_keys_size(const KeySpan& span) const {
  if (reader_.position() <= kKeysLimit) return Status::ok();
  return error("header_too_large",
               "found keys that take more than " + grouped(kKeysLimit) +
                   " bytes, expected fewer, more than any model has: " + kDamaged,
               span.start);
}

/// Refuses a length that was read at `offset`, just before the position.
Status HeaderParser::check_string_length(uint64_t length, uint64_t limit, uint64_t offset) const {
  if (length >= limit) {
    return error("string_too_long",
                 "found a string of " + grouped(length) + " bytes, expected fewer than " +
                     grouped(limit) + ": " + kDamaged,
                 offset);
  }
  if (length > reader_.remaining()) {
    return error("string_too_long",
                 "found a string of " + grouped(length) + " bytes, but only " +
                     grouped(reader_.remaining()) + " are left in the file: " + kDamaged,
                 offset);
  }
  return Status::ok();
}

Status HeaderParser::read_value(KeySpan* span) {
  RETURN_IF_ERROR(read_type("the type of a value", &span->type));
  span->element_type = span->type;
  if (span->type == ValueType::kArray) {
    RETURN_IF_ERROR(read_array_head(span));
  }
  span->value_start = reader_.position();
  const uint64_t size = value_size(span->element_type);
  if (span->element_type == ValueType::kString) {
    RETURN_IF_ERROR(skip_strings(*span));
  } else if (size * span->count <= reader_.remaining()) {  // count < 2^30: no overflow
    reader_.skip(size * span->count);
  } else {
    return truncated(size * span->count, "a value");
  }
  span->end = reader_.position();
  return keep_small_value(span);
}

Status HeaderParser::read_type(const char* what, ValueType* type) {
  const uint64_t offset = reader_.position();
  int32_t number = 0;
  RETURN_IF_ERROR(read(what, &number));
  if (!is_value_type(number)) {
    return error("bad_value_type",
                 "found value type " + std::to_string(number) + ", expected 0 to 12: " + kDamaged,
                 offset);
  }
  *type = static_cast<ValueType>(number);
  return Status::ok();
}

Status HeaderParser::read_array_head(KeySpan* span) {
  const uint64_t type_offset = reader_.position();
  RETURN_IF_ERROR(read_type("the type of an array's elements", &span->element_type));
  if (span->element_type == ValueType::kArray) {
    return error("nested_array",
                 "found an array of arrays, expected an array of numbers or strings, as "
                 "llama.cpp does: remove the key with the program that wrote it",
                 type_offset);
  }
  const uint64_t count_offset = reader_.position();
  RETURN_IF_ERROR(read("the length of an array", &span->count));
  if (span->count >= kArrayLimit) {
    return error("array_too_long",
                 "found an array of " + grouped(span->count) + " elements, expected fewer than " +
                     grouped(kArrayLimit) + ": " + kDamaged,
                 count_offset);
  }
  // A string takes at least the 8 bytes of its length.
  const uint64_t smallest =
      span->element_type == ValueType::kString ? 8 : value_size(span->element_type);
  if (span->count > reader_.remaining() / smallest) {
    return error("array_too_long",
                 "found an array of " + grouped(span->count) + " " + type_name(span->element_type) +
                     " elements, but only " + grouped(reader_.remaining()) +
                     " bytes are left in the file: " + kDamaged,
                 count_offset);
  }
  return Status::ok();
}

/// Walks the strings of an array, or the one of a scalar. Vocabularies have hundreds of thousands,
/// so the loop over those in the reader's window touches nothing else.
Status HeaderParser::skip_strings(const KeySpan& span) {
  uint64_t count = span.count;
  while (count > 0) {
    RETURN_IF_ERROR(check_keys_size(span));
    if (reader_.remaining() < 8) return truncated(8, "the length of a string");
    std::string_view window;
    RETURN_IF_ERROR(reader_.peek(8, &window));
    const uint64_t remaining = reader_.remaining();
    uint64_t at = 0;
    while (count > 0 && at + 8 <= window.size()) {
      const uint64_t length = load<uint64_t>(window.data() + at);
      if (length >= kStringLimit || length > remaining - at - 8) {
        reader_.skip(at + 8);
        return check_string_length(length, kStringLimit, reader_.position() - 8);
      }
      at += 8 + length;
      --count;
    }
    reader_.skip(at);
  }
  return Status::ok();
}

Status HeaderParser::keep_small_value(KeySpan* span) {
  if (!span->is_kept()) return Status::ok();
  reader_.seek(span->value_start);
  std::string_view payload;
  RETURN_IF_ERROR(peek(span->end - span->value_start, "a value", &payload));
  span->kept = payload;
  reader_.seek(span->end);
  return Status::ok();
}

Status HeaderParser::find_alignment() {
  const auto span = std::find_if(index_.keys_.begin(), index_.keys_.end(),
                                 [](const KeySpan& k) { return k.key == "general.alignment"; });
  if (span == index_.keys_.end()) return Status::ok();
  field_ = span->key;
  if (span->type != ValueType::kUint32) {
    return error("bad_alignment",
                 "found an alignment of type " + std::string(type_name(span->type)) +
                     ", expected UINT32: " + kDamaged,
                 span->value_start);
  }
  const uint32_t alignment = load<uint32_t>(span->kept.data());
  if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > kAlignmentLimit) {
    return error("bad_alignment",
                 "found an alignment of " + grouped(alignment) +
                     " bytes, expected a power of "
                     "two up to " +
                     grouped(kAlignmentLimit) + ": " + kDamaged,
                 span->value_start);
  }
  index_.alignment_ = alignment;
  return Status::ok();
}

}  // namespace ggufext
