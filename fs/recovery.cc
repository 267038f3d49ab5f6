#include "fs/recovery.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/container/flat_hash_map.h"
#include "fs/capture_pages.h"
#include "fs/journal_reader.h"
#include "fs/wal_capture.h"
#include "replication/digest.h"
#include "replication/failpoint.h"
#include "replication/ltx.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

std::string PathOf(const RecoveryContext& context, const std::string& database,
                   std::string_view suffix) {
  return context.root + "/" + database + std::string(suffix);
}

std::string DirectoryOf(const std::string& path) { return path.substr(0, path.rfind('/')); }

bool SuperJournalExists(const RecoveryContext& context, const std::string& name) {
  struct stat st;
  if (!context.mount_point.empty() && name.starts_with(context.mount_point + "/")) {
    return lstat((context.root + name.substr(context.mount_point.size())).c_str(), &st) == 0;
  }
  if (lstat(name.c_str(), &st) == 0) return true;
  for (std::size_t slash = name.find('/'); slash != std::string::npos;
       slash = name.find('/', slash + 1)) {
    const std::string below = context.root + name.substr(slash);
    if (lstat(below.c_str(), &st) == 0) return true;
  }
  return lstat((context.root + "/" + name).c_str(), &st) == 0;
}

absl::Status RollBack(const RecoveryContext& context, const std::string& database,
                      const File& journal, const JournalContent& content) {
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> main,
                          context.storage->Open(PathOf(context, database, ""), {}));
  Failpoint("recover.rollback.before");
  std::vector<std::uint8_t> page(content.page_size);
  for (const auto& [number, offset] : content.pages) {
    ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(journal, offset, page));
    ECHOFS_RETURN_IF_ERROR(main->WriteAt(std::uint64_t{number - 1} * content.page_size, page));
  }
  ECHOFS_RETURN_IF_ERROR(main->Truncate(std::uint64_t{content.page_count} * content.page_size));
  ECHOFS_RETURN_IF_ERROR(main->Sync());
  Failpoint("recover.rollback_sync.after");
  return absl::OkStatus();
}

// The main file. Made durably, with these attributes, when it is missing.
absl::StatusOr<std::unique_ptr<File>> OpenOrCreate(const RecoveryContext& context,
                                                   const std::string& database,
                                                   const FileAttributes& attributes) {
  const std::string path = PathOf(context, database, "");
  ECHOFS_ASSIGN_OR_RETURN(const bool exists, context.storage->Exists(path));
  if (exists) return context.storage->Open(path, {});
  ECHOFS_RETURN_IF_ERROR(context.storage->MakeDirectories(DirectoryOf(path)));
  OpenOptions options;
  options.create = true;
  options.mode = attributes.mode & 07777;
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> file, context.storage->Open(path, options));
  if (geteuid() == 0 && fchown(file->Descriptor(), attributes.uid, attributes.gid) != 0) {
    return StatusFromErrno(errno, path);
  }
  ECHOFS_RETURN_IF_ERROR(context.storage->SyncDirectory(DirectoryOf(path)));
  return file;
}

absl::Status RedoEntry(File& main, const LogEntry& entry, ByteSource& payload) {
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<LtxDecoder> decoder, LtxDecoder::Start(&payload));
  while (true) {
    ECHOFS_ASSIGN_OR_RETURN(const std::optional<LtxDecoder::Page> page, decoder->Next());
    if (!page) break;
    ECHOFS_RETURN_IF_ERROR(
        main.WriteAt(std::uint64_t{page->number - 1} * entry.page_size, page->content));
  }
  return main.Truncate(std::uint64_t{entry.page_count} * entry.page_size);
}

// The digest of a database whose pages change one after the other (C8). 8 bytes of memory a page.
class DigestOfPages {
 public:
  static absl::StatusOr<DigestOfPages> Read(const File& main, std::uint32_t page_size) {
    DigestOfPages pages(page_size);
    ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, main.Size());
    std::vector<std::uint8_t> page(page_size);
    for (std::uint64_t at = 0; at < size; at += page_size) {
      ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(main, at, page));
      pages.Set(static_cast<PageNumber>(at / page_size + 1), page);
    }
    return pages;
  }

  void Set(PageNumber number, ByteView page) {
    if (number > count_) Resize(number);
    if (number == LockPage(page_size_)) return;
    std::uint64_t& hash = hashes_[number - 1];
    digest_ -= hash;
    hash = PageHash(number, page);
    digest_ += hash;
  }

  // Pages by which the database grows are zeros.
  void Resize(std::uint32_t count) {
    const std::vector<std::uint8_t> zeros(page_size_);
    for (; count_ > count; --count_) digest_ -= hashes_[count_ - 1];
    hashes_.resize(count);
    while (count_ < count) {
      ++count_;
      if (count_ != LockPage(page_size_)) hashes_[count_ - 1] = PageHash(count_, zeros);
      digest_ += hashes_[count_ - 1];
    }
  }

  std::uint64_t digest() const { return digest_; }

 private:
  explicit DigestOfPages(std::uint32_t page_size) : page_size_(page_size) {}

  const std::uint32_t page_size_;
  std::vector<std::uint64_t> hashes_;
  std::uint32_t count_ = 0;
  std::uint64_t digest_ = 0;
};

