// The record of what happens below one directory (storage_recorder.cc): what power_states.py reads.
//
// ECHOFS_RECORD names the record, outside the directory; ECHOFS_RECORD_ROOT the directory. An operation and its entry
// are one step under Order(), so the record has the order in which things happened, also of several processes. Who
// holds an flock on the record can kill a process between two such steps, and the record has all that it did. A sync runs outside: it covers what was recorded before its kSyncBegin, once there
// is its kSyncEnd. Sockets and attributes of files are not recorded.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace storage_record {

enum Kind : std::uint32_t {
  kCreate = 1,    // first: path; a: mode
  kWrite = 2,     // first: data; a: offset
  kTruncate = 3,  // a: size
  kRemove = 4,    // first: path; of a file or of a directory
  kRename = 5,    // first, second: paths
  kMakeDirectory = 6,
  kSymlink = 7,  // first: path, second: target
  kLink = 8,     // first: path that was there, second: new path
  kSyncBegin = 9,
  kSyncEnd = 10,  // a: what the kSyncBegin has there
};

// What precedes `first_size` and `second_size` bytes, in the byte order of the machine.
struct Header {
  std::uint32_t magic = 0x31434552;
  std::uint32_t kind = 0;
  std::uint64_t inode = 0;
  std::uint64_t a = 0;
  std::uint32_t first_size = 0;
  std::uint32_t second_size = 0;
};

// Held across an operation and its entry; for std::lock_guard. Keeps errno.
class OrderLock {
 public:
  void lock();
  void unlock();
};
OrderLock& Order();

// Whether anything is recorded in this process.
bool Enabled();
// Whether an absolute path is below the directory.
bool IsBelow(std::string_view path);
// The absolute path of what a call names.
std::string PathOf(int directory, const char* path);
// The path of a regular file or directory that is the directory or below it, else nothing; its attributes in `st`.
std::string PathOf(int descriptor, struct stat* st);
// 0 when it is not there. Keeps errno.
std::uint64_t InodeOf(const std::string& path);

// Keeps errno.
void Append(Kind kind, std::uint64_t inode, std::uint64_t a, std::string_view first = {},
            std::string_view second = {});
// Ends the process with a message.
[[noreturn]] void Fail(const char* what, const std::string& path);

// A function of the library that comes after this one.
void* NextFunction(const char* name);
template <class Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(NextFunction(name));
}

}  // namespace storage_record
