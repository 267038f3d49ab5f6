// Fewer requests for a frame of a WAL that is started anew, or grows and is large.
//
// SQLite writes a frame as a header of 24 bytes and a page, so a page lies across two pages of the kernel's cache. The
// kernel ends a request at a cached page that it does not know whole: the page of a frame then comes as two requests. It
// learns cached pages whole by reading, which a writer does not, or from us. So the first part of such a page is answered
// only after the next stretch of the old WAL has been stored in the kernel: the following frames come in two requests each
// instead of three.
//
// Where a large WAL grows there is no old one: the file is made longer, with zeros. SQLite takes what lies behind the last
// frame for what an earlier WAL left there, and does not count on the file's size. A transaction that does not fit into
// SQLite's cache gains most: it reads all its frames again at the end, to give them checksums, and the kernel has them now.
//
// Why nothing older than the file can be stored. What is stored is what the file holds at that moment, and nobody changes
// these bytes before the store has ended: whoever writes into a WAL holds SQLite's WRITE lock, a replica's apply too, and
// the holder of the lock is waiting for this very answer. It keeps the lock when it is killed, until it has the answer.
// A program that is not SQLite may cut the file meanwhile (an open with O_TRUNC does not wait for a write): then what was
// stored is dropped again.
//
// Why nobody waits for ever. The store waits for cached pages that are being read in, and the threads that serve READs do
// not wait; this is done by a worker, and not when the mount stops. Cached pages before the end of the request are not
// touched: the kernel may hold them locked until the answer. That its end is the end of a page of the cache is certain
// only where these have 4096 bytes, and when the end lies within a frame's page, so that it was not the application who
// ended the write there.
#include <unistd.h>

#include <cstdint>
#include <vector>

#include "fs/file_system.h"
#include "fs/page_cache.h"

namespace echofs::fs {
namespace {

constexpr std::uint64_t kCachedPageSize = 4096;
constexpr std::uint64_t kStretch = 128 << 10;  // bytes stored at once

bool KernelHasSuchPages() {
  static const bool has = sysconf(_SC_PAGESIZE) == static_cast<long>(kCachedPageSize);
  return has;
}

}  // namespace

bool FileSystem::IsFirstPartOfFrame(InodeNumber number, std::uint64_t offset, std::uint64_t size) {
  if (offset % kCachedPageSize == 0 || (offset + size) % kCachedPageSize != 0) return false;
  if (!KernelHasSuchPages()) return false;
  const std::shared_ptr<DatabaseCapture> capture = CaptureOfNode(number, sqlite::FileRole::kWal);
  return capture != nullptr && capture->HasBytesBehindPartOfFrame(offset + size, kCachedPageSize);
}

void FileSystem::StoreOldWal(InodeNumber number, std::uint64_t offset) {
  const std::shared_ptr<Node> node = tree_.Find(number);
  const std::shared_ptr<File> file = node ? tree_.View(*node).file : nullptr;
  if (!file || cache_ == nullptr) return;
  std::vector<std::uint8_t> bytes(kStretch);
  const absl::StatusOr<std::size_t> read = file->ReadAt(offset, bytes);
  // Only whole cached pages: the kernel does not take others for known, and the file must not grow by this.
  if (!read.ok() || *read < kCachedPageSize) return;
  bytes.resize(*read - *read % kCachedPageSize);
  // Without it the writes come in more parts.
  cache_->Store(number, offset, bytes).IgnoreError();
  const absl::StatusOr<std::uint64_t> size = file->Size();
  if (!size.ok() || *size < offset + bytes.size()) {
    cache_->Invalidate(number, offset, 0).IgnoreError();
  }
}

}  // namespace echofs::fs
