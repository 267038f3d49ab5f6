#include "replication/orphan_store.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "replication/failpoint.h"
#include "replication/limits.h"
#include "replication/orphan_file.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

constexpr std::string_view kTemporarySuffix = ".new";
constexpr std::size_t kCopySize = 256 << 10;  // bytes

// Appends to a file through a buffer.
class FileSink {
 public:
  FileSink(File* file, std::uint64_t offset) : file_(file), offset_(offset) {}

  absl::Status Copy(ByteSource& source) {
    while (true) {
      const std::size_t begin = buffer_.size();
      buffer_.resize(kCopySize);
      const absl::StatusOr<std::size_t> n = source.Read(MutableByteView(buffer_).subspan(begin));
      buffer_.resize(begin + (n.ok() ? *n : 0));
      ECHOFS_RETURN_IF_ERROR(n.status());
      if (*n == 0) return absl::OkStatus();
      if (buffer_.size() == kCopySize) ECHOFS_RETURN_IF_ERROR(Flush());
    }
  }
  absl::Status Flush() {
    ECHOFS_RETURN_IF_ERROR(file_->WriteAt(offset_, buffer_));
    offset_ += buffer_.size();
    buffer_.clear();
    return absl::OkStatus();
  }
  std::uint64_t offset() const { return offset_; }

 private:
  File* const file_;
  std::uint64_t offset_;
  std::vector<std::uint8_t> buffer_;
};

std::string ParentOf(const std::string& directory) {
  const std::string parent = std::filesystem::path(directory).parent_path().string();
  return parent.empty() ? "." : parent;
}

// Reads the headers of all entries from `first` to `last` of a log.
absl::StatusOr<std::uint64_t> CountChangeSets(const ChangeLog& log, LogIndex first, LogIndex last) {
  std::uint64_t count = 0;
  const std::unique_ptr<LogReader> reader = log.Read(first);
  for (LogIndex index = first; index <= last; index = index.Next()) {
    ECHOFS_ASSIGN_OR_RETURN(const std::optional<LogEntry> entry, reader->Next());
    if (!entry) return absl::AbortedError("the log ends early");
    if (entry->kind != EntryKind::kOpenTerm) ++count;
  }
  return count;
}

}  // namespace

absl::StatusOr<std::unique_ptr<OrphanStore>> OrphanStore::Open(Storage* storage,
                                                               std::string directory) {
  std::unique_ptr<OrphanStore> store(new OrphanStore(storage, std::move(directory)));
  ECHOFS_ASSIGN_OR_RETURN(const bool exists, storage->Exists(store->directory_));
  if (!exists) return store;
  // A crash may have come between the renaming of a file and the sync.
  ECHOFS_RETURN_IF_ERROR(storage->SyncDirectory(ParentOf(store->directory_)));
  ECHOFS_RETURN_IF_ERROR(storage->SyncDirectory(store->directory_));
  ECHOFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, storage->List(store->directory_));
  absl::MutexLock lock(&store->mutex_);
  for (const std::string& name : names) {
    if (name.ends_with(kTemporarySuffix)) {
      storage->Remove(store->directory_ + "/" + name).IgnoreError();  // of a crash; never counted
      continue;
    }
    if (!name.ends_with(kOrphanSuffix)) continue;
    const std::string id = name.substr(0, name.size() - kOrphanSuffix.size());
    if (!IsOrphanId(id)) continue;
    OrphanInfo& info = store->files_[id];
    info.id = id;
    const auto file = OrphanFile::Open(storage, store->PathOf(id));
    if (file.ok()) {
      info = (*file)->info();
    } else {
      info.damage = std::string(file.status().message());
      spdlog::error("{}", info.damage);
    }
  }
  return store;
}

std::string OrphanStore::PathOf(const std::string& id) const {
  return directory_ + "/" + id + std::string(kOrphanSuffix);
}

bool OrphanStore::Has(const std::string& id) const { return files_.contains(id); }

bool OrphanStore::IsKept(LogIndex first, LogIndex last, Term term) {
  for (const auto& [id, info] : files_) {
    if (!info.damage.empty() || info.first > first || info.last < last) continue;
    const auto file = OrphanFile::Open(storage_, PathOf(id));
    if (!file.ok()) continue;
    while (true) {
      const absl::StatusOr<std::optional<LogEntry>> entry = (*file)->Next();
      if (!entry.ok() || !entry->has_value()) break;
      if ((*entry)->index < last) continue;
      if ((*entry)->term == term) return true;
      break;
    }
  }
  return false;
}

absl::Status OrphanStore::Keep(const ChangeLog& log, const CommonPoint& common,
                               const std::string& primary, Term primary_term) {
  OrphanInfo info;
  info.common = common;
  info.first = log.first_index();
  if (common.known) info.first = std::max(info.first, common.index.Next());
  info.last = log.last_index();
  info.term = log.last_term();
  if (info.first > info.last) return absl::OkStatus();
  info.primary = primary.substr(0, kIdentitySizeMax);
  info.primary_term = primary_term;
  info.kept_ms = absl::ToUnixMillis(absl::Now());
  info.id = OrphanId(info);
  ECHOFS_ASSIGN_OR_RETURN(info.change_sets, CountChangeSets(log, info.first, info.last));
  if (info.change_sets == 0) return absl::OkStatus();

  absl::MutexLock lock(&mutex_);
  if (IsKept(info.first, info.last, info.term)) return absl::OkStatus();
  const absl::Status written = WriteFile(log, info);
  if (written.ok()) return written;
  return absl::Status(
      written.code(),
      fmt::format(
          "{} change sets of this node that primary {} does not have (entries {} to {}) cannot "
          "be kept in {}, and until they are, this node does not follow: {}",
          info.change_sets, primary, info.first.value, info.last.value, directory_,
          std::string(written.message())));
}

