// Table of contents of ggufext._core: one register function a noun.
#include <pybind11/pybind11.h>

namespace ggufext {
void register_header(pybind11::module_& m);
void register_rope(pybind11::module_& m);
}  // namespace ggufext

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  m.doc() = "Native parts of ggufext: the GGUF header index and the RoPE kernels.";
  ggufext::register_header(m);
  ggufext::register_rope(m);
}
