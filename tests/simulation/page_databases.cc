#include "tests/simulation/page_databases.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "replication/apply_entry.h"
#include "replication/digest.h"
#include "replication/log_catalog.h"
#include "replication/ltx.h"
#include "replication/status_macros.h"

namespace echofs::sim {
namespace {

constexpr char kNewSuffix[] = ".new";
constexpr std::size_t kSavedHeaderSize = 16;  // size of the catalog, term

}  // namespace

PageDatabases::PageDatabases(Storage* storage, std::string directory, ChangeLog* log)
    : storage_(storage), directory_(std::move(directory)), log_(log) {}

// ---- What is durable ----

absl::Status PageDatabases::Recover() {
  ECHOFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, storage_->List(directory_));
  for (const std::string& name : names) {
    if (name.ends_with(kNewSuffix)) {
      ECHOFS_RETURN_IF_ERROR(storage_->Remove(PathOf(name)));
    } else {
      ECHOFS_RETURN_IF_ERROR(Load(name));
    }
  }
  next_ = log_->first_index();  // what the files have already is skipped
  return ApplyLog();
}

absl::Status PageDatabases::Load(const std::string& name) {
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> file,
                          storage_->Open(PathOf(name), OpenOptions{.read_only = true}));
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, file->Size());
  std::vector<std::uint8_t> bytes(size);
  ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*file, 0, bytes));
  if (size < kSavedHeaderSize) return absl::DataLossError(name + " was saved in part");
  const std::size_t catalog_size = LoadBe64(bytes.data());
  if (catalog_size > size - kSavedHeaderSize) return absl::DataLossError(name + " is damaged");
  ECHOFS_ASSIGN_OR_RETURN(const LogCatalog catalog, LogCatalog::Decode(ByteView(bytes).subspan(
                                                        kSavedHeaderSize, catalog_size)));
  Database database;
  database.position = catalog.Positions().at(0);
  database.term = {LoadBe64(bytes.data() + 8)};
  database.saved = database.position.index;
  if (!InHistory(database.position, database.term)) return absl::OkStatus();
  const std::uint8_t* page = bytes.data() + kSavedHeaderSize + catalog_size;
  for (PageNumber i = 0; i < database.position.page_count; ++i, page += kPageSize) {
    if (page + kPageSize > bytes.data() + size) return absl::DataLossError(name + " is cut off");
    database.pages.emplace_back(page, page + kPageSize);
  }
  databases_[name] = std::move(database);
  return absl::OkStatus();
}

absl::Status PageDatabases::Store(Database* database) {
  const std::string path = PathOf(database->position.name);
  ECHOFS_ASSIGN_OR_RETURN(const LogCatalog catalog,
                          LogCatalog::FromPositions({database->position}));
  const std::string encoded = catalog.Encode();
  std::vector<std::uint8_t> bytes(kSavedHeaderSize);
  StoreBe64(bytes.data(), encoded.size());
  StoreBe64(bytes.data() + 8, database->term.value);
  bytes.insert(bytes.end(), encoded.begin(), encoded.end());
  for (const Page& page : database->pages) bytes.insert(bytes.end(), page.begin(), page.end());
  ECHOFS_ASSIGN_OR_RETURN(
      const std::unique_ptr<File> file,
      storage_->Open(path + kNewSuffix, OpenOptions{.create = true, .truncate = true}));
  ECHOFS_RETURN_IF_ERROR(file->WriteAt(0, bytes));
  ECHOFS_RETURN_IF_ERROR(file->Sync());
  ECHOFS_RETURN_IF_ERROR(storage_->Rename(path + kNewSuffix, path));
  ECHOFS_RETURN_IF_ERROR(storage_->SyncDirectory(directory_));
  database->saved = database->position.index;
  return absl::OkStatus();
}

