#include "header_parser.hpp"
#include "message.hpp"

namespace ggufext {
namespace {

// Limits of llama.cpp (ggml.h).
constexpr uint64_t kNameLimit = 64;
constexpr uint32_t kDimensionLimit = 4;

constexpr uint64_t kAbsurdSize = uint64_t{1} << 62;  // sums of two such sizes do not overflow

uint64_t padded(uint64_t size, uint64_t alignment) {
  return (size + alignment - 1) & ~(alignment - 1);
}

}  // namespace

Status HeaderParser::read_tensors(uint64_t count) {
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

Status HeaderParser::read_tensor_name(TensorSpan* span) {
  span->start = reader_.position();
  uint64_t length = 0;
  RETURN_IF_ERROR(read("the length of a tensor's name", &length));
  if (length == 0 || length >= kNameLimit) {
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

Status HeaderParser::read_shape(TensorSpan* span) {
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
      return error(
          "tensor_shape",
          "found a shape of more elements than a 64-bit number can count: " + std::string(kDamaged),
          shape_offset);
    }
    elements *= size;
  }
  return Status::ok();
}

/// Reads the type, and with it the size in bytes.
Status HeaderParser::read_tensor_type(TensorSpan* span) {
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
                     std::to_string(type->block_size) + " in a block of type " + type->name + ": " +
                     kDamaged,
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
Status HeaderParser::place_data() {
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

Status HeaderParser::past_end(const TensorSpan& span, uint64_t needed) {
  field_ = span.name;
  return error("data_past_end",
               "the tensors take " + grouped(needed) + " bytes of file or more, but it has " +
                   grouped(index_.file_size_) + ": probably an unfinished download: get it again",
               index_.data_offset_ + span.offset);
}

}  // namespace ggufext
