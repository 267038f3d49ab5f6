#undef _FILE_OFFSET_BITS  // as in storage_recorder.cc, whose functions this must not call by accident
#include "tests/cluster/storage_record.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace storage_record {
namespace {

int record = -1;
char root[PATH_MAX];  // with a slash at its end

__attribute__((constructor)) void Start() {
  const char* const path = std::getenv("ECHOFS_RECORD");
  const char* const directory = std::getenv("ECHOFS_RECORD_ROOT");
  if (path == nullptr || directory == nullptr) return;
  std::snprintf(root, sizeof(root), "%s/", directory);
  auto* const real = Real<int(const char*, int, ...)>("open64");
  record = real(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (record < 0) Fail("open of the record", path);
}

std::string ReadLink(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t n = readlink(path.c_str(), target, sizeof(target));
  return n > 0 ? std::string(target, static_cast<std::size_t>(n)) : std::string();
}

}  // namespace

namespace {

// Of the threads of this process. Never destroyed: they may run until the very end.
std::mutex& OrderInProcess() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}

}  // namespace

void OrderLock::lock() {
  OrderInProcess().lock();
  const int error = errno;
  while (flock(record, LOCK_EX) != 0) {
    if (errno != EINTR) Fail("flock", "the record itself");
  }
  errno = error;
}

void OrderLock::unlock() {
  const int error = errno;
  flock(record, LOCK_UN);
  errno = error;
  OrderInProcess().unlock();
}

OrderLock& Order() {
  static OrderLock order;
  return order;
}

void* NextFunction(const char* name) { return dlsym(RTLD_NEXT, name); }

void Fail(const char* what, const std::string& path) {
  std::fprintf(stderr, "storage_recorder: %s on %s cannot be recorded\n", what, path.c_str());
  std::abort();
}

bool Enabled() { return record >= 0; }

bool IsBelow(std::string_view path) { return record >= 0 && path.starts_with(root); }

std::string PathOf(int directory, const char* path) {
  if (path[0] == '/') return path;
  const std::string base = directory == AT_FDCWD
                               ? ReadLink("/proc/self/cwd")
                               : ReadLink("/proc/self/fd/" + std::to_string(directory));
  return base + "/" + path;
}

std::string PathOf(int descriptor, struct stat* st) {
  if (record < 0) return "";
  const int error = errno;
  std::string path;
  if (fstat(descriptor, st) == 0 && (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode))) {
    path = ReadLink("/proc/self/fd/" + std::to_string(descriptor));
  }
  errno = error;
  return IsBelow(path) || path + "/" == root ? path : std::string();
}

std::uint64_t InodeOf(const std::string& path) {
  const int error = errno;
  struct stat st;
  const bool found = lstat(path.c_str(), &st) == 0;
  errno = error;
  return found ? st.st_ino : 0;
}

void Append(Kind kind, std::uint64_t inode, std::uint64_t a, std::string_view first,
            std::string_view second) {
  const int error = errno;
  Header header;
  header.kind = kind;
  header.inode = inode;
  header.a = a;
  header.first_size = static_cast<std::uint32_t>(first.size());
  header.second_size = static_cast<std::uint32_t>(second.size());
  iovec parts[] = {{&header, sizeof(header)},
                   {const_cast<char*>(first.data()), first.size()},
                   {const_cast<char*>(second.data()), second.size()}};
  static auto* const real = Real<ssize_t(int, const iovec*, int)>("writev");
  const std::size_t size = sizeof(header) + first.size() + second.size();
  if (real(record, parts, 3) != static_cast<ssize_t>(size)) Fail("a write", "the record itself");
  errno = error;
}

}  // namespace storage_record
