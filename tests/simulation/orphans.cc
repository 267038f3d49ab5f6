#include "tests/simulation/orphans.h"

#include <fmt/format.h>

#include "replication/status_macros.h"

namespace echofs::sim {

absl::Status Orphans::Keep(const ChangeLog& log, const CommonPoint& common, const std::string&,
                           Term) {
  LogIndex first = common.known ? common.index.Next() : LogIndex{1};
  first = std::max(first, log.first_index());
  const LogIndex last = log.last_index();
  if (first > last) return absl::OkStatus();
  const auto reader = log.Read(first);
  std::vector<std::uint8_t> bytes;
  bool any = false;
  while (true) {
    ECHOFS_ASSIGN_OR_RETURN(const auto entry, reader->Next());
    if (!entry) break;
    any |= entry->kind != EntryKind::kOpenTerm;
    std::vector<std::uint8_t> position(16);
    StoreBe64(position.data(), entry->term.value);
    StoreBe64(position.data() + 8, entry->index.value);
    bytes.insert(bytes.end(), position.begin(), position.end());
  }
  if (!any) return absl::OkStatus();
  const std::string path =
      fmt::format("{}/{}-{}-{}", directory_, log.last_term().value, first.value, last.value);
  ECHOFS_ASSIGN_OR_RETURN(const auto file,
                          storage_->Open(path + ".new", {.create = true, .truncate = true}));
  ECHOFS_RETURN_IF_ERROR(file->WriteAt(0, bytes));
  ECHOFS_RETURN_IF_ERROR(file->Sync());
  ECHOFS_RETURN_IF_ERROR(storage_->Rename(path + ".new", path));
  return storage_->SyncDirectory(directory_);
}

absl::StatusOr<std::set<LogPosition>> Orphans::Kept() {
  std::set<LogPosition> kept;
  ECHOFS_ASSIGN_OR_RETURN(const auto names, storage_->List(directory_));
  for (const std::string& name : names) {
    if (name.ends_with(".new")) continue;
    ECHOFS_ASSIGN_OR_RETURN(const auto file,
                            storage_->Open(directory_ + "/" + name, {.read_only = true}));
    ECHOFS_ASSIGN_OR_RETURN(const auto size, file->Size());
    std::vector<std::uint8_t> bytes(size);
    ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*file, 0, bytes));
    for (std::size_t i = 0; i + 16 <= size; i += 16) {
      kept.insert(LogPosition{Term{LoadBe64(&bytes[i])}, LogIndex{LoadBe64(&bytes[i + 8])}});
    }
  }
  return kept;
}

}  // namespace echofs::sim
