#include "tests/replication/page_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "replication/digest.h"
#include "replication/ltx.h"
#include "replication/status_macros.h"
#include "replication/storage.h"

namespace echofs {

std::uint64_t PageStore::Digest(const Database& database) {
  std::uint64_t digest = 0;
  for (PageNumber number = 1; number <= database.pages.size(); ++number) {
    if (number == LockPage(database.position.page_size)) continue;
    digest += PageHash(number, database.pages[number - 1]);
  }
  return digest;
}

void PageStore::Resize(Database& database, std::uint32_t page_size, PageNumber page_count) {
  if (database.position.page_size != page_size) database.pages.clear();
  database.position.page_size = page_size;
  database.position.page_count = page_count;
  database.pages.resize(page_count, Page(page_size));
}

LogIndex PageStore::Commit(ChangeLog& log, Term term, const std::string& name,
                           std::uint32_t page_size, PageNumber page_count, const Pages& pages) {
  absl::MutexLock lock(&mutex_);
  Database& database = databases_[name];
  DatabasePosition& position = database.position;
  LogEntry entry;
  entry.kind = EntryKind::kChangeSet;
  entry.term = term;
  entry.database = name;
  entry.digest_before = position.digest;
  if (position.name.empty()) {
    // The TXID goes on when a database is made again after a drop.
    const absl::StatusOr<DatabasePosition> logged = log.Position(name);
    if (logged.ok()) position.txid = logged->txid;
    position.name = name;
  }
  Resize(database, page_size, page_count);
  for (const auto& [number, page] : pages) database.pages.at(number - 1) = page;
  position.txid = position.txid.Next();
  position.digest = Digest(database);
  entry.txid = position.txid;
  entry.digest_after = position.digest;
  entry.page_size = page_size;
  entry.page_count = page_count;
  entry.timestamp_ms = absl::ToUnixMillis(absl::Now());

  ChangeSetHeader header;
  header.page_size = page_size;
  header.page_count = page_count;
  header.txid = header.min_txid = entry.txid;
  header.timestamp_ms = entry.timestamp_ms;
  header.term = term;
  header.digest_after = entry.digest_after;
  std::vector<std::uint8_t> payload;
  VectorSink sink(&payload);
  absl::StatusOr<std::unique_ptr<LtxEncoder>> encoder = LtxEncoder::Start(&sink, header);
  ECHOFS_CHECK(encoder.ok());
  for (const auto& [number, page] : pages) ECHOFS_CHECK((*encoder)->AddPage(number, page).ok());
  ECHOFS_CHECK((*encoder)->Finish().ok());
  const absl::StatusOr<LogIndex> index = log.Append(entry, payload);
  ECHOFS_CHECK(index.ok());
  position.index = *index;
  return *index;
}

LogIndex PageStore::Drop(ChangeLog& log, Term term, const std::string& name) {
  absl::MutexLock lock(&mutex_);
  const DatabasePosition& position = databases_.at(name).position;
  LogEntry entry;
  entry.kind = EntryKind::kDrop;
  entry.term = term;
  entry.database = name;
  entry.txid = position.txid.Next();
  entry.digest_before = position.digest;
  entry.timestamp_ms = absl::ToUnixMillis(absl::Now());
  const absl::StatusOr<LogIndex> index = log.Append(entry, ByteView());
  ECHOFS_CHECK(index.ok());
  databases_.erase(name);
  return *index;
}

void PageStore::SetBlocked(const std::string& database, int pid) {
  absl::MutexLock lock(&mutex_);
  blocked_[database] = pid;
}

void PageStore::DamageNextApply(const std::string& database) {
  absl::MutexLock lock(&mutex_);
  damage_.insert(database);
}

void PageStore::SetApplyError(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  apply_error_ = std::move(status);
}

void PageStore::SetReadHook(ReadHook hook) {
  absl::MutexLock lock(&mutex_);
  read_hook_ = std::move(hook);
}

int PageStore::installs(const std::string& database) const {
  absl::MutexLock lock(&mutex_);
  const auto found = installs_.find(database);
  return found == installs_.end() ? 0 : found->second;
}

int PageStore::page_installs(const std::string& database) const {
  absl::MutexLock lock(&mutex_);
  const auto found = page_installs_.find(database);
  return found == page_installs_.end() ? 0 : found->second;
}

void PageStore::Restart() {
  absl::MutexLock lock(&mutex_);
  for (const std::string& name : forgotten_) databases_.erase(name);
  forgotten_.clear();
}

absl::Status PageStore::ForgetPositions(const std::vector<std::string>& databases) {
  absl::MutexLock lock(&mutex_);
  forgotten_.insert(databases.begin(), databases.end());
  return absl::OkStatus();
}

absl::StatusOr<ApplyOutcome> PageStore::InstallPages(const DatabasePosition& position,
                                                     const std::string& path,
                                                     const PageSet& pages) {
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> file,
                          PosixStorage()->Open(path, OpenOptions{.read_only = true}));
  absl::MutexLock lock(&mutex_);
  if (const int pid = blocked_[position.name]; pid != 0) {
    return ApplyOutcome{ApplyOutcome::Kind::kBlocked, pid, {}};
  }
  Database database = databases_.at(position.name);
  ECHOFS_CHECK(database.position.page_size == position.page_size);
  Resize(database, position.page_size, position.page_count);
  for (const auto& [first, last] : pages.ranges()) {
    for (PageNumber number = first; number <= last; ++number) {
      Page& page = database.pages.at(number - 1);
      ECHOFS_RETURN_IF_ERROR(
          ReadZeroFilled(*file, std::uint64_t{number - 1} * position.page_size, page));
    }
  }
  if (damage_.erase(position.name) != 0) database.pages[0][0] ^= 1;
  database.position = position;
  if (Digest(database) != position.digest) return absl::DataLossError("a wrong digest");
  databases_[position.name] = std::move(database);
  forgotten_.erase(position.name);
  ++page_installs_[position.name];
  return ApplyOutcome{};
}