// Keeps of the commits those up to the last state that is that of `end`; all when none is.
absl::Status DropCommitsAfter(const File& wal, const File& main, const DatabasePosition& end,
                              std::vector<WalCommit>* commits) {
  if (commits->front().page_size != end.page_size) return absl::OkStatus();
  ECHOFS_ASSIGN_OR_RETURN(DigestOfPages pages, DigestOfPages::Read(main, end.page_size));
  std::size_t kept = pages.digest() == end.digest ? 0 : commits->size();
  std::vector<std::uint8_t> page(end.page_size);
  for (std::size_t i = 0; i < commits->size(); ++i) {
    const WalCommit& commit = (*commits)[i];
    for (const WalFrame& frame : commit.frames) {
      ECHOFS_RETURN_IF_ERROR(WalPages(&wal, &main, end.page_size, {frame}).Read(0, page));
      pages.Set(frame.page, page);
    }
    pages.Resize(commit.page_count);
    if (pages.digest() == end.digest) kept = i + 1;
  }
  commits->resize(kept);
  return absl::OkStatus();
}

// The newest content of each page, synced.
absl::Status WriteCommits(const File& wal, File& main, const std::vector<WalCommit>& commits) {
  if (commits.empty()) return absl::OkStatus();
  absl::flat_hash_map<PageNumber, std::uint32_t> newest;
  for (const WalCommit& commit : commits) {
    for (const WalFrame& frame : commit.frames) newest[frame.page] = frame.frame;
  }
  const WalCommit& last = commits.back();
  std::vector<std::uint8_t> page(last.page_size);
  for (const auto& [number, frame] : newest) {
    if (number > last.page_count) continue;
    ECHOFS_RETURN_IF_ERROR(WalPages(&wal, &main, last.page_size, {{number, frame}}).Read(0, page));
    ECHOFS_RETURN_IF_ERROR(main.WriteAt(std::uint64_t{number - 1} * last.page_size, page));
  }
  ECHOFS_RETURN_IF_ERROR(main.Truncate(std::uint64_t{last.page_count} * last.page_size));
  return main.Sync();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ListMainFiles(const std::string& root) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::recursive_directory_iterator it(root, error);
  for (const std::filesystem::recursive_directory_iterator end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(it->symlink_status(ignored))) continue;
    std::string name = it->path().string().substr(root.size() + 1);
    if (sqlite::ClassifyFileName(name).role == sqlite::FileRole::kMain) {
      names.push_back(std::move(name));
    }
  }
  if (error) return absl::InternalError(fmt::format("{}: {}", root, error.message()));
  std::sort(names.begin(), names.end());
  return names;
}

bool LooksLikeDatabase(Storage& storage, const std::string& path) {
  OpenOptions options;
  options.read_only = true;
  const absl::StatusOr<std::unique_ptr<File>> file = storage.Open(path, options);
  if (!file.ok()) return false;
  std::array<std::uint8_t, sqlite::kMagicSize> magic{};
  const absl::StatusOr<std::size_t> n = (*file)->ReadAt(0, magic);
  return n.ok() && sqlite::HasDatabaseMagic(ByteView(magic).first(*n));
}

absl::StatusOr<JournalFate> RecoverJournal(const RecoveryContext& context,
                                           const std::string& database) {
  const absl::StatusOr<std::unique_ptr<File>> journal =
      context.storage->Open(PathOf(context, database, sqlite::kJournalSuffix), {});
  if (absl::IsNotFound(journal.status())) return JournalFate::kNone;
  if (!journal.ok()) return journal.status();
  ECHOFS_ASSIGN_OR_RETURN(const std::optional<JournalContent> content, ReadJournal(**journal));
  if (!content) return JournalFate::kNone;
  if (!content->super_journal.empty() && !SuperJournalExists(context, content->super_journal)) {
    return JournalFate::kCommitted;
  }
  spdlog::info("{}: undoing the transaction that was open when the node stopped ({} pages)",
               database, content->pages.size());
  ECHOFS_RETURN_IF_ERROR(RollBack(context, database, **journal, *content));
  return JournalFate::kRolledBack;
}

