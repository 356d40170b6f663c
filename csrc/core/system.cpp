#include "system.hpp"

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <thread>

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <io.h>
#include <windows.h>
#else
#include <sys/stat.h>
#include <unistd.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif

namespace ggufext::system {

#ifdef _WIN32

bool describe(int fd, FileFacts* facts) {
  const auto handle = reinterpret_cast<HANDLE>(_get_osfhandle(fd));
  facts->is_regular = GetFileType(handle) == FILE_TYPE_DISK;
  if (!facts->is_regular) return handle != INVALID_HANDLE_VALUE;
  LARGE_INTEGER size;
  if (!GetFileSizeEx(handle, &size)) return false;
  facts->size = static_cast<uint64_t>(size.QuadPart);
  return true;
}

int64_t read_at(int fd, char* to, size_t size, uint64_t offset) {
  OVERLAPPED place{};
  place.Offset = static_cast<DWORD>(offset);
  place.OffsetHigh = static_cast<DWORD>(offset >> 32);
  const auto most = static_cast<DWORD>(std::min<size_t>(size, size_t{1} << 30));
  DWORD got = 0;
  if (ReadFile(reinterpret_cast<HANDLE>(_get_osfhandle(fd)), to, most, &got, &place)) return got;
  return GetLastError() == ERROR_HANDLE_EOF ? 0 : -1;
}

std::string last_error() {
  return std::system_category().message(static_cast<int>(GetLastError()));
}

int64_t process_id() { return 0; }  // there is no fork

#else

bool describe(int fd, FileFacts* facts) {
  struct stat status;
  if (fstat(fd, &status) != 0) return false;
  facts->is_regular = S_ISREG(status.st_mode);
  facts->size = static_cast<uint64_t>(status.st_size);
  return true;
}

int64_t read_at(int fd, char* to, size_t size, uint64_t offset) {
  ssize_t got = -1;
  do {
    got = pread(fd, to, size, static_cast<off_t>(offset));
  } while (got < 0 && errno == EINTR);
  return got;
}

std::string last_error() { return std::generic_category().message(errno); }

int64_t process_id() { return getpid(); }

#endif

int available_processors() {
#ifdef __linux__
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return std::max(1, CPU_COUNT(&allowed));
#endif
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace ggufext::system
