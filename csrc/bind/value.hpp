#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>

namespace ggufext {

/// The Python value of a payload: the bytes behind a key's type and, for arrays, behind the type
/// and number of its elements. Raises HeaderError changed_meanwhile where they do not fit.
pybind11::object decode_value(const pybind11::bytes& payload, int32_t value_type,
                              std::optional<int32_t> element_type, uint64_t count);

/// The same for a payload from `start` to `end` of a file, which is read piece by piece.
pybind11::object read_value(int fd, uint64_t start, uint64_t end, int32_t value_type,
                            std::optional<int32_t> element_type, uint64_t count);

}  // namespace ggufext
