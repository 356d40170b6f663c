// What differs between operating systems.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace ggufext::system {

struct FileFacts {
  bool is_regular = false;  ///< neither a folder nor a pipe nor a device
  uint64_t size = 0;        ///< bytes
};

/// What a descriptor leads to; false where the system does not say, see `last_error`.
bool describe(int fd, FileFacts* facts);

/// Reads at most `size` bytes at `offset`: how many, 0 at the end of the file, −1 see `last_error`.
/// The descriptor's position does not count; on Windows it changes.
int64_t read_at(int fd, char* to, size_t size, uint64_t offset);

/// Why the last call here of this thread failed, in words.
std::string last_error();

/// Processors this process may run on.
int available_processors();

/// Another number in a process that was forked.
int64_t process_id();

}  // namespace ggufext::system
