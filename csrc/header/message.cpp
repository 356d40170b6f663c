#include "message.hpp"

#include <cstdio>

namespace ggufext {
namespace {

uint8_t byte_at(std::string_view text, size_t i) { return static_cast<uint8_t>(text[i]); }

bool is_continuation(uint8_t byte) { return (byte & 0xC0) == 0x80; }

/// Bytes of the well-formed character at `i`, 0 when there is none (Unicode, table 3-7).
size_t character_size(std::string_view text, size_t i) {
  const uint8_t first = byte_at(text, i);
  if (first < 0x80) return 1;
  const size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() - i < size) return 0;
  for (size_t k = 1; k < size; ++k) {
    if (!is_continuation(byte_at(text, i + k))) return 0;
  }
  const uint8_t second = byte_at(text, i + 1);
  if (first == 0xE0 && second < 0xA0) return 0;   // overlong
  if (first == 0xED && second >= 0xA0) return 0;  // surrogate
  if (first == 0xF0 && second < 0x90) return 0;   // overlong
  if (first == 0xF4 && second >= 0x90) return 0;  // above U+10FFFF
  return size;
}

}  // namespace

std::string grouped(uint64_t number) {
  std::string digits = std::to_string(number);
  for (size_t i = digits.size(); i > 3;) {
    i -= 3;
    digits.insert(i, ",");
  }
  return digits;
}

std::string shortened(std::string_view text, size_t limit) {
  if (text.size() <= limit) return std::string(text);
  while (limit > 0 && is_continuation(byte_at(text, limit))) --limit;
  return std::string(text.substr(0, limit)) + "…";
}

std::string escaped(std::string_view bytes) {
  std::string printable;
  for (const char c : bytes) {
    if (c >= 0x20 && c < 0x7F) {
      printable += c;
      continue;
    }
    char hex[5];
    std::snprintf(hex, sizeof hex, "\\x%02x", static_cast<unsigned>(static_cast<uint8_t>(c)));
    printable += hex;
  }
  return printable;
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t size = character_size(text, i);
    if (size == 0) return false;
    i += size;
  }
  return true;
}

}  // namespace ggufext
