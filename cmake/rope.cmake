# The RoPE kernels: one kernel file per instruction set, chosen when the module is loaded, so that
# one binary runs everywhere. Fused multiply-add is allowed in all of them (GCC's default, not
# clang's).
add_library(ggufext_rope STATIC
  csrc/core/pool.cpp
  csrc/core/rope.cpp
  csrc/core/rope_baseline.cpp
  csrc/core/rope_check.cpp
  csrc/core/rope_overlap.cpp
  csrc/core/rope_phase.cpp)
target_include_directories(ggufext_rope PUBLIC csrc/core)

find_package(Threads REQUIRED)
target_link_libraries(ggufext_rope PUBLIC Threads::Threads)

set(GGUFEXT_KERNEL_FLAGS -O3 -ffp-contract=fast -Wno-psabi -Wno-ignored-attributes)
set_source_files_properties(csrc/core/rope_baseline.cpp PROPERTIES
  COMPILE_OPTIONS "${GGUFEXT_KERNEL_FLAGS}")

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  target_sources(ggufext_rope PRIVATE csrc/core/rope_avx2.cpp csrc/core/rope_avx512.cpp)
  target_compile_definitions(ggufext_rope PRIVATE GGUFEXT_X86_KERNELS)
  set(GGUFEXT_AVX2_FLAGS ${GGUFEXT_KERNEL_FLAGS} -mavx2 -mfma -mf16c)
  set_source_files_properties(csrc/core/rope_avx2.cpp PROPERTIES
    COMPILE_OPTIONS "${GGUFEXT_AVX2_FLAGS}")
  set_source_files_properties(csrc/core/rope_avx512.cpp PROPERTIES
    COMPILE_OPTIONS "${GGUFEXT_AVX2_FLAGS};-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl")
endif()

target_sources(_core PRIVATE csrc/bind/rope_tensor.cpp)
target_link_libraries(_core PRIVATE ggufext_rope)
