# CUDA: a module of its own, loaded only for tensors on a device, with the runtime linked statically,
# so that nothing else of the package depends on CUDA.
set(GGUFEXT_CUDA AUTO CACHE STRING "CUDA kernels: ON (required), OFF, or AUTO (when nvcc is found)")
set_property(CACHE GGUFEXT_CUDA PROPERTY STRINGS AUTO ON OFF)
if(GGUFEXT_CUDA STREQUAL "AUTO")
  include(CheckLanguage)
  check_language(CUDA)
endif()

if(GGUFEXT_CUDA STREQUAL "AUTO" AND NOT CMAKE_CUDA_COMPILER)
  message(STATUS "ggufext: no working CUDA compiler found, building without CUDA kernels")
elseif(GGUFEXT_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(GGUFEXT_CUDA_ARCHITECTURES_BY_COMPILER ON)
    set(CMAKE_CUDA_ARCHITECTURES OFF)
  endif()
  enable_language(CUDA)
  # One binary for each major generation from Turing on (it runs on the minor ones too), the oldest
  # and the newest also as PTX, for what lies between and for what is to come. More binaries would
  # only cost compile time: the kernel is bound by memory.
  if(GGUFEXT_CUDA_ARCHITECTURES_BY_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES 75 80-real 90)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
      set(CMAKE_CUDA_ARCHITECTURES 75 80-real 90-real 100-real 120)
    endif()
  endif()
  message(STATUS "ggufext: CUDA kernels for ${CMAKE_CUDA_ARCHITECTURES}")

  pybind11_add_module(_cuda MODULE
    csrc/bind/cuda.cpp
    csrc/cuda/rope.cu
    csrc/cuda/rope_launch.cpp)
  target_include_directories(_cuda PRIVATE csrc/cuda)
  target_link_libraries(_cuda PRIVATE ggufext_rope_arrays)
  set_target_properties(_cuda PROPERTIES
    CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static
    CUDA_VISIBILITY_PRESET hidden)
  target_compile_options(_cuda PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:--threads=2>")
  install(TARGETS _cuda DESTINATION ggufext)
endif()
