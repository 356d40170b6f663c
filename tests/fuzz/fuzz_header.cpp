// Changes seed files at random and reads them; sanitizers and the checks below stop at the first
// thing that is wrong and leave the bytes in failure.gguf.
//
// usage: fuzz_header SEED_FOLDER SECONDS [RANDOM_SEED]

#include <sanitizer/common_interface_defs.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "header.hpp"

namespace {

using ggufext::HeaderIndex;
using ggufext::KeySpan;
using ggufext::Status;
using ggufext::TensorSpan;

using Bytes = std::vector<uint8_t>;

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  size_t below(size_t end) { return static_cast<size_t>(random_() % (end == 0 ? 1 : end)); }

  Bytes mutate(Bytes data) {
    for (size_t i = below(3); i < 3; ++i) change(&data);
    return data;
  }

 private:
  /// One change, more often near the start: the counts and the first keys decide most.
  void change(Bytes* data) {
    if (data->empty()) data->push_back(0);
    const size_t at =
        below(4) == 0 ? below(data->size()) : below(std::min<size_t>(data->size(), 700));
    switch (below(7)) {
      case 0:
        (*data)[at] = static_cast<uint8_t>(below(256));
        break;
      case 1:
        (*data)[at] = static_cast<uint8_t>((*data)[at] ^ (1u << below(8)));
        break;
      case 2:
      case 3:
        write_number(data, at);
        break;
      case 4:
        data->insert(data->begin() + static_cast<long>(at), 1 + below(16),
                     static_cast<uint8_t>(below(256)));
        break;
      case 5:
        data->erase(data->begin() + static_cast<long>(at),
                    data->begin() + static_cast<long>(std::min(data->size(), at + 1 + below(16))));
        break;
      default:
        if (below(8) == 0) data->resize(at);
    }
  }

  void write_number(Bytes* data, size_t at) {
    constexpr uint64_t kNumbers[] = {0,          1,          2,          3,          4,
                                     8,          9,          12,         13,         32,
                                     63,         64,         255,        65535,      65536,
                                     1ull << 20, 1ull << 29, 1ull << 30, 1ull << 31, 1ull << 32,
                                     1ull << 61, 1ull << 62, 1ull << 63, ~0ull,      ~0ull - 7};
    const uint64_t number = kNumbers[below(std::size(kNumbers))] + below(2);
    const size_t size = below(2) == 0 ? 4 : 8;
    for (size_t i = 0; i < size && at + i < data->size(); ++i) {
      (*data)[at + i] = static_cast<uint8_t>(number >> (8 * i));
    }
  }

  std::mt19937_64 random_;
};

/// The bytes being read, for the file that a failure leaves behind.
const Bytes* current = nullptr;

void save_current() {
  std::ofstream("failure.gguf", std::ios::binary)
      .write(reinterpret_cast<const char*>(current->data()),
             static_cast<std::streamsize>(current->size()));
  std::fprintf(stderr, "the bytes that failed are in failure.gguf\n");
}

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "wrong: %s\n", what);
  save_current();
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
void check_front(const Bytes& data, const Status& whole_status, const HeaderIndex& whole) {
  const Bytes front(data.begin(), data.begin() + static_cast<ptrdiff_t>(data.size() / 2));
  HeaderIndex index;
  const Status status = HeaderIndex::parse(front.data(), front.size(), data.size(), &index);
  if (status.code() == "front_too_short") return;
  require(status.code() == whole_status.code(), "a front is judged differently");
  if (status.is_ok()) require(same(index, whole), "a front is indexed differently");
}

/// Reads the bytes from memory of exactly their size, and through a descriptor.
std::string read(const Bytes& data, int fd) {
  current = &data;
  HeaderIndex from_memory;
  const Status memory_status =
      HeaderIndex::parse(data.data(), data.size(), data.size(), &from_memory);

  if (ftruncate(fd, 0) != 0 ||
      pwrite(fd, data.data(), data.size(), 0) != static_cast<ssize_t>(data.size())) {
    std::perror("temporary file");
    std::exit(2);
  }
  HeaderIndex from_file;
  const Status file_status = HeaderIndex::open(fd, &from_file);

  require(same(memory_status, file_status), "memory and file are judged differently");
  check_front(data, memory_status, from_memory);
  if (!memory_status.is_ok()) return memory_status.code();
  check_promises(from_memory, data.size());
  require(same(from_memory, from_file), "memory and file are indexed differently");
  return "accepted";
}

std::vector<Bytes> load_seeds(const char* folder) {
  std::vector<Bytes> seeds;
  std::set<std::filesystem::path> paths;  // sorted: the same random seed repeats a run
  for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.insert(entry.path());
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return seeds;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: fuzz_header SEED_FOLDER SECONDS [RANDOM_SEED]\n");
    return 2;
  }
  const std::vector<Bytes> seeds = load_seeds(argv[1]);
  const uint64_t random_seed =
      argc > 3 ? std::strtoull(argv[3], nullptr, 10) : std::random_device()();
  Mutator mutator(random_seed);
  std::printf("random seed %llu\n", static_cast<unsigned long long>(random_seed));
  __sanitizer_set_death_callback(save_current);
  const int fd = memfd_create("fuzz", 0);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::atoi(argv[2]));

  std::map<std::string, uint64_t> verdicts;
  for (const Bytes& seed : seeds) ++verdicts[read(seed, fd)];
  while (std::chrono::steady_clock::now() < end) {
    const Bytes& seed = seeds[mutator.below(seeds.size())];
    if (seed.size() > 100000 && mutator.below(10) != 0) continue;  // large ones take long
    ++verdicts[read(mutator.mutate(seed), fd)];
  }
  for (const auto& [code, count] : verdicts) {
    std::printf("%12llu  %s\n", static_cast<unsigned long long>(count), code.c_str());
  }
  return 0;
}
