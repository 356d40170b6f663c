#include "byte_reader.hpp"

#include <algorithm>

#include "message.hpp"
#include "system.hpp"

namespace ggufext {

ByteReader::ByteReader(const uint8_t* data, size_t size, uint64_t file_size)
    : end_(file_size),
      window_(reinterpret_cast<const char*>(data)),
      window_size_(static_cast<size_t>(std::min<uint64_t>(size, file_size))) {}

ByteReader::ByteReader(int fd, uint64_t file_size)
    : fd_(fd), end_(file_size), buffer_(new char[kWindow]), window_(buffer_.get()) {}

Status ByteReader::peek(size_t size, std::string_view* window) {
  const bool is_inside = position_ >= window_start_ && position_ <= window_start_ + window_size_ &&
                         window_start_ + window_size_ - position_ >= size;
  if (!is_inside) RETURN_IF_ERROR(refill(size));
  const size_t skipped = static_cast<size_t>(position_ - window_start_);
  *window = std::string_view(window_ + skipped, window_size_ - skipped);
  return Status::ok();
}

Status ByteReader::refill(size_t size) {
  if (fd_ < 0) {
    return Status::error("front_too_short",
                         "found the first " + grouped(window_size_) + " of " + grouped(end_) +
                             " bytes, expected the whole header: read more of the file",
                         {}, window_size_);
  }
  const size_t wanted = static_cast<size_t>(std::min<uint64_t>(kWindow, remaining()));
  window_start_ = position_;
  window_size_ = 0;
  while (window_size_ < wanted) {
    const int64_t got = system::read_at(fd_, buffer_.get() + window_size_, wanted - window_size_,
                                        window_start_ + window_size_);
    if (got < 0) {
      return Status::error("unreadable",
                           "the system could not read here: " + system::last_error() +
                               "; check the disk or the network mount and try again",
                           {}, window_start_ + window_size_);
    }
    if (got == 0) break;
    window_size_ += static_cast<size_t>(got);
  }
  if (window_size_ >= size) return Status::ok();
  return Status::error("changed_meanwhile",
                       "the file had " + grouped(end_) +
                           " bytes and became shorter while it was read: try again when nothing "
                           "writes to it",
                       {}, window_start_ + window_size_);
}

}  // namespace ggufext
