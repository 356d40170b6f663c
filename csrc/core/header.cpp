#include "header.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <numeric>
#include <string_view>

#include "byte_reader.hpp"
#include "foreign.hpp"
#include "message.hpp"

namespace ggufext {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr std::string_view kPoisonedMagic = "GGUX";  // POISONED_MAGIC of ggufext.header

// Limits of llama.cpp (gguf.cpp, ggml.h), of the GGUF specification, and our own where neither
// keeps a hostile file from costing more memory than any model needs.
constexpr uint64_t kStringLimit = uint64_t{1} << 30;
constexpr uint64_t kArrayLimit = uint64_t{1} << 30;
constexpr uint64_t kKeyLimit = 65536;  // the specification: at most 2^16 - 1 bytes
constexpr uint64_t kTensorNameLimit = 64;
constexpr uint32_t kDimensionLimit = 4;
constexpr uint32_t kAlignmentLimit = uint32_t{1} << 20;
constexpr uint64_t kCountLimit = uint64_t{1} << 20;
constexpr uint64_t kAbsurdSize = uint64_t{1} << 62;  // sums of two such sizes do not overflow

// The smallest possible entries: a key of one byte with a value of one byte; a tensor with a name
// of one byte and no dimensions.
constexpr uint64_t kSmallestKey = 8 + 1 + 4 + 1;
constexpr uint64_t kSmallestTensor = 8 + 1 + 4 + 4 + 8;

constexpr const char* kDamaged = "the file is damaged or cut off: get it again";

template <typename T>
T load(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

const char* type_name(ValueType type) {
  constexpr const char* kNames[] = {"UINT8",  "INT8",    "UINT16", "INT16",  "UINT32",
                                    "INT32",  "FLOAT32", "BOOL",   "STRING", "ARRAY",
                                    "UINT64", "INT64",   "FLOAT64"};
  return kNames[static_cast<size_t>(type)];
}

bool is_value_type(int32_t number) { return number >= 0 && number <= 12; }

uint64_t padded(uint64_t size, uint64_t alignment) {
  return (size + alignment - 1) & ~(alignment - 1);
}

/// The span that repeats an earlier one's name and lies first in the file, null when none does.
/// Sorting keeps this fast for names that were chosen to collide in a hash table.
template <typename Span>
const Span* first_repeated(const std::vector<Span>& spans, std::string Span::* name) {
  std::vector<size_t> order(spans.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const int difference = (spans[a].*name).compare(spans[b].*name);
    return difference != 0 ? difference < 0 : a < b;
  });
  size_t first = spans.size();
  for (size_t i = 1; i < order.size(); ++i) {
    if (spans[order[i - 1]].*name == spans[order[i]].*name) first = std::min(first, order[i]);
  }
  return first < spans.size() ? &spans[first] : nullptr;
}

}  // namespace

size_t value_size(ValueType type) {
  constexpr size_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kSizes[static_cast<size_t>(type)];
}

/// One pass over a header. `field_` names the entry being read, for errors.
class HeaderParser {
 public:
  HeaderParser(ByteReader* reader, uint64_t file_size, HeaderIndex* out)
      : reader_(*reader), index_(*out) {
    index_ = HeaderIndex();
    index_.file_size_ = file_size;
  }

  Status parse() {
    uint64_t key_count = 0;
    uint64_t tensor_count = 0;
    RETURN_IF_ERROR(read_magic());
    RETURN_IF_ERROR(read_version());
    RETURN_IF_ERROR(read_counts(&key_count, &tensor_count));
    RETURN_IF_ERROR(read_keys(key_count));
    RETURN_IF_ERROR(find_alignment());
    RETURN_IF_ERROR(read_tensors(tensor_count));
    return place_data();
  }

 private:
  Status error(const char* code, std::string message, uint64_t offset) const {
    return Status::error(code, std::move(message), field_, offset);
  }

  Status truncated(uint64_t needed, const char* what) const {
    return error("truncated",
                 "the file ends inside its header: " + std::string(what) + " takes " +
                     grouped(needed) + " bytes and " + grouped(reader_.remaining()) +
                     " are left; probably an unfinished download: get it again",
                 reader_.position());
  }

  /// Bytes at the position, without moving on.
  Status peek(uint64_t size, const char* what, std::string_view* bytes) {
    if (size > reader_.remaining()) return truncated(size, what);
    RETURN_IF_ERROR(reader_.peek(static_cast<size_t>(size), bytes));
    *bytes = bytes->substr(0, static_cast<size_t>(size));
    return Status::ok();
  }

