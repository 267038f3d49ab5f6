// Preloaded into a node (LD_PRELOAD): records every operation that changes what is below one directory, and when
// syncs began and ended, so that power_states.py can tell what a power loss would have left at each moment.
// storage_record.h has the format.
//
// An operation that changes the directory and is not known here ends the process with a message: a record with a
// gap would prove nothing.
#undef _FILE_OFFSET_BITS  // it would give two of the functions here the same name
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>
#include <string_view>

#include "tests/cluster/storage_record.h"

namespace {

using storage_record::Append;
using storage_record::Enabled;
using storage_record::Fail;
using storage_record::InodeOf;
using storage_record::IsBelow;
using storage_record::Kind;
using storage_record::Order;
using storage_record::PathOf;
using storage_record::Real;
using enum storage_record::Kind;

std::atomic<std::uint64_t> next_sync{1};

template <class Call>
int Open(int directory, const char* name, int flags, mode_t mode, const Call& call) {
  const bool changes = (flags & (O_CREAT | O_TRUNC)) != 0;
  const std::string path = Enabled() && changes ? PathOf(directory, name) : std::string();
  if (!IsBelow(path)) return call();
  if ((flags & O_TMPFILE) == O_TMPFILE) Fail("open with O_TMPFILE", path);
  const std::lock_guard lock(Order());
  const bool existed = InodeOf(path) != 0;
  const int descriptor = call();
  if (descriptor < 0) return descriptor;
  const std::uint64_t inode = InodeOf(path);
  if (!existed) {
    Append(kCreate, inode, mode, path);
  } else if ((flags & O_TRUNC) != 0) {
    Append(kTruncate, inode, 0);
  }
  return descriptor;
}

template <class Call>
ssize_t Write(int descriptor, off64_t offset, const iovec* parts, int count, const Call& call) {
  struct stat st;
  const std::string path = PathOf(descriptor, &st);
  if (path.empty()) return call();
  const std::lock_guard lock(Order());
  const int flags = fcntl(descriptor, F_GETFL);
  if (offset < 0) {
    if ((flags & O_APPEND) != 0 && fstat(descriptor, &st) != 0) Fail("append", path);
    offset = (flags & O_APPEND) != 0 ? st.st_size : lseek64(descriptor, 0, SEEK_CUR);
  } else if ((flags & O_APPEND) != 0) {
    Fail("a write with O_APPEND and an offset", path);
  }
  const ssize_t written = call();
  if (written <= 0) return written;
  std::string data;
  for (int i = 0; i < count; ++i) {
    data.append(static_cast<const char*>(parts[i].iov_base), parts[i].iov_len);
  }
  data.resize(static_cast<std::size_t>(written));
  Append(kWrite, st.st_ino, static_cast<std::uint64_t>(offset), data);
  return written;
}

template <class Call>
int Truncate(int descriptor, off64_t size, const Call& call) {
  struct stat st;
  if (PathOf(descriptor, &st).empty()) return call();
  const std::lock_guard lock(Order());
  const int result = call();
  if (result == 0) Append(kTruncate, st.st_ino, static_cast<std::uint64_t>(size));
  return result;
}

template <class Call>
int Sync(int descriptor, const Call& call) {
  struct stat st;
  if (PathOf(descriptor, &st).empty()) return call();
  const std::uint64_t number = (static_cast<std::uint64_t>(getpid()) << 32) | next_sync++;
  {
    const std::lock_guard lock(Order());
    Append(kSyncBegin, st.st_ino, number);
  }
  const int result = call();
  const std::lock_guard lock(Order());
  if (result == 0) Append(kSyncEnd, st.st_ino, number);
  return result;
}

// An operation on one name, done at `path`.
template <class Call>
int Name(Kind kind, const std::string& path, std::string_view second, const Call& call) {
  if (!IsBelow(path)) return call();
  const std::lock_guard lock(Order());
  const int result = call();
  if (result == 0) Append(kind, InodeOf(path), 0, path, second);
  return result;
}

template <class Call>
int TwoNames(Kind kind, const std::string& from, const std::string& to, const Call& call) {
  if (!IsBelow(from) && !IsBelow(to)) return call();
  if (!IsBelow(from) || !IsBelow(to)) Fail("rename or link across its border", from);
  const std::lock_guard lock(Order());
  const int result = call();
  if (result == 0) Append(kind, InodeOf(to), 0, from, to);
  return result;
}

// For what is not known here.
void Refuse(const char* what, int descriptor) {
  struct stat st;
  if (const std::string path = PathOf(descriptor, &st); !path.empty()) Fail(what, path);
}

void Refuse(const char* what, const char* name) {
  if (!Enabled()) return;
  if (const std::string path = PathOf(AT_FDCWD, name); IsBelow(path)) Fail(what, path);
}

mode_t ModeOf(int flags, va_list arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? static_cast<mode_t>(va_arg(arguments, int)) : 0;
}

}  // namespace

