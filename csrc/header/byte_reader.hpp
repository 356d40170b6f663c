#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "status.hpp"

namespace ggufext {

/// A position in bytes that lie in memory or behind a descriptor. A descriptor is read through
/// one window of fixed size, so memory does not depend on what the bytes claim. Memory may hold
/// the front of a file only; `remaining()` counts to the end of the file.
class ByteReader {
 public:
  /// The most bytes that one `peek` may ask for.
  static constexpr size_t kWindow = size_t{1} << 16;

  ByteReader(const uint8_t* data, size_t size, uint64_t file_size);
  ByteReader(int fd, uint64_t file_size);

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return end_ - position_; }

  /// Moves to a position that is not behind the end.
  void seek(uint64_t position) { position_ = position; }
  void skip(uint64_t size) { position_ += size; }

  /// Makes at least `size` bytes at the position readable, at most `kWindow` and `remaining()`.
  /// `window` gets all that are readable from the position on; it lives until the next call.
  Status peek(size_t size, std::string_view* window);

 private:
  Status refill(size_t size);

  int fd_ = -1;
  uint64_t end_;
  uint64_t position_ = 0;
  std::unique_ptr<char[]> buffer_;
  const char* window_ = nullptr;
  uint64_t window_start_ = 0;
  size_t window_size_ = 0;
};

}  // namespace ggufext
