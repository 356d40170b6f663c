#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ggufext {

/// A number as messages show it: 7,799,936.
std::string grouped(uint64_t number);

/// Text from a file, for a message or a field: at most `limit` bytes, cut between characters.
std::string shortened(std::string_view text, size_t limit = 200);

/// Bytes from a file as printable ASCII, the others as \xNN.
std::string escaped(std::string_view bytes);

/// Whether Python would decode these bytes as UTF-8 (no surrogates, no overlong forms).
bool is_utf8(std::string_view text);

}  // namespace ggufext
