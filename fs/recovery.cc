#include "fs/recovery.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/container/flat_hash_map.h"
#include "fs/capture_pages.h"
#include "fs/journal_reader.h"
#include "fs/wal_capture.h"
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
  ECHOFS_RETURN_IF_ERROR(context.storage->Remove(journal_path));
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
      OpenOptions options;
      options.create = true;
      options.mode = entry->attributes.mode;
      ECHOFS_RETURN_IF_ERROR(
          context.storage->MakeDirectories(DirectoryOf(PathOf(context, database, ""))));
      ECHOFS_ASSIGN_OR_RETURN(main, context.storage->Open(PathOf(context, database, ""), options));
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

absl::Status FoldWal(const RecoveryContext& context, const std::string& database) {
  const std::string wal_path = PathOf(context, database, sqlite::kWalSuffix);
  const absl::StatusOr<std::unique_ptr<File>> wal = context.storage->Open(wal_path, {});
  if (!wal.ok() && !absl::IsNotFound(wal.status())) return wal.status();
  if (wal.ok()) {
    WalCapture scan(wal->get());
    std::vector<WalCommit> commits;
    ECHOFS_RETURN_IF_ERROR(scan.Load(&commits));
    if (!commits.empty()) {
      absl::flat_hash_map<PageNumber, std::uint32_t> newest;
      for (const WalCommit& commit : commits) {
        for (const WalFrame& frame : commit.frames) newest[frame.page] = frame.frame;
      }
      Failpoint("recover.fold.before");
      const WalCommit& last = commits.back();
      ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> main,
                              context.storage->Open(PathOf(context, database, ""), {}));
      std::vector<std::uint8_t> page(last.page_size);
      for (const auto& [number, frame] : newest) {
        if (number > last.page_count) continue;
        ECHOFS_RETURN_IF_ERROR(
            WalPages(wal->get(), main.get(), last.page_size, {{number, frame}}).Read(0, page));
        ECHOFS_RETURN_IF_ERROR(main->WriteAt(std::uint64_t{number - 1} * last.page_size, page));
      }
      ECHOFS_RETURN_IF_ERROR(main->Truncate(std::uint64_t{last.page_count} * last.page_size));
      ECHOFS_RETURN_IF_ERROR(main->Sync());
      Failpoint("recover.fold_sync.after");
    }
    ECHOFS_RETURN_IF_ERROR(context.storage->Remove(wal_path));
    Failpoint("recover.fold.after");
  }
  const std::string shm_path = PathOf(context, database, sqlite::kShmSuffix);
  const absl::Status removed = context.storage->Remove(shm_path);
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  return absl::OkStatus();
}

}  // namespace echofs::fs
