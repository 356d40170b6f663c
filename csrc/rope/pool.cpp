#include "pool.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#include "system.hpp"

namespace ggufext {
namespace {

/// Chunks are claimed one by one, so a thread that the system holds up delays one chunk, not a
/// fixed share of the work, and helpers that wake late find nothing left and cost nothing.
struct Claims {
  explicit Claims(const Work& w) : work(w) {}

  void drain() {
    for (;;) {
      const int64_t begin = next.fetch_add(work.items_per_chunk, std::memory_order_relaxed);
      if (begin >= work.items) return;
      work.run(work.context, begin, std::min(begin + work.items_per_chunk, work.items));
    }
  }

  const Work& work;
  std::atomic<int64_t> next{0};
};

class Pool {
 public:
  /// False when the pool is busy.
  bool run(const Work& work, int threads) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    Claims claims(work);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      start_helpers(threads - 1);
      claims_ = &claims;
      seats_ = threads - 1;
      ++generation_;
    }
    wake_.notify_all();
    claims.drain();
    std::unique_lock<std::mutex> lock(mutex_);
    claims_ = nullptr;
    done_.wait(lock, [this] { return active_ == 0; });
    return true;
  }

 private:
  void start_helpers(int wanted) {
    while (helpers_ < wanted) {
      try {
        std::thread([this] { help(); }).detach();
      } catch (const std::system_error&) {
        return;  // fewer helpers than asked for: the caller does the rest
      }
      ++helpers_;
    }
  }

  void help() {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return claims_ != nullptr && generation_ != seen && seats_ > 0; });
      seen = generation_;
      --seats_;
      ++active_;
      Claims* claims = claims_;
      lock.unlock();
      claims->drain();
      lock.lock();
      if (--active_ == 0) done_.notify_one();
    }
  }

  std::mutex owner_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  Claims* claims_ = nullptr;
  uint64_t generation_ = 0;
  int seats_ = 0;
  int active_ = 0;
  int helpers_ = 0;
};

struct Owned {
  int64_t process;
  Pool* pool;
};

/// The pool of this process. Threads do not survive fork(), so a child starts its own; pools are
/// never destroyed, because their threads may still sleep in them when the process ends.
Pool& process_pool() {
  static std::atomic<Owned*> current{nullptr};
  Owned* owned = current.load(std::memory_order_acquire);
  while (owned == nullptr || owned->process != system::process_id()) {
    auto* fresh = new Owned{system::process_id(), new Pool};
    if (current.compare_exchange_strong(owned, fresh, std::memory_order_acq_rel))
      return *fresh->pool;
    delete fresh->pool;
    delete fresh;
  }
  return *owned->pool;
}

}  // namespace

void run_parallel(const Work& work, int threads) {
  if (threads <= 1 || work.items <= work.items_per_chunk || !process_pool().run(work, threads)) {
    work.run(work.context, 0, work.items);
  }
}

}  // namespace ggufext
