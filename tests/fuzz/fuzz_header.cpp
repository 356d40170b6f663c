// What libFuzzer runs: reads any bytes as a header, from memory and through a descriptor, and stops
// at the first broken promise. Sanitizers stop at what is wrong in between.

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "header.hpp"

namespace {

using ggufext::HeaderIndex;
using ggufext::KeySpan;
using ggufext::Status;
using ggufext::TensorSpan;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "wrong: %s\n", what);
  std::abort();
}

/// What every header that was not refused promises.
void check_promises(const HeaderIndex& index, size_t file_size) {
  uint64_t position = 24;
  for (const KeySpan& span : index.keys()) {
    require(span.start == position, "a key does not start where the one before it ends");
    require(span.value_start > span.start && span.end >= span.value_start, "bounds of a key");
    require(!span.is_kept() || span.kept.size() == span.end - span.value_start, "kept value");
    position = span.end;
  }
  require(index.keys_end() == position, "end of the keys");
  require(index.infos_end() <= file_size, "end of the infos");
  uint64_t offset = 0;
  for (const TensorSpan& span : index.tensors()) {
    require(span.size > 0 && span.offset >= offset, "offset of a tensor");
    offset = span.offset + span.size;
  }
  require(index.data_end() == index.data_offset() + offset, "end of the data");
  require(index.data_end() <= file_size, "end of the file");
}

bool same(const Status& a, const Status& b) {
  return a.code() == b.code() && a.message() == b.message() && a.field() == b.field() &&
         a.offset() == b.offset();
}

bool same(const HeaderIndex& a, const HeaderIndex& b) {
  if (a.keys().size() != b.keys().size() || a.tensors().size() != b.tensors().size()) return false;
  for (size_t i = 0; i < a.keys().size(); ++i) {
    if (a.keys()[i].key != b.keys()[i].key || a.keys()[i].kept != b.keys()[i].kept ||
        a.keys()[i].end != b.keys()[i].end) {
      return false;
    }
  }
  return a.data_end() == b.data_end();
}

/// Whether a front of the file is judged like the whole, or found too short. The message about a
/// foreign file may say less.
void check_front(const uint8_t* data, size_t size, const Status& whole_status,
                 const HeaderIndex& whole) {
  // Memory of its own of exactly that size, so that reading on is seen.
  const std::vector<uint8_t> front(data, data + size / 2);
  HeaderIndex index;
  const Status status = HeaderIndex::parse(front.data(), front.size(), size, &index);
  if (status.code() == "front_too_short") return;
  require(status.code() == whole_status.code(), "a front is judged differently");
  if (status.is_ok()) require(same(index, whole), "a front is indexed differently");
}

/// A file in memory that holds the bytes; one for all runs, since making one takes long.
int file_of(const uint8_t* data, size_t size) {
  static const int fd = memfd_create("fuzz", 0);
  if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != static_cast<ssize_t>(size)) {
    std::perror("temporary file");
    std::exit(2);
  }
  return fd;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  HeaderIndex from_memory;
  const Status memory_status = HeaderIndex::parse(data, size, size, &from_memory);
  HeaderIndex from_file;
  const Status file_status = HeaderIndex::open(file_of(data, size), &from_file);

  require(same(memory_status, file_status), "memory and file are judged differently");
  check_front(data, size, memory_status, from_memory);
  if (!memory_status.is_ok()) return 0;
  check_promises(from_memory, size);
  require(same(from_memory, from_file), "memory and file are indexed differently");
  return 0;
}
