#include <pybind11/pybind11.h>

namespace ggufext {
void register_rope(pybind11::module_&) {}
}  // namespace ggufext
