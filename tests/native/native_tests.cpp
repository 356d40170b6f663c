// The native part without Python, on any system it is compiled for: `native_tests MODEL` reads the
// header of a real model and of damaged ones, and compares rotations with the same in double.

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#ifdef _WIN32
#include <io.h>
#else
#include <unistd.h>
#endif

#include "header.hpp"
#include "rope.hpp"
#include "rope_phase.hpp"

namespace {

using ggufext::HeaderIndex;
using ggufext::Status;
namespace rope = ggufext::rope;

struct Wrong {
  std::string what;
};

void require(bool holds, const std::string& what) {
  if (!holds) throw Wrong{what};
}

/// A descriptor as Python's `os.open` gives one.
class Opened {
 public:
  explicit Opened(const std::string& path) {
#ifdef _WIN32
    fd_ = _open(path.c_str(), _O_RDONLY | _O_BINARY);
#else
    fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
#endif
    require(fd_ >= 0, "cannot open " + path);
  }
  ~Opened() {
#ifdef _WIN32
    _close(fd_);
#else
    close(fd_);
#endif
  }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  require(file.good(), "cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

Status parse(const std::string& bytes, uint64_t file_size, HeaderIndex* out) {
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  return HeaderIndex::parse(data, bytes.size(), file_size, out);
}

/// The code that a file of these bytes gives, through a descriptor and from memory.
std::string code_of(const std::string& bytes) {
  const std::string path = "native_tests.tmp";
  {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  HeaderIndex index;
  Status of_file;
  {
    const Opened file(path);
    of_file = HeaderIndex::open(file.fd(), &index);
  }
  std::remove(path.c_str());
  const Status of_memory = parse(bytes, bytes.size(), &index);
  require(of_file.code() == of_memory.code() && of_file.message() == of_memory.message() &&
              of_file.offset() == of_memory.offset(),
          "file and memory are judged differently: " + of_file.code() + ", " + of_memory.code());
  return of_file.code();
}

void expect_code(const std::string& bytes, const std::string& code) {
  const std::string found = code_of(bytes);
  require(found == code, "found '" + found + "', expected '" + code + "'");
}

void test_real_header(const std::string& model) {
  HeaderIndex index;
  const Opened file(model);
  const Status status = HeaderIndex::open(file.fd(), &index);
  require(status.is_ok(), status.message());
  const std::string bytes = content_of(model);
  require(index.file_size() == bytes.size(), "size of the file");
  require(!index.keys().empty() && !index.tensors().empty(), "no keys or no tensors");
  require(index.data_end() <= bytes.size(), "data ends behind the file");
  for (const auto& key : index.keys()) {
    require(bytes.compare(key.start + 8, key.key.size(), key.key) == 0, "place of " + key.key);
    if (key.is_kept()) {
      require(bytes.compare(key.value_start, key.kept.size(), key.kept) == 0, "value " + key.key);
    }
  }
  HeaderIndex again;
  require(HeaderIndex::open(file.fd(), &again).is_ok(), "a descriptor is read twice");
  require(again.data_end() == index.data_end(), "a descriptor reads the same twice");
}

void test_damaged_headers(const std::string& model) {
  HeaderIndex index;
  std::string bytes = content_of(model);
  require(parse(bytes, bytes.size(), &index).is_ok(), "the model");
  const size_t header = index.data_offset();
  for (size_t size = 4; size < header; size += 1 + size / 7) {
    require(!code_of(bytes.substr(0, size)).empty(), "a header that was cut off is taken");
  }
  expect_code("", "not_gguf");
  expect_code(std::string("\x50\x4b\x03\x04", 4) + bytes.substr(4), "not_gguf");
  expect_code("GGUX" + bytes.substr(4), "interrupted_edit");
  const auto changed = [&](size_t at, const std::string& with) {
    return bytes.substr(0, at) + with + bytes.substr(at + with.size());
  };
  expect_code(changed(4, std::string("\x01\0\0\0", 4)), "unsupported_version");
  expect_code(changed(8, std::string(8, '\xff')), "count_too_large");
  expect_code(changed(16, std::string(8, '\x7f')), "count_too_large");
}

void test_short_front() {
  HeaderIndex index;
  const std::string front = "GGUF";
  require(parse(front, uint64_t{1} << 40, &index).code() == "front_too_short", "a front");
}

void test_phase_steps() {
  // Turns per token times 2^64, from 4,000 binary digits.
  const std::array<std::pair<double, uint64_t>, 7> known = {{
      {1.0, 0x28be60db9391054a},
      {0.1, 0x41309af8ec1b3cb},
      {1e-4, 0x10b04870e0488},
      {6.283185307179586, 0xfffffffffffffd31},
      {1e300, 0xa705623b8bf4109e},
      {2.2250738585072014e-308, 0},
      {5e-324, 0},
  }};
  for (const auto& [radians, step] : known) {
    require(rope::phase_step(radians) == step, "step of " + std::to_string(radians));
  }
}

// Rotation.

float half_to_float(uint16_t half) {
  const int exponent = half >> 10 & 31;
  const double fraction = half & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return static_cast<float>(half & 0x8000 ? -magnitude : magnitude);
}

struct Array {
  rope::ElementType type;
  std::vector<char> bytes;

  Array(rope::ElementType of_type, size_t count)
      : type(of_type), bytes(count * static_cast<size_t>(rope::element_size(of_type))) {}

  /// Fills it with numbers between −2 and 2 that the type holds exactly.
  void fill() {
    uint32_t state = 1;
    for (size_t i = 0; i < bytes.size() / static_cast<size_t>(rope::element_size(type)); ++i) {
      state = state * 1664525u + 1013904223u;
      const float value = static_cast<float>(static_cast<int32_t>(state >> 24) - 128) / 64.0f;
      uint32_t bits;
      std::memcpy(&bits, &value, 4);
      if (type == rope::ElementType::kFloat32) std::memcpy(&bytes[4 * i], &bits, 4);
      const auto upper = static_cast<uint16_t>(bits >> 16);
      if (type == rope::ElementType::kBFloat16) std::memcpy(&bytes[2 * i], &upper, 2);
      const uint32_t magnitude = bits & 0x7fffffff;
      const auto half = static_cast<uint16_t>(
          magnitude == 0 ? 0 : (upper & 0x8000) | ((magnitude - 0x38000000) >> 13));
      if (type == rope::ElementType::kFloat16) std::memcpy(&bytes[2 * i], &half, 2);
    }
  }

  double at(size_t i) const {
    if (type == rope::ElementType::kFloat32) {
      float value;
      std::memcpy(&value, &bytes[4 * i], 4);
      return value;
    }
    uint16_t half;
    std::memcpy(&half, &bytes[2 * i], 2);
    if (type == rope::ElementType::kFloat16) return half_to_float(half);
    const uint32_t bits = uint32_t{half} << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
};

struct Shape {
  int64_t tokens, heads, head_dim, rotary;
};

rope::Tensor tensor_of(Array* array, const Shape& shape, const char* name) {
  rope::Tensor tensor;
  tensor.name = name;
  tensor.type = array->type;
  tensor.data = array->bytes.data();
  const int64_t size = rope::element_size(array->type);
  const int64_t sizes[4] = {1, shape.tokens, shape.heads, shape.head_dim};
  int64_t stride = size;
  for (int axis = 3; axis >= 0; --axis) {
    tensor.shape[axis] = sizes[axis];
    tensor.strides[axis] = stride;
    stride *= sizes[axis];
  }
  return tensor;
}

void check_rotation(rope::ElementType type, rope::Layout layout, const Shape& shape, int threads) {
  const auto count = static_cast<size_t>(shape.tokens * shape.heads * shape.head_dim);
  Array in(type, count), out(type, count);
  in.fill();
  std::vector<int64_t> positions;
  for (int64_t token = 0; token < shape.tokens; ++token) positions.push_back(token * 977);

  rope::Request request;
  request.in = {tensor_of(&in, shape, "x")};
  request.out = {tensor_of(&out, shape, "out")};
  request.layout = layout;
  request.attention_factor = 1.25;
  const int64_t pairs = shape.rotary / 2;
  for (int64_t i = 0; i < pairs; ++i) {
    request.inv_freq.push_back(
        std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(shape.rotary)));
  }
  request.positions.data = reinterpret_cast<const char*>(positions.data());
  request.positions.dims = 1;
  request.positions.shape[0] = shape.tokens;
  request.positions.strides[0] = 8;

  rope::Job job;
  Status status = rope::prepare(request, &job);
  require(status.is_ok(), status.field() + ": " + status.message());
  std::vector<uint32_t> packed;
  status = rope::read_positions(request.positions, &packed);
  require(status.is_ok(), status.message());
  rope::rotate_on_cpu(job, packed.data(), threads);

  // Of what is rotated the last digit of the type; what lies behind is copied.
  const double digit = type == rope::ElementType::kFloat32   ? 4e-7
                       : type == rope::ElementType::kFloat16 ? 1.0 / 1024
                                                             : 1.0 / 128;
  for (int64_t token = 0; token < shape.tokens; ++token) {
    for (int64_t head = 0; head < shape.heads; ++head) {
      const auto start = static_cast<size_t>((token * shape.heads + head) * shape.head_dim);
      const auto rotary = static_cast<size_t>(shape.rotary);
      const size_t half = rotary / 2;
      for (size_t i = 0; i < half; ++i) {
        const bool apart = layout == rope::Layout::kHalf;
        const size_t first = start + (apart ? i : 2 * i);
        const size_t second = start + (apart ? i + half : 2 * i + 1);
        const double angle =
            static_cast<double>(positions[static_cast<size_t>(token)]) * request.inv_freq[i];
        const double c = 1.25 * std::cos(angle), s = 1.25 * std::sin(angle);
        const double a = in.at(first), b = in.at(second);
        const double size = 1.25 * std::hypot(a, b) + 1e-6;
        require(std::abs(out.at(first) - (a * c - b * s)) <= digit * size, "first of a pair");
        require(std::abs(out.at(second) - (b * c + a * s)) <= digit * size, "second of a pair");
      }
      for (size_t i = rotary; i < static_cast<size_t>(shape.head_dim); ++i) {
        require(out.at(start + i) == in.at(start + i), "what is not rotated");
      }
    }
  }
}

void test_rotation() {
  for (const auto type :
       {rope::ElementType::kFloat32, rope::ElementType::kFloat16, rope::ElementType::kBFloat16}) {
    for (const auto layout : {rope::Layout::kInterleaved, rope::Layout::kHalf}) {
      for (const Shape& shape :
           {Shape{1, 1, 2, 2}, Shape{5, 3, 80, 64}, Shape{7, 2, 128, 128}, Shape{3, 1, 46, 46},
            Shape{2, 1, 1100, 1100}, Shape{600, 4, 64, 64}}) {
        check_rotation(type, layout, shape, 1);
        check_rotation(type, layout, shape, 3);
        check_rotation(type, layout, shape, 0);
      }
    }
  }
}

void test_refusals() {
  Array one(rope::ElementType::kFloat32, 64), other(rope::ElementType::kFloat16, 64);
  rope::Request request;
  request.in = {tensor_of(&one, {1, 1, 64, 64}, "x")};
  request.out = {tensor_of(&other, {1, 1, 64, 64}, "out")};
  request.inv_freq.assign(32, 1.0);
  rope::Job job;
  require(!rope::prepare(request, &job).is_ok(), "an output of another type");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: native_tests MODEL\n");
    return 2;
  }
  const std::string model = argv[1];
  const std::vector<std::pair<const char*, std::function<void()>>> tests = {
      {"a real header is indexed", [&] { test_real_header(model); }},
      {"damaged headers are named", [&] { test_damaged_headers(model); }},
      {"a front says that it is too short", test_short_front},
      {"steps of phases are exact", test_phase_steps},
      {"rotation is that in double", test_rotation},
      {"bad requests are refused", test_refusals},
  };
  int failed = 0;
  for (const auto& [name, test] : tests) {
    try {
      test();
      std::printf("ok: %s\n", name);
    } catch (const Wrong& wrong) {
      ++failed;
      std::printf("FAILED: %s: %s\n", name, wrong.what.c_str());
    }
  }
  std::printf("kernels: %s\n", rope::instruction_set());
  std::printf("%d passed, %d failed\n", static_cast<int>(tests.size()) - failed, failed);
  return failed == 0 ? 0 : 1;
}
