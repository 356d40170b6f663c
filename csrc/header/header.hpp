#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ggml_types.hpp"
#include "status.hpp"

namespace ggufext {

/// Type of a metadata value, as numbered in GGUF files.
enum class ValueType : int32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

/// Bytes of a value of this type, 0 for strings and arrays.
size_t value_size(ValueType type);

/// Where one key lies, in bytes from the start of the file.
struct KeySpan {
  std::string key;
  ValueType type = ValueType::kUint8;
  ValueType element_type = ValueType::kUint8;  ///< equal to `type` unless it is an array
  uint64_t count = 1;                          ///< elements of an array
  uint64_t start = 0;                          ///< of the entry: the length of its key
  uint64_t value_start = 0;                    ///< of the payload behind type and count
  uint64_t end = 0;                            ///< of the next entry

  /// The payload, when it has at most `kKeptBytes`.
  std::string kept;
  static constexpr uint64_t kKeptBytes = 4096;
  bool is_kept() const { return end - value_start <= kKeptBytes; }
};

/// Where one tensor lies and what it is.
struct TensorSpan {
  std::string name;
  const GgmlType* type = nullptr;
  uint32_t dimensions = 0;
  std::array<uint64_t, 4> shape{1, 1, 1, 1};
  uint64_t start = 0;   ///< of its description in the file
  uint64_t offset = 0;  ///< of its data, from the start of all data
  uint64_t size = 0;    ///< bytes of its data, without padding
};

/// Index of a GGUF header: where each key and tensor lies. Every rule of the format is checked
/// before anyone may use it; what llama.cpp refuses is refused here too.
class HeaderIndex {
 public:
  /// Reads through `fd` from byte 0; never maps the file, never reads tensor data.
  static Status open(int fd, HeaderIndex* out);

  /// Reads a header from memory that is, or is to become, the start of a file of `file_size` bytes;
  /// error `front_too_short` where the header goes on behind `size`.
  static Status parse(const uint8_t* data, size_t size, uint64_t file_size, HeaderIndex* out);

  uint32_t version() const { return version_; }
  uint32_t alignment() const { return alignment_; }
  uint64_t file_size() const { return file_size_; }
  const std::vector<KeySpan>& keys() const { return keys_; }
  const std::vector<TensorSpan>& tensors() const { return tensors_; }

  uint64_t keys_end() const { return keys_end_; }        ///< start of the tensor descriptions
  uint64_t infos_end() const { return infos_end_; }      ///< end of the tensor descriptions
  uint64_t data_offset() const { return data_offset_; }  ///< start of tensor data
  uint64_t data_end() const { return data_end_; }        ///< end of the last tensor, unpadded

 private:
  friend class HeaderParser;

  uint32_t version_ = 0;
  uint32_t alignment_ = 32;
  uint64_t file_size_ = 0;
  std::vector<KeySpan> keys_;
  std::vector<TensorSpan> tensors_;
  uint64_t keys_end_ = 0;
  uint64_t infos_end_ = 0;
  uint64_t data_offset_ = 0;
  uint64_t data_end_ = 0;
};

}  // namespace ggufext
