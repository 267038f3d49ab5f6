// Preloaded into a node (LD_PRELOAD): makes chosen operations on its disk fail. What is to fail is said by the
// test in a file that both map, named by ECHOFS_TEST_FAULTS; see FaultyDisk in disk_error_test.py.
#undef _FILE_OFFSET_BITS  // it would give two of the functions here the same name
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

enum Kind : int { kRead = 1, kWrite = 2, kTruncate = 4, kSync = 8, kRemove = 16 };

struct Control {
  std::atomic<int> kinds;      // operations that count
  std::atomic<int> countdown;  // the one that makes it 0 fails, and all later ones when `forever`
  std::atomic<int> error;
  std::atomic<int> forever;
  std::atomic<int> failed;  // how many have
  char below[512];          // directory of the files that count
  char suffix[64];          // end of their names
};

Control* control = nullptr;

__attribute__((constructor)) void Map() {
  const char* const path = std::getenv("ECHOFS_TEST_FAULTS");
  if (path == nullptr) return;
  const int descriptor = open(path, O_RDWR | O_CLOEXEC);
  if (descriptor < 0) return;
  void* const memory =
      mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  close(descriptor);
  if (memory != MAP_FAILED) control = static_cast<Control*>(memory);
}

bool Fails(Kind kind, const char* path) {
  if (control == nullptr || (control->kinds & kind) == 0) return false;
  const std::string_view name(path);
  if (!name.starts_with(control->below) || !name.ends_with(control->suffix)) return false;
  const int left = control->countdown.fetch_sub(1) - 1;
  if (left > 0 || (left < 0 && control->forever == 0)) return false;
  ++control->failed;
  errno = control->error;
  return true;
}

bool Fails(Kind kind, int descriptor) {
  if (control == nullptr || (control->kinds & kind) == 0) return false;
  char path[4096];
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  const ssize_t n = readlink(link.c_str(), path, sizeof(path) - 1);
  if (n <= 0) return false;
  path[n] = 0;
  return Fails(kind, path);
}

template <class Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

// The program is built with 64-bit offsets, which have names of their own.
ssize_t pread64(int descriptor, void* out, size_t size, off64_t offset) {
  static auto* const real = Real<ssize_t(int, void*, size_t, off64_t)>("pread64");
  return Fails(kRead, descriptor) ? -1 : real(descriptor, out, size, offset);
}

// A write that fails has written half of its bytes.
ssize_t pwrite64(int descriptor, const void* data, size_t size, off64_t offset) {
  static auto* const real = Real<ssize_t(int, const void*, size_t, off64_t)>("pwrite64");
  if (!Fails(kWrite, descriptor)) return real(descriptor, data, size, offset);
  const int error = errno;
  (void)!real(descriptor, data, size / 2, offset);
  errno = error;
  return -1;
}

int ftruncate64(int descriptor, off64_t size) {
  static auto* const real = Real<int(int, off64_t)>("ftruncate64");
  return Fails(kTruncate, descriptor) ? -1 : real(descriptor, size);
}

ssize_t pread(int descriptor, void* out, size_t size, off_t offset) {
  return pread64(descriptor, out, size, offset);
}

ssize_t pwrite(int descriptor, const void* data, size_t size, off_t offset) {
  return pwrite64(descriptor, data, size, offset);
}

int ftruncate(int descriptor, off_t size) { return ftruncate64(descriptor, size); }

int fdatasync(int descriptor) {
  static auto* const real = Real<int(int)>("fdatasync");
  return Fails(kSync, descriptor) ? -1 : real(descriptor);
}

int fsync(int descriptor) {
  static auto* const real = Real<int(int)>("fsync");
  return Fails(kSync, descriptor) ? -1 : real(descriptor);
}

int unlink(const char* path) {
  static auto* const real = Real<int(const char*)>("unlink");
  return Fails(kRemove, path) ? -1 : real(path);
}

}  // extern "C"
