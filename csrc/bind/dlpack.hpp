// The part of DLPack's public C interface (version 1) that is read here.
#pragma once

#include <cstdint>

namespace ggufext::dlpack {

constexpr int kCpu = 1;
constexpr int kCuda = 2;
constexpr int kCudaHost = 3;
constexpr int kCudaManaged = 13;

constexpr int kInt = 0;
constexpr int kUInt = 1;
constexpr int kFloat = 2;
constexpr int kBFloat = 4;

constexpr uint64_t kReadOnly = 1;

struct Device {
  int32_t type;
  int32_t id;
};

struct DataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

/// Strides count elements and are null for C order.
struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType type;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};

/// What a capsule named "dltensor" holds.
struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};

/// What a capsule named "dltensor_versioned" holds.
struct ManagedVersioned {
  uint32_t major;
  uint32_t minor;
  void* context;
  void (*deleter)(ManagedVersioned*);
  uint64_t flags;
  Tensor tensor;
};

}  // namespace ggufext::dlpack
