#include <pybind11/pybind11.h>

namespace ggufext {
void register_header(pybind11::module_&) {}
}  // namespace ggufext