absl::Status PageDatabases::Save(LogIndex synced) {
  for (auto& [name, database] : databases_) {
    if (database.position.index > synced || database.saved == database.position.index) continue;
    ECHOFS_RETURN_IF_ERROR(Store(&database));
  }
  return absl::OkStatus();
}

LogIndex PageDatabases::needed_index() const {
  LogIndex needed = log_->last_index().Next();
  for (const auto& [name, database] : databases_) {
    if (database.saved != database.position.index) needed = std::min(needed, database.saved.Next());
  }
  return std::min(needed, next_);
}

// ---- As primary ----

absl::StatusOr<LogEntry> PageDatabases::Commit(const std::string& name, Term term,
                                               std::int64_t time_ms, PageNumber page_count,
                                               const Pages& pages) {
  const auto found = databases_.find(name);
  Database next = found == databases_.end() ? Database() : found->second;
  DatabasePosition& position = next.position;
  if (const auto logged = log_->Position(name); logged.ok()) position.txid = logged->txid;
  LogEntry entry;
  entry.kind = EntryKind::kChangeSet;
  entry.term = term;
  entry.database = position.name = name;
  entry.digest_before = position.digest;
  Resize(&next, page_count);
  for (const auto& [number, page] : pages) Write(&next, number, page);
  position.txid = position.txid.Next();
  entry.txid = position.txid;
  entry.digest_after = position.digest;
  entry.page_size = kPageSize;
  entry.page_count = page_count;
  entry.timestamp_ms = time_ms;

  ChangeSetHeader header;
  header.page_size = kPageSize;
  header.page_count = page_count;
  header.txid = header.min_txid = entry.txid;
  header.timestamp_ms = time_ms;
  header.term = term;
  header.digest_after = entry.digest_after;
  std::vector<std::uint8_t> payload;
  VectorSink sink(&payload);
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<LtxEncoder> encoder,
                          LtxEncoder::Start(&sink, header));
  for (const auto& [number, page] : pages) {
    ECHOFS_RETURN_IF_ERROR(encoder->AddPage(number, page));
  }
  ECHOFS_RETURN_IF_ERROR(encoder->Finish());
  ECHOFS_ASSIGN_OR_RETURN(entry.index, log_->Append(entry, payload));
  entry.payload_size = payload.size();
  position.index = entry.index;
  next.term = term;
  next_ = entry.index.Next();
  reader_ = nullptr;
  databases_[name] = std::move(next);
  return entry;
}

absl::StatusOr<DatabaseCopy> PageDatabases::Copy(const std::string& name) const {
  const auto found = databases_.find(name);
  if (found == databases_.end()) return absl::NotFoundError(name + " does not exist");
  const Database& database = found->second;
  return DatabaseCopy{database.position,
                      {database.term, database.position.index},
                      std::make_shared<const std::vector<Page>>(database.pages)};
}

