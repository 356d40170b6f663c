# The libraries without Python: what header and rotation share, headers, and the rotation on the CPU.
# None sees another's folder to include, but for `core`; tests/native builds them alone.
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(GGUFEXT_CSRC ${CMAKE_CURRENT_LIST_DIR}/../csrc)

# MSVC, and clang-cl, which takes its options.
if(MSVC)
  set(GGUFEXT_WARNINGS /W3)
  add_compile_options(/utf-8)
else()
  set(GGUFEXT_WARNINGS -Wall -Wextra -Wconversion)
endif()

find_package(Threads REQUIRED)
add_library(ggufext_core STATIC ${GGUFEXT_CSRC}/core/system.cpp)
target_include_directories(ggufext_core PUBLIC ${GGUFEXT_CSRC}/core)
target_compile_options(ggufext_core PRIVATE ${GGUFEXT_WARNINGS})

add_library(ggufext_header STATIC
  ${GGUFEXT_CSRC}/header/byte_reader.cpp
  ${GGUFEXT_CSRC}/header/foreign.cpp
  ${GGUFEXT_CSRC}/header/ggml_types.cpp
  ${GGUFEXT_CSRC}/header/header.cpp
  ${GGUFEXT_CSRC}/header/header_keys.cpp
  ${GGUFEXT_CSRC}/header/header_tensors.cpp
  ${GGUFEXT_CSRC}/header/message.cpp)
target_include_directories(ggufext_header PUBLIC ${GGUFEXT_CSRC}/header)
target_link_libraries(ggufext_header PUBLIC ggufext_core)
target_compile_options(ggufext_header PRIVATE ${GGUFEXT_WARNINGS})

# One kernel file per instruction set, chosen when the module is loaded, so that one binary runs
# everywhere. They are written in the vectors of GCC and Clang; other compilers get the plain one.
# Fused multiply-add is allowed in all of them (GCC's default, not clang's).
add_library(ggufext_rope STATIC
  ${GGUFEXT_CSRC}/rope/pool.cpp
  ${GGUFEXT_CSRC}/rope/rope.cpp
  ${GGUFEXT_CSRC}/rope/rope_check.cpp
  ${GGUFEXT_CSRC}/rope/rope_overlap.cpp
  ${GGUFEXT_CSRC}/rope/rope_phase.cpp)
target_include_directories(ggufext_rope PUBLIC ${GGUFEXT_CSRC}/rope)
target_link_libraries(ggufext_rope PUBLIC ggufext_core Threads::Threads)

option(GGUFEXT_PLAIN_KERNEL "Rotation without vector extensions, as MSVC gets it" OFF)
if(GGUFEXT_PLAIN_KERNEL OR MSVC OR NOT CMAKE_CXX_COMPILER_ID MATCHES "^(GNU|AppleClang|Clang)$")
  target_sources(ggufext_rope PRIVATE ${GGUFEXT_CSRC}/rope/rope_plain.cpp)
else()
  set(GGUFEXT_KERNEL_FLAGS -O3 -ffp-contract=fast -Wno-psabi -Wno-ignored-attributes)
  target_sources(ggufext_rope PRIVATE ${GGUFEXT_CSRC}/rope/rope_baseline.cpp)
  set_source_files_properties(${GGUFEXT_CSRC}/rope/rope_baseline.cpp PROPERTIES
    COMPILE_OPTIONS "${GGUFEXT_KERNEL_FLAGS}")

  # On macOS one machine compiles for the other processor, or for both.
  set(GGUFEXT_PROCESSOR ${CMAKE_SYSTEM_PROCESSOR})
  if(APPLE AND CMAKE_OSX_ARCHITECTURES)
    set(GGUFEXT_PROCESSOR "${CMAKE_OSX_ARCHITECTURES}")
  endif()
  if(GGUFEXT_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    target_sources(ggufext_rope PRIVATE
      ${GGUFEXT_CSRC}/rope/rope_avx2.cpp ${GGUFEXT_CSRC}/rope/rope_avx512.cpp)
    target_compile_definitions(ggufext_rope PRIVATE GGUFEXT_X86_KERNELS)
    set(GGUFEXT_AVX2_FLAGS ${GGUFEXT_KERNEL_FLAGS} -mavx2 -mfma -mf16c)
    set_source_files_properties(${GGUFEXT_CSRC}/rope/rope_avx2.cpp PROPERTIES
      COMPILE_OPTIONS "${GGUFEXT_AVX2_FLAGS}")
    set_source_files_properties(${GGUFEXT_CSRC}/rope/rope_avx512.cpp PROPERTIES
      COMPILE_OPTIONS "${GGUFEXT_AVX2_FLAGS};-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl")
  endif()
endif()
