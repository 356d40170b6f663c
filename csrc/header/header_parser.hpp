#pragma once

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "byte_reader.hpp"
#include "header.hpp"

namespace ggufext {

/// What to do about a header that no program would write.
constexpr const char* kDamaged = "the file is damaged or cut off: get it again";

template <typename T>
T load(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
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

/// What a count in the header may be, and where it is.
struct CountRule {
  const char* what;
  uint64_t offset;
  uint64_t smallest_entry;  ///< bytes
  uint64_t limit;
};

/// One pass over a header. `field_` names the entry being read, for errors.
class HeaderParser {
 public:
  HeaderParser(ByteReader* reader, uint64_t file_size, HeaderIndex* out)
      : reader_(*reader), index_(*out) {
    index_ = HeaderIndex();
    index_.file_size_ = file_size;
  }

  Status parse();

 private:
  Status error(const char* code, std::string message, uint64_t offset) const {
    return Status::error(code, std::move(message), field_, offset);
  }
  Status truncated(uint64_t needed, const char* what) const;

  /// Bytes at the position, without moving on.
  Status peek(uint64_t size, const char* what, std::string_view* bytes);

  template <typename T>
  Status read(const char* what, T* value) {
    std::string_view bytes;
    RETURN_IF_ERROR(peek(sizeof(T), what, &bytes));
    *value = load<T>(bytes.data());
    reader_.skip(sizeof(T));
    return Status::ok();
  }

  // header.cpp
  Status read_magic();
  Status read_version();
  Status read_counts(uint64_t* key_count, uint64_t* tensor_count);
  Status check_count(uint64_t count, const CountRule& rule) const;

  // header_keys.cpp
  Status read_keys(uint64_t count);
  Status read_key(KeySpan* span);
  Status check_keys_size(const KeySpan& span) const;
  Status check_string_length(uint64_t length, uint64_t limit, uint64_t offset) const;
  Status read_value(KeySpan* span);
  Status read_type(const char* what, ValueType* type);
  Status read_array_head(KeySpan* span);
  Status skip_strings(const KeySpan& span);
  Status keep_small_value(KeySpan* span);
  Status find_alignment();

  // header_tensors.cpp
  Status read_tensors(uint64_t count);
  Status read_tensor_name(TensorSpan* span);
  Status read_shape(TensorSpan* span);
  Status read_tensor_type(TensorSpan* span);
  Status place_data();
  Status past_end(const TensorSpan& span, uint64_t needed);

  ByteReader& reader_;
  HeaderIndex& index_;
  std::string field_;
};

}  // namespace ggufext