absl::Status PageDatabases::BecomePrimary(Term) {
  ECHOFS_RETURN_IF_ERROR(ApplyLog());
  if (incomplete_.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(*incomplete_.begin() + " is not complete");
}

// ---- As replica ----

absl::Status PageDatabases::ApplyLog() {
  ECHOFS_RETURN_IF_ERROR(InstallCopies());
  if (reader_ == nullptr) reader_ = log_->Read(next_);
  while (next_ <= log_->last_index()) {
    ECHOFS_ASSIGN_OR_RETURN(const std::optional<LogEntry> entry, reader_->Next());
    if (!entry) break;
    next_ = entry->index.Next();
    if (entry->kind == EntryKind::kOpenTerm) continue;
    const auto found = databases_.find(entry->database);
    LocalPosition position;
    if (found != databases_.end()) {
      const DatabasePosition& at = found->second.position;
      position = {true, at.txid, at.digest, at.index};
    }
    const std::unique_ptr<ByteSource> payload = reader_->Payload();
    const EntryOutcome outcome = ApplyEntry(*this, position, *entry, *payload);
    switch (outcome.kind) {
      case EntryOutcome::Kind::kApplied:
      case EntryOutcome::Kind::kSkipped:
        break;
      case EntryOutcome::Kind::kGap:
        Forget(entry->database);
        break;
      default:
        return absl::DataLossError(
            fmt::format("entry {}: {}", entry->index.value, outcome.message));
    }
  }
  FindMissing();
  return absl::OkStatus();
}

absl::Status PageDatabases::InstallCopies() {
  for (auto i = offered_.begin(); i != offered_.end();) {
    const DatabaseCopy& copy = i->second;
    if (!InHistory(copy.position, copy.at.term)) {
      // Later, or never: then it is asked for again.
      i = copy.position.index > log_->last_index() ? std::next(i) : offered_.erase(i);
      continue;
    }
    Database database;
    database.position = copy.position;
    database.term = copy.at.term;
    database.pages = *copy.pages;
    // Durable before it counts: nothing else has it here.
    ECHOFS_RETURN_IF_ERROR(Store(&database));
    databases_[i->first] = std::move(database);
    incomplete_.erase(i->first);
    next_ = std::max(log_->first_index(), std::min(next_, copy.position.index.Next()));
    reader_ = nullptr;
    i = offered_.erase(i);
  }
  return absl::OkStatus();
}

void PageDatabases::Offer(DatabaseCopy copy) {
  if (incomplete_.count(copy.position.name) == 0) return;
  const std::string name = copy.position.name;
  offered_[name] = std::move(copy);
}

bool PageDatabases::InHistory(const DatabasePosition& position, Term term) const {
  // Whether the log's entries lead on from there, ApplyEntry finds out.
  return position.index <= log_->last_index() && log_->Terms().TermAt(position.index) == term;
}

void PageDatabases::Forget(const std::string& name) {
  databases_.erase(name);
  incomplete_.insert(name);
}

void PageDatabases::FindMissing() {
  for (const DatabasePosition& logged : log_->Positions()) {
    const auto found = databases_.find(logged.name);
    if (found == databases_.end() || found->second.position.txid != logged.txid) {
      Forget(logged.name);
    }
  }
}

absl::Status PageDatabases::ForgetPositions(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    Forget(name);
    absl::Status removed = storage_->Remove(PathOf(name));
    if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  }
  return storage_->SyncDirectory(directory_);
}

void PageDatabases::LogWasCut(LogIndex kept) {
  incomplete_.clear();
  offered_.clear();
  next_ = std::min(next_, kept.Next());
  reader_ = nullptr;
}

void PageDatabases::LogWasReset() {
  for (auto i = databases_.begin(); i != databases_.end();) {
    const absl::StatusOr<DatabasePosition> logged = log_->Position(i->first);
    const DatabasePosition& own = i->second.position;
    const bool same = logged.ok() && logged->txid == own.txid && logged->digest == own.digest &&
                      logged->index == own.index;
    i = same ? std::next(i) : databases_.erase(i);
  }
  incomplete_.clear();
  offered_.clear();
  next_ = log_->first_index();
  reader_ = nullptr;
}

absl::StatusOr<ApplyOutcome> PageDatabases::Apply(const LogEntry& entry, ByteSource& payload) {
  Database& database = databases_[entry.database];
  database.position.name = entry.database;
  Resize(&database, entry.page_count);
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<LtxDecoder> decoder, LtxDecoder::Start(&payload));
  while (true) {
    ECHOFS_ASSIGN_OR_RETURN(const std::optional<LtxDecoder::Page> page, decoder->Next());
    if (!page) break;
    Write(&database, page->number, page->content);
  }
  database.position.txid = entry.txid;
  database.position.index = entry.index;
  database.term = entry.term;
  if (database.position.digest != entry.digest_after) {
    return absl::DataLossError(
        fmt::format("{} has a wrong digest after TXID {}", entry.database, entry.txid.value));
  }
  return ApplyOutcome{};
}

// ---- Pages ----