absl::Status RemoveJournal(const RecoveryContext& context, const std::string& database) {
  const std::string journal_path = PathOf(context, database, sqlite::kJournalSuffix);
  const absl::Status removed = context.storage->Remove(journal_path);
  if (absl::IsNotFound(removed)) return absl::OkStatus();
  ECHOFS_RETURN_IF_ERROR(removed);
  ECHOFS_RETURN_IF_ERROR(context.storage->SyncDirectory(DirectoryOf(journal_path)));
  Failpoint("recover.rollback.after");
  return absl::OkStatus();
}

absl::StatusOr<LogIndex> RedoEntries(const RecoveryContext& context, const std::string& database,
                                     LogIndex after, int count) {
  const LogIndex last = context.log->last_index();
  if (after >= last || count <= 0) return after;
  const LogIndex first = std::max(after.Next(), context.log->first_index());
  const std::unique_ptr<LogReader> reader = context.log->Read(first);
  std::unique_ptr<File> main;
  LogIndex done = after;
  while (count > 0) {
    ECHOFS_ASSIGN_OR_RETURN(const std::optional<LogEntry> entry, reader->Next());
    if (!entry) break;
    if (entry->database != database || entry->kind != EntryKind::kChangeSet) continue;
    if (!main) {
      ECHOFS_ASSIGN_OR_RETURN(main, OpenOrCreate(context, database, entry->attributes));
    }
    const std::unique_ptr<ByteSource> payload = reader->Payload();
    Failpoint("recover.redo.before");
    ECHOFS_RETURN_IF_ERROR(RedoEntry(*main, *entry, *payload));
    Failpoint("recover.redo.after");
    done = entry->index;
    --count;
  }
  if (main) ECHOFS_RETURN_IF_ERROR(main->Sync());
  return done;
}

absl::StatusOr<bool> LogHasAll(const RecoveryContext& context, const std::string& database) {
  const std::unique_ptr<LogReader> reader = context.log->Read(context.log->first_index());
  while (true) {
    ECHOFS_ASSIGN_OR_RETURN(const std::optional<LogEntry> entry, reader->Next());
    if (!entry) return false;
    if (entry->database != database) continue;
    return entry->kind == EntryKind::kChangeSet && entry->digest_before == 0;
  }
}

absl::Status FoldWal(const RecoveryContext& context, const std::string& database,
                     const DatabasePosition* end) {
  const std::string wal_path = PathOf(context, database, sqlite::kWalSuffix);
  const absl::StatusOr<std::unique_ptr<File>> wal = context.storage->Open(wal_path, {});
  if (!wal.ok() && !absl::IsNotFound(wal.status())) return wal.status();
  if (wal.ok()) {
    WalCapture scan(wal->get());
    std::vector<WalCommit> commits;
    ECHOFS_RETURN_IF_ERROR(scan.Load(&commits));
    if (!commits.empty()) {
      Failpoint("recover.fold.before");
      ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> main,
                              context.storage->Open(PathOf(context, database, ""), {}));
      if (end != nullptr) ECHOFS_RETURN_IF_ERROR(DropCommitsAfter(**wal, *main, *end, &commits));
      ECHOFS_RETURN_IF_ERROR(WriteCommits(**wal, *main, commits));
      Failpoint("recover.fold_sync.after");
    }
    ECHOFS_RETURN_IF_ERROR(context.storage->Remove(wal_path));
    // Or a power loss brings it back beside a file that has gone on.
    ECHOFS_RETURN_IF_ERROR(context.storage->SyncDirectory(DirectoryOf(wal_path)));
    Failpoint("recover.fold.after");
  }
  const std::string shm_path = PathOf(context, database, sqlite::kShmSuffix);
  const absl::Status removed = context.storage->Remove(shm_path);
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  return absl::OkStatus();
}

absl::StatusOr<std::uint64_t> FileDigest(const RecoveryContext& context,
                                         const std::string& database, std::uint32_t page_size) {
  OpenOptions options;
  options.read_only = true;
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> main,
                          context.storage->Open(PathOf(context, database, ""), options));
  ECHOFS_ASSIGN_OR_RETURN(const DigestOfPages pages, DigestOfPages::Read(*main, page_size));
  return pages.digest();
}

}  // namespace echofs::fs