// Each function under all of its names; `real` is the one it stands before.
#define REAL(name) static auto* const real = Real<decltype(name)>(#name)

#define OPEN(name)                                                                     \
  int name(const char* path, int flags, ...) {                                         \
    REAL(name);                                                                        \
    va_list arguments;                                                                 \
    va_start(arguments, flags);                                                        \
    const mode_t mode = ModeOf(flags, arguments);                                      \
    va_end(arguments);                                                                 \
    return Open(AT_FDCWD, path, flags, mode, [&] { return real(path, flags, mode); }); \
  }

#define OPENAT(name)                                                                               \
  int name(int directory, const char* path, int flags, ...) {                                      \
    REAL(name);                                                                                    \
    va_list arguments;                                                                             \
    va_start(arguments, flags);                                                                    \
    const mode_t mode = ModeOf(flags, arguments);                                                  \
    va_end(arguments);                                                                             \
    return Open(directory, path, flags, mode, [&] { return real(directory, path, flags, mode); }); \
  }

#define PWRITE(name, offset_type)                                                   \
  ssize_t name(int descriptor, const void* data, size_t size, offset_type offset) { \
    REAL(name);                                                                     \
    const iovec part{const_cast<void*>(data), size};                                \
    return Write(descriptor, offset, &part, 1,                                      \
                 [&] { return real(descriptor, data, size, offset); });             \
  }

#define PWRITEV(name, offset_type)                                                  \
  ssize_t name(int descriptor, const iovec* parts, int count, offset_type offset) { \
    REAL(name);                                                                     \
    return Write(descriptor, offset, parts, count,                                  \
                 [&] { return real(descriptor, parts, count, offset); });           \
  }

#define FTRUNCATE(name, offset_type)                                           \
  int name(int descriptor, offset_type size) noexcept {                        \
    REAL(name);                                                                \
    return Truncate(descriptor, size, [&] { return real(descriptor, size); }); \
  }

#define SYNC(name)                                             \
  int name(int descriptor) {                                   \
    REAL(name);                                                \
    return Sync(descriptor, [&] { return real(descriptor); }); \
  }

