#include "foreign.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>

#include "message.hpp"

namespace ggufext {
namespace {

struct Signature {
  std::string_view start;
  const char* found;
  const char* advice;
};

using namespace std::string_view_literals;

constexpr const char* kOldFormat = "get a GGUF version, or convert the original model again";
constexpr const char* kUnpack = "unpack it first";
constexpr const char* kConvert = "convert it with llama.cpp's convert_hf_to_gguf.py";
constexpr const char* kDownloadAgain =
    "the model was not downloaded, perhaps for want of a login or a licence agreement: get it "
    "again";

constexpr Signature kSignatures[] = {
    {"version https://git-lfs.github.com/spec/"sv, "a Git LFS pointer",
     "fetch the model itself with `git lfs pull`"},
    {"/annex/objects/"sv, "a git-annex pointer", "fetch the model itself with `git annex get`"},
    {"lmgg"sv, "a model in the ggml format of before August 2023", kOldFormat},
    {"fmgg"sv, "a model in the ggmf format of before August 2023", kOldFormat},
    {"tjgg"sv, "a model in the ggjt format of before August 2023", kOldFormat},
    {"algg"sv, "an adapter in the ggla format of before August 2024", kOldFormat},
    {"PK\x03\x04"sv, "a zip archive (PyTorch checkpoint, or a llamafile's container)",
     "take the GGUF file out of it, or convert the checkpoint"},
    {"MZ"sv, "a Windows program or a llamafile", "extract the GGUF file that a llamafile carries"},
    {"\x7f"
     "ELF"sv,
     "a program (ELF), perhaps a llamafile", "extract the GGUF file that a llamafile carries"},
    {"\x1f\x8b"sv, "gzip-compressed data", kUnpack},
    {"\x28\xb5\x2f\xfd"sv, "zstd-compressed data", kUnpack},
    {"BZh"sv, "bzip2-compressed data", kUnpack},
    {"\xfd"
     "7zXZ"sv,
     "xz-compressed data", kUnpack},
    {"7z\xbc\xaf\x27\x1c"sv, "a 7-zip archive", kUnpack},
    {"\x80\x02"sv, "a Python pickle (PyTorch checkpoint)", kConvert},
};

std::string sentence(std::string_view found, std::string_view advice) {
  return "found " + std::string(found) + ", expected a GGUF file: " + std::string(advice);
}

bool starts_with(std::string_view text, std::string_view start) {
  return text.substr(0, start.size()) == start;
}

std::string_view without_leading_space(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  return first == std::string_view::npos ? std::string_view() : text.substr(first);
}

std::string lowered(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

/// A safetensors file starts with the 64-bit length of its JSON header.
bool is_safetensors(std::string_view start) {
  if (start.size() < 10 || start[8] != '{') return false;
  uint64_t header_size;
  std::memcpy(&header_size, start.data(), sizeof header_size);
  return header_size < (uint64_t{1} << 32);
}

}  // namespace

std::string describe_foreign_file(std::string_view start) {
  if (start.empty()) return sentence("an empty file", "get it again");

  const auto* signature =
      std::find_if(std::begin(kSignatures), std::end(kSignatures),
                   [&](const Signature& s) { return starts_with(start, s.start); });
  if (signature != std::end(kSignatures)) return sentence(signature->found, signature->advice);
  if (is_safetensors(start)) return sentence("a safetensors file", kConvert);

  const std::string text = lowered(without_leading_space(start).substr(0, 64));
  if (starts_with(text, "<!doctype html") || starts_with(text, "<html")) {
    return sentence("an HTML page", kDownloadAgain);
  }
  if (starts_with(text, "<?xml")) return sentence("an XML document", kDownloadAgain);
  if (starts_with(text, "{") || starts_with(text, "[")) {
    return sentence("JSON text (a configuration, an index, or a server's error)",
                    "name the .gguf file, or get it again");
  }
  if (start.size() > 262 && starts_with(start.substr(257), "ustar")) {
    return sentence("a tar archive", kUnpack);
  }
  if (start.find_first_not_of('\0') == std::string_view::npos) {
    return sentence("zero bytes at the start", "probably an unfinished download: get it again");
  }
  return sentence("a file starting with \"" + escaped(start.substr(0, 4)) + "\"",
                  "name the .gguf file, or get it again");
}

}  // namespace ggufext