void PageDatabases::Resize(Database* database, PageNumber page_count) {
  const Page empty(kPageSize);
  DatabasePosition& position = database->position;
  for (PageNumber number = page_count + 1; number <= database->pages.size(); ++number) {
    position.digest -= PageHash(number, database->pages[number - 1]);
  }
  for (PageNumber number = database->pages.size() + 1; number <= page_count; ++number) {
    position.digest += PageHash(number, empty);
  }
  position.page_size = kPageSize;
  position.page_count = page_count;
  database->pages.resize(page_count, empty);
}

void PageDatabases::Write(Database* database, PageNumber number, ByteView page) {
  Page& old = database->pages.at(number - 1);
  database->position.digest += PageHash(number, page) - PageHash(number, old);
  old.assign(page.begin(), page.end());
}

std::uint64_t PageDatabases::Scan(const Database& database) {
  std::uint64_t digest = 0;
  for (PageNumber number = 1; number <= database.pages.size(); ++number) {
    digest += PageHash(number, database.pages[number - 1]);
  }
  return digest;
}

const PageDatabases::Page* PageDatabases::Find(const std::string& name, PageNumber number) const {
  const auto found = databases_.find(name);
  if (found == databases_.end() || number > found->second.pages.size()) return nullptr;
  return &found->second.pages[number - 1];
}

PageNumber PageDatabases::page_count(const std::string& name) const {
  const auto found = databases_.find(name);
  return found == databases_.end() ? 0 : found->second.position.page_count;
}

absl::Status PageDatabases::Verify() const {
  for (const auto& [name, database] : databases_) {
    if (Scan(database) != database.position.digest) {
      return absl::DataLossError(name + "'s digest is not that of its pages");
    }
    const absl::StatusOr<DatabasePosition> logged = log_->Position(name);
    if (!logged.ok()) return absl::DataLossError(name + " is not in the log");
    if (logged->index == database.position.index && logged->digest != database.position.digest) {
      return absl::DataLossError(name + "'s digest is not the log's");
    }
  }
  return absl::OkStatus();
}

std::uint64_t PageDatabases::Fingerprint() const {
  std::uint64_t hash = databases_.size();
  for (const auto& [name, database] : databases_) {
    for (const std::uint64_t value : {PageHash(0, AsBytes(name)), database.position.txid.value,
                                      database.position.digest, database.position.index.value}) {
      hash = (hash ^ value) * 0x9fb21c651e98df25ull + (hash >> 29);
    }
  }
  return hash;
}

absl::StatusOr<DatabasePosition> PageDatabases::AppliedPosition(const std::string& name) {
  const auto found = databases_.find(name);
  if (found == databases_.end()) return absl::NotFoundError(name + " does not exist");
  return found->second.position;
}

std::vector<std::string> PageDatabases::LocalDatabases() {
  std::vector<std::string> names;
  for (const auto& [name, database] : databases_) names.push_back(name);
  return names;
}

absl::StatusOr<ApplyOutcome> PageDatabases::InstallCopy(const DatabasePosition&,
                                                        const std::string&) {
  return absl::UnimplementedError("copies come as values in the simulation");
}

absl::StatusOr<ApplyOutcome> PageDatabases::InstallPages(const DatabasePosition&,
                                                         const std::string&, const PageSet&) {
  return absl::UnimplementedError("copies come as values in the simulation");
}

absl::StatusOr<PageRun> PageDatabases::ReadPages(const std::string& name, PageNumber first,
                                                 std::uint32_t count) {
  ECHOFS_ASSIGN_OR_RETURN(const DatabasePosition position, AppliedPosition(name));
  PageRun run;
  run.position = position;
  run.first = first;
  for (PageNumber number = first; number < first + count && number <= position.page_count;
       ++number) {
    const Page* page = Find(name, number);
    run.pages.insert(run.pages.end(), page->begin(), page->end());
  }
  return run;
}

}  // namespace echofs::sim