#define REFUSE_DESCRIPTOR(result, name, parameters, arguments, descriptor) \
  result name parameters {                                                 \
    REAL(name);                                                            \
    Refuse(#name, descriptor);                                             \
    return real arguments;                                                 \
  }

extern "C" {

int __open_2(const char* path, int flags);
int __open64_2(const char* path, int flags);

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)
SYNC(fsync)
SYNC(fdatasync)

int __open_2(const char* path, int flags) { return open(path, flags); }
int __open64_2(const char* path, int flags) { return open64(path, flags); }
int creat(const char* path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char* path, mode_t mode) {
  return open64(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

// openat2 has no function of its own in the library. Any other call goes on with as many arguments as there can be.
long syscall(long number, ...) noexcept {
  REAL(syscall);
  va_list list;
  va_start(list, number);
  long arguments[6];
  for (long& argument : arguments) argument = va_arg(list, long);
  va_end(list);
  const auto call = [&] {
    return real(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
                arguments[5]);
  };
  if (number != SYS_openat2) return call();
  const auto* how = reinterpret_cast<const open_how*>(arguments[2]);
  return Open(static_cast<int>(arguments[0]), reinterpret_cast<const char*>(arguments[1]),
              static_cast<int>(how->flags), static_cast<mode_t>(how->mode),
              [&] { return static_cast<int>(call()); });
}

ssize_t write(int descriptor, const void* data, size_t size) {
  REAL(write);
  const iovec part{const_cast<void*>(data), size};
  return Write(descriptor, -1, &part, 1, [&] { return real(descriptor, data, size); });
}

ssize_t writev(int descriptor, const iovec* parts, int count) {
  REAL(writev);
  return Write(descriptor, -1, parts, count, [&] { return real(descriptor, parts, count); });
}

int unlink(const char* path) noexcept {
  REAL(unlink);
  return Name(kRemove, PathOf(AT_FDCWD, path), {}, [&] { return real(path); });
}

int unlinkat(int directory, const char* path, int flags) noexcept {
  REAL(unlinkat);
  return Name(kRemove, PathOf(directory, path), {}, [&] { return real(directory, path, flags); });
}

int rmdir(const char* path) noexcept {
  REAL(rmdir);
  return Name(kRemove, PathOf(AT_FDCWD, path), {}, [&] { return real(path); });
}

int mkdir(const char* path, mode_t mode) noexcept {
  REAL(mkdir);
  return Name(kMakeDirectory, PathOf(AT_FDCWD, path), {}, [&] { return real(path, mode); });
}

int mkdirat(int directory, const char* path, mode_t mode) noexcept {
  REAL(mkdirat);
  return Name(kMakeDirectory, PathOf(directory, path), {},
              [&] { return real(directory, path, mode); });
}

int symlink(const char* target, const char* path) noexcept {
  REAL(symlink);
  return Name(kSymlink, PathOf(AT_FDCWD, path), target, [&] { return real(target, path); });
}

int link(const char* from, const char* to) noexcept {
  REAL(link);
  return TwoNames(kLink, PathOf(AT_FDCWD, from), PathOf(AT_FDCWD, to),
                  [&] { return real(from, to); });
}

int rename(const char* from, const char* to) noexcept {
  REAL(rename);
  return TwoNames(kRename, PathOf(AT_FDCWD, from), PathOf(AT_FDCWD, to),
                  [&] { return real(from, to); });
}

int renameat(int from_directory, const char* from, int to_directory, const char* to) noexcept {
  REAL(renameat);
  return TwoNames(kRename, PathOf(from_directory, from), PathOf(to_directory, to),
                  [&] { return real(from_directory, from, to_directory, to); });
}

int renameat2(int from_directory, const char* from, int to_directory, const char* to,
              unsigned flags) noexcept {
  REAL(renameat2);
  const std::string path = PathOf(from_directory, from);
  if ((flags & RENAME_EXCHANGE) != 0 && IsBelow(path)) Fail("renameat2 with RENAME_EXCHANGE", path);
  return TwoNames(kRename, path, PathOf(to_directory, to),
                  [&] { return real(from_directory, from, to_directory, to, flags); });
}

int truncate(const char* path, off_t size) noexcept {
  REAL(truncate);
  Refuse("truncate", path);
  return real(path, size);
}

int truncate64(const char* path, off64_t size) noexcept {
  REAL(truncate64);
  Refuse("truncate64", path);
  return real(path, size);
}

int remove(const char* path) noexcept {
  REAL(remove);
  return Name(kRemove, PathOf(AT_FDCWD, path), {}, [&] { return real(path); });
}

FILE* fopen(const char* path, const char* mode) {
  REAL(fopen);
  if (mode[0] != 'r' || std::string_view(mode).find('+') != std::string_view::npos) {
    Refuse("fopen", path);
  }
  return real(path, mode);
}

FILE* fopen64(const char* path, const char* mode) {
  REAL(fopen64);
  if (mode[0] != 'r' || std::string_view(mode).find('+') != std::string_view::npos) {
    Refuse("fopen64", path);
  }
  return real(path, mode);
}

void* mmap64(void* address, size_t size, int protection, int flags, int descriptor,
             off64_t offset) noexcept {
  REAL(mmap64);
  if (descriptor >= 0 && (flags & MAP_SHARED) != 0) Refuse("mmap", descriptor);
  return real(address, size, protection, flags, descriptor, offset);
}

void* mmap(void* address, size_t size, int protection, int flags, int descriptor,
           off_t offset) noexcept {
  return mmap64(address, size, protection, flags, descriptor, offset);
}

int syncfs(int descriptor) noexcept {
  REAL(syncfs);
  Refuse("syncfs", descriptor);
  return real(descriptor);
}

REFUSE_DESCRIPTOR(int, fallocate, (int fd, int mode, off_t offset, off_t size),
                  (fd, mode, offset, size), fd)
REFUSE_DESCRIPTOR(int, fallocate64, (int fd, int mode, off64_t offset, off64_t size),
                  (fd, mode, offset, size), fd)
REFUSE_DESCRIPTOR(int, posix_fallocate, (int fd, off_t offset, off_t size), (fd, offset, size), fd)
REFUSE_DESCRIPTOR(int, posix_fallocate64, (int fd, off64_t offset, off64_t size),
                  (fd, offset, size), fd)
// sync_file_range makes nothing durable: whatever it has written, the power may take.
REFUSE_DESCRIPTOR(ssize_t, copy_file_range,
                  (int from, off64_t* from_offset, int to, off64_t* to_offset, size_t size,
                   unsigned flags),
                  (from, from_offset, to, to_offset, size, flags), to)
REFUSE_DESCRIPTOR(ssize_t, sendfile, (int to, int from, off_t* offset, size_t size),
                  (to, from, offset, size), to)
REFUSE_DESCRIPTOR(ssize_t, sendfile64, (int to, int from, off64_t* offset, size_t size),
                  (to, from, offset, size), to)
REFUSE_DESCRIPTOR(ssize_t, splice,
                  (int from, off64_t* from_offset, int to, off64_t* to_offset, size_t size,
                   unsigned flags),
                  (from, from_offset, to, to_offset, size, flags), to)
REFUSE_DESCRIPTOR(ssize_t, pwritev2,
                  (int fd, const iovec* parts, int count, off_t offset, int flags),
                  (fd, parts, count, offset, flags), fd)
REFUSE_DESCRIPTOR(ssize_t, pwritev64v2,
                  (int fd, const iovec* parts, int count, off64_t offset, int flags),
                  (fd, parts, count, offset, flags), fd)

}  // extern "C"