  template <typename T>
  Status read(const char* what, T* value) {
    std::string_view bytes;
    RETURN_IF_ERROR(peek(sizeof(T), what, &bytes));
    *value = load<T>(bytes.data());
    reader_.skip(sizeof(T));
    return Status::ok();
  }

  Status read_magic() {
    field_ = "magic";
    const size_t size = static_cast<size_t>(std::min<uint64_t>(kForeignBytes, reader_.remaining()));
    std::string_view start;
    RETURN_IF_ERROR(peek(size, "the magic", &start));
    const std::string_view magic = start.substr(0, kMagic.size());
    if (magic == kPoisonedMagic) {
      return error("interrupted_edit",
                   "an edit of this file was interrupted: run `ggufext recover` on it, which "
                   "finishes the edit or restores the old file",
                   0);
    }
    if (magic.empty() || magic != kMagic.substr(0, magic.size())) {
      return error("not_gguf", describe_foreign_file(start), 0);
    }
    if (magic.size() < kMagic.size()) return truncated(kMagic.size(), "the magic");
    reader_.skip(kMagic.size());
    return Status::ok();
  }

  Status read_version() {
    field_ = "version";
    const uint64_t offset = reader_.position();
    RETURN_IF_ERROR(read("the version", &index_.version_));
    const uint32_t version = index_.version_;
    if (version == 2 || version == 3) return Status::ok();

    std::string found = "found GGUF version " + grouped(version) + ", expected 2 or 3: ";
    if (version != 0 && (version & 0xFFFF) == 0) {
      found =
          "found a version number with its bytes swapped (a big-endian file), expected a "
          "little-endian one: get that, or convert it with gguf-py's gguf-convert-endian";
    } else if (version == 1) {
      found += "llama.cpp no longer reads version 1; convert the original model again";
    } else if (version == 0) {
      found += "there is no such version; get the file again";
    } else {
      found += "a newer ggufext may read it";
    }
    return error("unsupported_version", std::move(found), offset);
  }

  Status read_counts(uint64_t* key_count, uint64_t* tensor_count) {
    field_ = "tensor count";
    RETURN_IF_ERROR(read("the number of tensors", tensor_count));
    field_ = "key count";
    RETURN_IF_ERROR(read("the number of keys", key_count));
    field_ = "tensor count";
    RETURN_IF_ERROR(check_count(*tensor_count, kSmallestTensor, "tensors", 8));
    field_ = "key count";
    return check_count(*key_count, kSmallestKey, "keys", 16);
  }

  Status check_count(uint64_t count, uint64_t smallest, const char* what, uint64_t offset) const {
    if (count > reader_.remaining() / smallest) {
      return error("count_too_large",
                   "found a count of " + grouped(count) + " " + what + ", but the " +
                       grouped(reader_.remaining()) +
                       " bytes left in the file cannot hold more "
                       "than " +
                       grouped(reader_.remaining() / smallest) + ": " + kDamaged,
                   offset);
    }
    if (count > kCountLimit) {
      return error("count_too_large",
                   "found a count of " + grouped(count) + " " + what + ", expected at most " +
                       grouped(kCountLimit) + ": no model has more; " + kDamaged,
                   offset);
    }
    return Status::ok();
  }

