// The CUDA kernel and its launch: a block works on all heads of q and k of a few tokens.
#include <cuda_runtime.h>

#include <memory>

#include "rope_cuda.hpp"
#include "rope_launch.hpp"

namespace ggufext::rope {
namespace {

template <class Element, Layout layout, int V>
__global__ void __launch_bounds__(kBlockThreads, 2)
    rotate_tokens(const __grid_constant__ Launch launch) {
  rotate_group<Element, layout, V>(launch, blockIdx.x * blockDim.z + threadIdx.z,
                                   blockIdx.y * blockDim.y + threadIdx.y, threadIdx.x);
}

struct PositionArray {
  const char* data;
  int64_t shape[3];
  int64_t strides[3];
  int item_size;
  bool is_signed;
};

__device__ int64_t read_signed(const char* at, int size) {
  switch (size) {
    case 1:
      return *reinterpret_cast<const int8_t*>(at);
    case 2:
      return *reinterpret_cast<const int16_t*>(at);
    case 4:
      return *reinterpret_cast<const int32_t*>(at);
    default:
      return *reinterpret_cast<const int64_t*>(at);
  }
}

/// The lowest index of a position out of range goes to *first_bad.
__global__ void check_positions(PositionArray p, unsigned long long* first_bad) {
  const int64_t count = p.shape[0] * p.shape[1] * p.shape[2];
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    const int64_t row = i / (p.shape[1] * p.shape[2]);
    const int64_t batch = i / p.shape[2] % p.shape[1];
    const int64_t token = i % p.shape[2];
    const char* at = p.data + row * p.strides[0] + batch * p.strides[1] + token * p.strides[2];
    int64_t value = read_signed(at, p.item_size);
    // An unsigned number that does not fit int64_t is negative here, and out of range either way.
    if (!p.is_signed && p.item_size < 8) value &= (int64_t{1} << (8 * p.item_size)) - 1;
    if (value < 0 || value > kLargestPosition) {
      atomicMin(first_bad, static_cast<unsigned long long>(i));
    }
  }
}

Status cuda_error(cudaError_t error, const char* what) {
  return Status::error("cuda_failed", std::string(what) + " failed: " + cudaGetErrorName(error) +
                                          ", " + cudaGetErrorString(error));
}

#define GGUFEXT_CUDA(call)                                                    \
  do {                                                                        \
    if (const cudaError_t error = (call); error != cudaSuccess) {             \
      (void)cudaGetLastError(); /* or the next call would be blamed for it */ \
      return cuda_error(error, #call);                                        \
    }                                                                         \
  } while (0)

/// Selects a device and puts the caller's back.
class DeviceScope {
 public:
  Status enter(int device) {
    GGUFEXT_CUDA(cudaGetDevice(&previous_));
    if (previous_ == device) return Status::ok();
    GGUFEXT_CUDA(cudaSetDevice(device));
    changed_ = true;
    return Status::ok();
  }
  ~DeviceScope() {
    if (changed_) (void)cudaSetDevice(previous_);
  }

 private:
  int previous_ = 0;
  bool changed_ = false;
};

/// Device memory in stream order.
class StreamMemory {
 public:
  explicit StreamMemory(cudaStream_t stream) : stream_(stream) {}
  StreamMemory(const StreamMemory&) = delete;
  StreamMemory& operator=(const StreamMemory&) = delete;
  ~StreamMemory() {
    if (data_ != nullptr) (void)cudaFreeAsync(data_, stream_);
  }
  Status allocate(size_t bytes) {
    GGUFEXT_CUDA(cudaMallocAsync(&data_, bytes, stream_));
    return Status::ok();
  }
  void* get() const { return data_; }

 private:
  void* data_ = nullptr;
  cudaStream_t stream_;
};

Status describe_bad_position(const PositionArray& p, int64_t index, cudaStream_t stream) {
  const int64_t row = index / (p.shape[1] * p.shape[2]);
  const int64_t batch = index / p.shape[2] % p.shape[1];
  const int64_t token = index % p.shape[2];
  int64_t value = 0;
  GGUFEXT_CUDA(cudaMemcpyAsync(
      &value, p.data + row * p.strides[0] + batch * p.strides[1] + token * p.strides[2],
      static_cast<size_t>(p.item_size), cudaMemcpyDeviceToHost, stream));
  GGUFEXT_CUDA(cudaStreamSynchronize(stream));
  const int unused = 64 - 8 * p.item_size;
  if (p.is_signed) value = value << unused >> unused;
  const std::string text =
      p.is_signed ? std::to_string(value) : std::to_string(static_cast<uint64_t>(value));
  return position_error(text + " at index " + std::to_string(token));
}

/// A number in memory of the host that kernels can write; each thread keeps its own.
Status shared_number(unsigned long long** number) {
  struct Free {
    void operator()(unsigned long long* p) const { (void)cudaFreeHost(p); }
  };
  thread_local std::unique_ptr<unsigned long long, Free> kept;
  if (kept == nullptr) {
    void* made = nullptr;
    GGUFEXT_CUDA(cudaHostAlloc(&made, sizeof **number, cudaHostAllocPortable));
    kept.reset(static_cast<unsigned long long*>(made));
  }
  *number = kept.get();
  return Status::ok();
}

Status is_capturing(cudaStream_t stream, bool* result) {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  GGUFEXT_CUDA(cudaStreamIsCapturing(stream, &capture));
  *result = capture != cudaStreamCaptureStatusNone;
  return Status::ok();
}

Status check_device_positions(const Positions& positions, cudaStream_t stream) {
  bool capturing = false;
  if (Status s = is_capturing(stream, &capturing); !s.is_ok() || capturing) return s;
  PositionArray p{positions.data, {1, 1, 1}, {0, 0, 0}, positions.item_size, positions.is_signed};
  for (int i = 0; i < positions.dims; ++i) {
    p.shape[3 - positions.dims + i] = positions.shape[i];
    p.strides[3 - positions.dims + i] = positions.strides[i];
  }
  const unsigned long long none = ~0ull;
  unsigned long long* first_bad = nullptr;
  if (Status s = shared_number(&first_bad); !s.is_ok()) return s;
  *first_bad = none;
  check_positions<<<64, 256, 0, stream>>>(p, first_bad);
  GGUFEXT_CUDA(cudaGetLastError());
  GGUFEXT_CUDA(cudaStreamSynchronize(stream));
  if (*first_bad == none) return Status::ok();
  return describe_bad_position(p, static_cast<int64_t>(*first_bad), stream);
}

template <class Element, Layout layout>
void launch_layout(const Launch& launch, const Geometry& g, cudaStream_t stream) {
  constexpr int kWide = 16 / sizeof(typename Element::Storage);
  constexpr int kNarrow = layout == Layout::kHalf ? 1 : 2;
  const dim3 grid(g.grid[0], g.grid[1]);
  const dim3 block(g.block[0], g.block[1], g.block[2]);
  if (g.vector_bytes == 16) {
    rotate_tokens<Element, layout, kWide><<<grid, block, 0, stream>>>(launch);
  } else {
    rotate_tokens<Element, layout, kNarrow><<<grid, block, 0, stream>>>(launch);
  }
}

template <class Element>
void launch_type(const Job& job, const Launch& launch, cudaStream_t stream) {
  const Geometry g = choose_geometry(job);
  if (job.layout == Layout::kHalf) {
    launch_layout<Element, Layout::kHalf>(launch, g, stream);
  } else {
    launch_layout<Element, Layout::kInterleaved>(launch, g, stream);
  }
}

Status launch_job(const Job& job, const Launch& launch, cudaStream_t stream) {
  if (launch.total_tokens == 0 || launch.groups == 0) return Status::ok();
  switch (job.type) {
    case ElementType::kFloat32:
      launch_type<CudaFloat32>(job, launch, stream);
      break;
    case ElementType::kFloat16:
      launch_type<CudaFloat16>(job, launch, stream);
      break;
    case ElementType::kBFloat16:
      launch_type<CudaBFloat16>(job, launch, stream);
      break;
  }
  GGUFEXT_CUDA(cudaGetLastError());
  return Status::ok();
}

}  // namespace

Status rotate_on_cuda(const Job& job, const Positions& positions, uint64_t stream_address) {
  auto* stream = reinterpret_cast<cudaStream_t>(stream_address);
  const auto launch = std::make_unique<Launch>();
  if (Status s = fill_launch(job, launch.get()); !s.is_ok()) return s;
  DeviceScope scope;
  if (positions.place.cuda) {
    if (Status s = scope.enter(job.place.index); !s.is_ok()) return s;
    if (Status s = check_device_positions(positions, stream); !s.is_ok()) return s;
    set_array_positions(job, positions, launch.get());
    return launch_job(job, *launch, stream);
  }
  std::vector<uint32_t> packed;
  if (Status s = read_positions(positions, &packed); !s.is_ok()) return s;
  if (Status s = scope.enter(job.place.index); !s.is_ok()) return s;
  if (set_inline_positions(job, packed, launch.get())) return launch_job(job, *launch, stream);
  bool capturing = false;
  if (Status s = is_capturing(stream, &capturing); !s.is_ok()) return s;
  if (capturing) {
    return Status::error("value",
                         "are on the CPU, expected on the device: a graph is being captured, and "
                         "would read them again when it runs",
                         "positions");
  }
  StreamMemory memory(stream);
  if (Status s = memory.allocate(4 * packed.size()); !s.is_ok()) return s;
  // Pageable memory: the runtime has taken its copy when this returns.
  GGUFEXT_CUDA(cudaMemcpyAsync(memory.get(), packed.data(), 4 * packed.size(),
                               cudaMemcpyHostToDevice, stream));
  set_packed_positions(job, memory.get(), launch.get());
  return launch_job(job, *launch, stream);
}

Status count_cuda_devices(int* count) {
  GGUFEXT_CUDA(cudaGetDeviceCount(count));
  return Status::ok();
}

}  // namespace ggufext::rope