absl::Status OrphanStore::WriteFile(const ChangeLog& log, OrphanInfo info) {
  ECHOFS_RETURN_IF_ERROR(storage_->MakeDirectories(directory_));
  ECHOFS_RETURN_IF_ERROR(storage_->SyncDirectory(ParentOf(directory_)));
  const std::string temporary = PathOf(info.id) + std::string(kTemporarySuffix);
  const auto write = [&]() -> absl::Status {
    OpenOptions options;
    options.create = true;
    options.truncate = true;
    options.mode = 0600;
    ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, storage_->Open(temporary, options));
    Failpoint("rewind.orphans_write.before");
    const std::uint64_t begin = EncodeOrphanHeader(info, 0).size();
    FileSink sink(file.get(), begin);
    const std::unique_ptr<LogReader> reader = log.Read(info.first);
    for (LogIndex index = info.first; index <= info.last; index = index.Next()) {
      ECHOFS_ASSIGN_OR_RETURN(const std::optional<LogEntry> entry, reader->Next());
      if (!entry) return absl::AbortedError("the log ends early");
      ECHOFS_RETURN_IF_ERROR(sink.Copy(*reader->Record()));
    }
    ECHOFS_RETURN_IF_ERROR(sink.Flush());
    info.bytes = sink.offset();
    ECHOFS_RETURN_IF_ERROR(file->WriteAt(0, AsBytes(EncodeOrphanHeader(info, info.bytes - begin))));
    return file->Sync();
  };
  absl::Status status = write();
  if (status.ok()) status = Publish(temporary, info);
  if (!status.ok()) {
    storage_->Remove(temporary).IgnoreError();  // gives its space back; a left-over does no harm
    return status;
  }
  spdlog::warn(
      "{} change sets that this node committed (entries {} to {}, term {}) are not in the history "
      "of "
      "primary {}: they are kept as orphans {}. `echofs orphans` lists, exports and discards them",
      info.change_sets, info.first.value, info.last.value, info.term.value, info.primary, info.id);
  files_[info.id] = std::move(info);
  return absl::OkStatus();
}

absl::Status OrphanStore::Publish(const std::string& temporary, const OrphanInfo& info) {
  const std::string path = PathOf(info.id);
  Failpoint("rewind.orphans_rename.before");
  ECHOFS_RETURN_IF_ERROR(storage_->Rename(temporary, path));
  Failpoint("rewind.orphans_rename.after");
  const absl::Status synced = storage_->SyncDirectory(directory_);
  // Whether it is there must be certain, or it might be kept a second time.
  if (!synced.ok()) storage_->Remove(path).IgnoreError();
  return synced;
}

absl::StatusOr<std::vector<OrphanInfo>> OrphanStore::List() {
  absl::MutexLock lock(&mutex_);
  std::vector<OrphanInfo> list;
  for (const auto& [id, known] : files_) {
    OrphanInfo& info = list.emplace_back(known);
    if (!info.damage.empty()) continue;
    const auto file = OrphanFile::Open(storage_, PathOf(id));
    absl::Status status = file.status();
    while (status.ok()) {
      const absl::StatusOr<std::optional<LogEntry>> entry = (*file)->Next();
      status = entry.status();
      if (!status.ok() || !entry->has_value()) break;
      if ((*entry)->kind != EntryKind::kOpenTerm) ++info.databases[(*entry)->database];
    }
    if (!status.ok()) info.damage = std::string(status.message());
  }
  std::sort(list.begin(), list.end(), [](const OrphanInfo& a, const OrphanInfo& b) {
    return std::pair(a.kept_ms, a.id) < std::pair(b.kept_ms, b.id);
  });
  return list;
}

std::uint64_t OrphanStore::change_sets() const {
  absl::MutexLock lock(&mutex_);
  std::uint64_t count = 0;
  for (const auto& [id, info] : files_) count += info.change_sets;
  return count;
}

absl::Status OrphanStore::Read(const std::string& id, const Visitor& visit) {
  {
    absl::MutexLock lock(&mutex_);
    if (!Has(id)) return absl::NotFoundError(fmt::format("there are no orphans {}", id));
  }
  // Without the lock: a file never changes, and one that is discarded meanwhile stays open here.
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<OrphanFile> file,
                          OrphanFile::Open(storage_, PathOf(id)));
  while (true) {
    ECHOFS_ASSIGN_OR_RETURN(const std::optional<LogEntry> entry, file->Next());
    if (!entry) return absl::OkStatus();
    ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> payload, file->Payload());
    ECHOFS_RETURN_IF_ERROR(visit(*entry, *payload));
  }
}

absl::Status OrphanStore::Discard(const std::string& id) {
  absl::MutexLock lock(&mutex_);
  if (!Has(id)) return absl::NotFoundError(fmt::format("there are no orphans {}", id));
  const absl::Status removed = storage_->Remove(PathOf(id));
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  files_.erase(id);
  spdlog::info("orphans {} were discarded", id);
  return storage_->SyncDirectory(directory_);
}

}  // namespace echofs
