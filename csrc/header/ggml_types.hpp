#pragma once

#include <cstdint>

namespace ggufext {

/// How ggml lays out one tensor type: `block_size` elements take `block_bytes` bytes.
struct GgmlType {
  const char* name;
  uint32_t block_size;  ///< 0: a type that llama.cpp once had and no longer reads
  uint32_t block_bytes;

  bool is_removed() const { return block_size == 0; }
};

/// The type with this number in GGUF files, null when there never was one.
///
/// Source: ggml.h and ggml-common.h in the llama.cpp of llama-cpp-python 0.3.36.
const GgmlType* find_ggml_type(int32_t number);

/// One more than the highest number of a type.
int32_t ggml_type_count();

}  // namespace ggufext