  Status read_keys(uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
      field_ = "key " + std::to_string(i + 1) + " of " + std::to_string(count);
      KeySpan span;
      RETURN_IF_ERROR(read_key(&span));
      field_ = shortened(span.key);
      RETURN_IF_ERROR(read_value(&span));
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

  Status read_key(KeySpan* span) {
    span->start = reader_.position();
    uint64_t length = 0;
    RETURN_IF_ERROR(read("the length of a key", &length));
    if (length == 0) {
      return error(
          "empty_key",
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

  /// Refuses a length that was read at `offset`, just before the position.
  Status check_string_length(uint64_t length, uint64_t limit, uint64_t offset) const {
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

  Status read_value(KeySpan* span) {
    RETURN_IF_ERROR(read_type("the type of a value", &span->type));
    span->element_type = span->type;
    if (span->type == ValueType::kArray) {
      RETURN_IF_ERROR(read_array_head(span));
    }
    span->value_start = reader_.position();
    const uint64_t size = value_size(span->element_type);
    if (span->element_type == ValueType::kString) {
      RETURN_IF_ERROR(skip_strings(span->count));
    } else if (size * span->count <= reader_.remaining()) {  // count < 2^30: no overflow
      reader_.skip(size * span->count);
    } else {
      return truncated(size * span->count, "a value");
    }
    span->end = reader_.position();
    return keep_small_value(span);
  }

  Status read_type(const char* what, ValueType* type) {
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

  Status read_array_head(KeySpan* span) {
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
                   "found an array of " + grouped(span->count) + " " +
                       type_name(span->element_type) + " elements, but only " +
                       grouped(reader_.remaining()) + " bytes are left in the file: " + kDamaged,
                   count_offset);
    }
    return Status::ok();
  }

  /// Walks `count` strings; vocabularies have hundreds of thousands, so the loop over those in
  /// the reader's window touches nothing else.
  Status skip_strings(uint64_t count) {
    while (count > 0) {
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

  Status keep_small_value(KeySpan* span) {
    if (!span->is_kept()) return Status::ok();
    reader_.seek(span->value_start);
    std::string_view payload;
    RETURN_IF_ERROR(peek(span->end - span->value_start, "a value", &payload));
    span->kept = payload;
    reader_.seek(span->end);
    return Status::ok();
  }

  Status find_alignment() {
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

  Status read_tensors(uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
      field_ = "tensor " + std::to_string(i + 1) + " of " + std::to_string(count);
      TensorSpan span;
      RETURN_IF_ERROR(read_tensor_name(&span));
      field_ = span.name;
      RETURN_IF_ERROR(read_shape(&span));
      RETURN_IF_ERROR(read_tensor_type(&span));
      RETURN_IF_ERROR(read("the offset of a tensor", &span.offset));
      index_.tensors_.push_back(std::move(span));
    }
    index_.infos_end_ = reader_.position();

    const TensorSpan* repeated = first_repeated(index_.tensors_, &TensorSpan::name);
    if (repeated == nullptr) return Status::ok();
    field_ = repeated->name;
    return error("duplicate_tensor",
                 "found a second tensor of this name, expected every name once, as llama.cpp "
                 "does: get the file again, or write it again with the program that made it",
                 repeated->start);
  }

  Status read_tensor_name(TensorSpan* span) {
    span->start = reader_.position();
    uint64_t length = 0;
    RETURN_IF_ERROR(read("the length of a tensor's name", &length));
    if (length == 0 || length >= kTensorNameLimit) {
      return error(
          "tensor_name",
          "found a tensor's name of " + grouped(length) + " bytes, expected 1 to 63: " + kDamaged,
          span->start);
    }
    std::string_view name;
    RETURN_IF_ERROR(peek(length, "a tensor's name", &name));
    if (name.find('\0') != std::string_view::npos) {
      return error("tensor_name",
                   "found the tensor name \"" + escaped(name) +
                       "\" with a zero byte, expected none: " + kDamaged,
                   span->start);
    }
    span->name = name;
    reader_.skip(length);
    return Status::ok();
  }

  Status read_shape(TensorSpan* span) {
    const uint64_t shape_offset = reader_.position();
    RETURN_IF_ERROR(read("the number of a tensor's dimensions", &span->dimensions));
    if (span->dimensions > kDimensionLimit) {
      return error(
          "tensor_shape",
          "found " + grouped(span->dimensions) + " dimensions, expected at most 4: " + kDamaged,
          shape_offset);
    }
    uint64_t elements = 1;
    for (uint32_t i = 0; i < span->dimensions; ++i) {
      const uint64_t offset = reader_.position();
      RETURN_IF_ERROR(read("a tensor's dimension", &span->shape[i]));
      const uint64_t size = span->shape[i];
      if (size == 0 || size > INT64_MAX) {
        return error("tensor_shape",
                     "found a dimension of " + std::to_string(static_cast<int64_t>(size)) +
                         " elements, expected at least 1: " + kDamaged,
                     offset);
      }
      if (elements > INT64_MAX / size) {
        return error("tensor_shape",
                     "found a shape of more elements than a 64-bit number can count: " +
                         std::string(kDamaged),
                     shape_offset);
      }
      elements *= size;
    }
    return Status::ok();
  }

  /// Reads the type, and with it the size in bytes.
  Status read_tensor_type(TensorSpan* span) {
    const uint64_t offset = reader_.position();
    int32_t number = 0;
    RETURN_IF_ERROR(read("the type of a tensor", &number));
    const GgmlType* type = find_ggml_type(number);
    if (type == nullptr) {
      return error("tensor_type",
                   "found tensor type " + std::to_string(number) + ", expected 0 to " +
                       std::to_string(ggml_type_count() - 1) +
                       ": the file is damaged, or was made for a newer llama.cpp than this "
                       "ggufext knows",
                   offset);
    }
    if (type->is_removed()) {
      return error("tensor_type",
                   "found tensor type " + std::to_string(number) + " (" + type->name +
                       "), which llama.cpp no longer reads, expected a current type: get a newer "
                       "version of the file, or quantize the model again",
                   offset);
    }
    if (span->shape[0] % type->block_size != 0) {
      return error("tensor_shape",
                   "found rows of " + grouped(span->shape[0]) +
                       " elements, expected a multiple "
                       "of the " +
                       std::to_string(type->block_size) + " in a block of type " + type->name +
                       ": " + kDamaged,
                   offset);
    }
    uint64_t blocks = span->shape[0] / type->block_size;
    for (size_t i = 1; i < span->shape.size(); ++i) blocks *= span->shape[i];
    if (blocks > UINT64_MAX / type->block_bytes) {
      return error(
          "tensor_shape",
          "found a tensor of more bytes than a 64-bit number can count: " + std::string(kDamaged),
          offset);
    }
    span->type = type;
    span->size = blocks * type->block_bytes;
    return Status::ok();
  }

  /// llama.cpp wants every tensor right behind the padded one before it.
  Status place_data() {
    index_.data_offset_ = index_.data_end_ = index_.infos_end_;
    if (index_.tensors_.empty()) return Status::ok();
    index_.data_offset_ = padded(index_.infos_end_, index_.alignment_);

    uint64_t expected = 0;
    for (const TensorSpan& span : index_.tensors_) {
      field_ = span.name;
      if (span.offset != expected) {
        return error("tensor_offset",
                     "found its data at offset " + grouped(span.offset) + ", expected " +
                         grouped(expected) +
                         ", right behind the tensor before it: get the file "
                         "again, or write it again with the program that made it",
                     span.start + 8 + span.name.size() + 4 + 8 * uint64_t{span.dimensions} + 4);
      }
      if (span.size > kAbsurdSize || expected > kAbsurdSize) return past_end(span, kAbsurdSize);
      expected = padded(span.offset + span.size, index_.alignment_);
    }
    const TensorSpan& last = index_.tensors_.back();
    index_.data_end_ = index_.data_offset_ + last.offset + last.size;
    for (const TensorSpan& span : index_.tensors_) {
      if (index_.data_offset_ + span.offset + span.size > index_.file_size_) {
        return past_end(span, index_.data_end_);
      }
    }
    return Status::ok();
  }

  Status past_end(const TensorSpan& span, uint64_t needed) {
    field_ = span.name;
    return error("data_past_end",
                 "the tensors take " + grouped(needed) + " bytes of file or more, but it has " +
                     grouped(index_.file_size_) + ": probably an unfinished download: get it again",
                 index_.data_offset_ + span.offset);
  }

  ByteReader& reader_;
  HeaderIndex& index_;
  std::string field_;
};

namespace {

/// Runs the parser; running out of memory is its only exception.
Status parse_header(ByteReader* reader, uint64_t file_size, HeaderIndex* out) {
  try {
    return HeaderParser(reader, file_size, out).parse();
  } catch (const std::exception&) {
    *out = HeaderIndex();
    return Status::error("out_of_memory", "not enough memory to index this header");
  }
}

}  // namespace

Status HeaderIndex::open(int fd, HeaderIndex* out) {
  struct stat status;
  if (fstat(fd, &status) != 0) {
    return Status::error(
        "read_failed",
        std::string("the system could not say what this file is: ") + std::strerror(errno));
  }
  if (!S_ISREG(status.st_mode)) {
    return Status::error("not_gguf",
                         "found a directory, pipe or device, expected a GGUF file: name the file");
  }
  const uint64_t file_size = static_cast<uint64_t>(status.st_size);
  ByteReader reader(fd, file_size);
  return parse_header(&reader, file_size, out);
}

Status HeaderIndex::parse(const uint8_t* data, size_t size, uint64_t file_size, HeaderIndex* out) {
  ByteReader reader(data, static_cast<size_t>(std::min<uint64_t>(size, file_size)));
  return parse_header(&reader, file_size, out);
}

}  // namespace ggufext
