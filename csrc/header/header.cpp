#include "header.hpp"

#include <algorithm>
#include <exception>

#include "foreign.hpp"
#include "header_parser.hpp"
#include "message.hpp"
#include "system.hpp"

namespace ggufext {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr std::string_view kPoisonedMagic = "GGUX";  // POISONED_MAGIC of ggufext.header

// The smallest possible entries: a tensor with a name of one byte and no dimensions; a key of one
// byte with a value of one byte. The limits are our own: a hostile file cannot make us keep more
// entries than any model needs. The largest mixtures of experts have some 100,000 tensors when
// every expert is stored alone.
constexpr CountRule kTensorCount = {"tensors", 8, 8 + 1 + 4 + 4 + 8, uint64_t{1} << 20};
constexpr CountRule kKeyCount = {"keys", 16, 8 + 1 + 4 + 1, uint64_t{1} << 16};

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
  system::FileFacts file;
  if (!system::describe(fd, &file)) {
    return Status::error("unreadable",
                         "the system could not say what this file is: " + system::last_error());
  }
  if (!file.is_regular) {
    return Status::error("not_gguf",
                         "found a directory, pipe or device, expected a GGUF file: name the file");
  }
  ByteReader reader(fd, file.size);
  return parse_header(&reader, file.size, out);
}

Status HeaderIndex::parse(const uint8_t* data, size_t size, uint64_t file_size, HeaderIndex* out) {
  ByteReader reader(data, size, file_size);
  return parse_header(&reader, file_size, out);
}

Status HeaderParser::parse() {
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

Status HeaderParser::truncated(uint64_t needed, const char* what) const {
  return error("truncated",
               "the file ends inside its header: " + std::string(what) + " takes " +
                   grouped(needed) + " bytes and " + grouped(reader_.remaining()) +
                   " are left; probably an unfinished download: get it again",
               reader_.position());
}

/// Bytes at the position, without moving on.
Status HeaderParser::peek(uint64_t size, const char* what, std::string_view* bytes) {
  if (size > reader_.remaining()) return truncated(size, what);
  RETURN_IF_ERROR(reader_.peek(static_cast<size_t>(size), bytes));
  *bytes = bytes->substr(0, static_cast<size_t>(size));
  return Status::ok();
}

Status HeaderParser::read_magic() {
  field_ = "magic";
  const size_t size = static_cast<size_t>(std::min<uint64_t>(kMagic.size(), reader_.remaining()));
  std::string_view start;
  RETURN_IF_ERROR(reader_.peek(size, &start));
  start = start.substr(0, kForeignBytes);
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

Status HeaderParser::read_version() {
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

Status HeaderParser::read_counts(uint64_t* key_count, uint64_t* tensor_count) {
  field_ = "tensor count";
  RETURN_IF_ERROR(read("the number of tensors", tensor_count));
  field_ = "key count";
  RETURN_IF_ERROR(read("the number of keys", key_count));
  field_ = "tensor count";
  RETURN_IF_ERROR(check_count(*tensor_count, kTensorCount));
  field_ = "key count";
  return check_count(*key_count, kKeyCount);
}

Status HeaderParser::check_count(uint64_t count, const CountRule& rule) const {
  const uint64_t possible = reader_.remaining() / rule.smallest_entry;
  if (count <= possible && count <= rule.limit) return Status::ok();
  std::string message = "found a count of " + grouped(count) + " " + rule.what + ", ";
  if (count > possible) {
    message += "but the " + grouped(reader_.remaining()) +
               " bytes left in the file cannot hold more than " + grouped(possible);
  } else {
    message += "expected at most " + grouped(rule.limit) + ", more than any model has";
  }
  return error("count_too_large", message + ": " + kDamaged, rule.offset);
}

}  // namespace ggufext
