// The limit a rotation in place cannot beat: every byte of a buffer is read once and written once.
// Each thread sweeps its own part `sweeps` times without meeting the others. Compiled by
// rope_cpu.py with the system's compiler for the machine at hand.
#include <cstdint>
#include <thread>
#include <vector>

namespace {

void sweep(uint32_t* words, int64_t count, int sweeps) {
  for (int s = 0; s < sweeps; ++s) {
    for (int64_t i = 0; i < count; ++i) words[i] ^= 0x5a5a5a5au;
    asm volatile("" : : "r"(words) : "memory");
  }
}

}  // namespace

extern "C" void stream_in_place(void* data, int64_t bytes, int threads, int sweeps) {
  auto* words = static_cast<uint32_t*>(data);
  const int64_t part = bytes / 4 / threads;
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(sweep, words + t * part, part, sweeps);
  sweep(words, part, sweeps);
  for (std::thread& other : others) other.join();
}