int PageStore::syncs() const {
  absl::MutexLock lock(&mutex_);
  return syncs_;
}

std::string PageStore::Dump() const {
  absl::MutexLock lock(&mutex_);
  std::string dump;
  for (const auto& [name, database] : databases_) {
    const DatabasePosition& position = database.position;
    // The stored digest against a scan: apply and copy must keep both true.
    dump += fmt::format("{} txid {} page size {} pages {} digest {:016x} scan {:016x}\n", name,
                        position.txid.value, position.page_size, position.page_count,
                        position.digest, Digest(database));
  }
  return dump;
}

absl::StatusOr<DatabasePosition> PageStore::AppliedPosition(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  const auto found = databases_.find(name);
  if (found == databases_.end()) return absl::NotFoundError(name + " does not exist");
  return found->second.position;
}

std::vector<std::string> PageStore::LocalDatabases() {
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> names;
  for (const auto& [name, database] : databases_) names.push_back(name);
  return names;
}

absl::StatusOr<ApplyOutcome> PageStore::Apply(const LogEntry& entry, ByteSource& payload) {
  absl::MutexLock lock(&mutex_);
  if (const int pid = blocked_[entry.database]; pid != 0) {
    return ApplyOutcome{ApplyOutcome::Kind::kBlocked, pid, {}};
  }
  if (!apply_error_.ok()) return apply_error_;
  const auto found = databases_.find(entry.database);
  // The contract: an entry follows the applied position.
  if (found != databases_.end()) ECHOFS_CHECK(entry.txid == found->second.position.txid.Next());
  if (entry.kind == EntryKind::kDrop) {
    ECHOFS_CHECK(found != databases_.end());
    databases_.erase(found);
    return ApplyOutcome{};
  }
  forgotten_.erase(entry.database);
  Database& database = databases_[entry.database];
  database.position.name = entry.database;
  Resize(database, entry.page_size, entry.page_count);
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<LtxDecoder> decoder, LtxDecoder::Start(&payload));
  while (true) {
    ECHOFS_ASSIGN_OR_RETURN(const std::optional<LtxDecoder::Page> page, decoder->Next());
    if (!page) break;
    database.pages.at(page->number - 1).assign(page->content.begin(), page->content.end());
  }
  if (damage_.erase(entry.database) != 0) database.pages[0][0] ^= 1;
  database.position.txid = entry.txid;
  database.position.index = entry.index;
  database.position.digest = Digest(database);
  if (database.position.digest != entry.digest_after) {
    return absl::DataLossError(
        fmt::format("{} has a wrong digest after TXID {}", entry.database, entry.txid.value));
  }
  return ApplyOutcome{};
}

absl::StatusOr<ApplyOutcome> PageStore::Join(const std::string& database) {
  absl::MutexLock lock(&mutex_);
  if (const int pid = blocked_[database]; pid != 0) {
    return ApplyOutcome{ApplyOutcome::Kind::kBlocked, pid, {}};
  }
  return ApplyOutcome{};
}

absl::StatusOr<ApplyOutcome> PageStore::InstallCopy(const DatabasePosition& position,
                                                    const std::string& path) {
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> file,
                          PosixStorage()->Open(path, OpenOptions{.read_only = true}));
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, file->Size());
  ECHOFS_CHECK(size == std::uint64_t{position.page_size} * position.page_count);
  Database database;
  database.position = position;
  database.pages.resize(position.page_count, Page(position.page_size));
  std::uint64_t offset = 0;
  for (Page& page : database.pages) {
    ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*file, offset, page));
    offset += page.size();
  }
  absl::MutexLock lock(&mutex_);
  if (const int pid = blocked_[position.name]; pid != 0) {
    return ApplyOutcome{ApplyOutcome::Kind::kBlocked, pid, {}};
  }
  ECHOFS_CHECK(Digest(database) == position.digest);
  databases_[position.name] = std::move(database);
  forgotten_.erase(position.name);
  ++installs_[position.name];
  ECHOFS_RETURN_IF_ERROR(PosixStorage()->Remove(path));
  return ApplyOutcome{};
}

absl::StatusOr<PageRun> PageStore::ReadPages(const std::string& name, PageNumber first,
                                             std::uint32_t count) {
  ReadHook hook;
  {
    absl::MutexLock lock(&mutex_);
    hook = read_hook_;
  }
  if (hook) ECHOFS_RETURN_IF_ERROR(hook(name, first));
  absl::MutexLock lock(&mutex_);
  const auto found = databases_.find(name);
  if (found == databases_.end()) return absl::NotFoundError(name + " does not exist");
  const Database& database = found->second;
  PageRun run;
  run.position = database.position;
  run.first = first;
  for (PageNumber number = first; number < first + count && number <= database.pages.size();
       ++number) {
    const Page& page = database.pages[number - 1];
    run.pages.insert(run.pages.end(), page.begin(), page.end());
  }
  return run;
}

absl::Status PageStore::SyncAll() {
  absl::MutexLock lock(&mutex_);
  ++syncs_;
  return absl::OkStatus();
}

}  // namespace echofs
