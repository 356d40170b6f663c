#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace ggufext {

/// Bytes from the start of a file that `describe_foreign_file` wants to see.
constexpr size_t kForeignBytes = 512;

/// What a file without the GGUF magic is, and what to do about it, as one sentence.
std::string describe_foreign_file(std::string_view start);

}  // namespace ggufext
