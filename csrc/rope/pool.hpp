#pragma once

#include <cstdint>

namespace ggufext {

/// Work that is cut into items; `run` is called from several threads with disjoint ranges.
struct Work {
  void (*run)(const void* context, int64_t begin, int64_t end);
  const void* context;
  int64_t items;
  int64_t items_per_chunk;
};

/// Runs all items on at most `threads` threads, the caller among them, and returns when all are
/// done. The helpers live on between calls. A caller that finds them busy with somebody else's
/// work does its own alone.
void run_parallel(const Work& work, int threads);

}  // namespace ggufext
