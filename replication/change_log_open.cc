// Opening a log: what a crash may have left is brought into order (L2, L5). Only the last segment
// is read.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <utility>

#include "replication/change_log_impl.h"
#include "replication/failpoint.h"
#include "replication/log_scan.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

constexpr std::size_t kCopySize = 1 << 20;  // bytes
constexpr LogIndex kEndOfLog{std::numeric_limits<std::uint64_t>::max()};

struct FoundSegment {
  std::string path;
  LogIndex base;
};

absl::StatusOr<std::vector<FoundSegment>> FindSegments(Storage* storage,
                                                       const std::string& directory) {
  ECHOFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, storage->List(directory));
  std::vector<FoundSegment> found;
  for (const std::string& name : names) {
    LogIndex base;
    if (ParseSegmentFileName(name, &base)) found.push_back({directory + "/" + name, base});
  }
  std::sort(found.begin(), found.end(),
            [](const FoundSegment& a, const FoundSegment& b) { return a.base < b.base; });
  return found;
}

// The first segment of a log that never had an entry.
absl::Status MakeFirstSegment(const std::string& directory, const ChangeLogOptions& options) {
  Storage* storage = options.storage;
  const std::string temporary = directory + "/" + kNewSegmentName;
  SegmentHeader header;
  header.created_ms = absl::ToUnixMillis(options.now());
  std::uint64_t data_start = 0;
  ECHOFS_RETURN_IF_ERROR(
      WriteSegmentFile(storage, temporary, header, LogCatalog(), TermHistory(), &data_start)
          .status());
  Failpoint("log.create.before");
  ECHOFS_RETURN_IF_ERROR(storage->Rename(temporary, directory + "/" + SegmentFileName({})));
  const std::string parent = std::filesystem::path(directory).parent_path().string();
  ECHOFS_RETURN_IF_ERROR(storage->SyncDirectory(parent.empty() ? "." : parent));
  Failpoint("log.create.after");
  return absl::OkStatus();
}

// Ends a reset that a crash interrupted, and removes what a crash left half made.
absl::Status TidyDirectory(Storage* storage, const std::string& directory,
                           SyncWatermark* watermark) {
  const std::string temporary = directory + "/" + kNewSegmentName;
  ECHOFS_ASSIGN_OR_RETURN(const bool leftover, storage->Exists(temporary));
  if (leftover) ECHOFS_RETURN_IF_ERROR(storage->Remove(temporary));
  const std::string reset = directory + "/" + kResetSegmentName;
  ECHOFS_ASSIGN_OR_RETURN(const bool resetting, storage->Exists(reset));
  if (!resetting) return absl::OkStatus();
  OpenOptions read_only;
  read_only.read_only = true;
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, storage->Open(reset, read_only));
  ECHOFS_ASSIGN_OR_RETURN(const SegmentStart start, ReadSegmentStart(*file, reset));
  return FinishReset(storage, directory, start.header.base, watermark);
}

// Compares a segment with the one before it. `previous_size` is the size of that one's file.
absl::Status CheckLink(const FoundSegment& previous, std::uint64_t previous_size,
                       const FoundSegment& segment, const SegmentHeader& header) {
  if (header.previous_base != previous.base.value) {
    return absl::DataLossError(fmt::format(
        "log segment {} does not follow {}: a segment is missing or does not belong here",
        segment.path, previous.path));
  }
  if (previous_size < header.previous_size) {
    return absl::DataLossError(
        fmt::format("log segment {} is damaged at offset {}: it had {} bytes", previous.path,
                    previous_size, header.previous_size));
  }
  return absl::OkStatus();
}

// Reads the start of every segment and checks that they follow each other. Fills in the slots; what
// is in the last one comes later. `last_start` receives the start of that.
absl::Status ReadSlots(Storage* storage, const std::vector<FoundSegment>& found, RecoveredLog* log,
                       SegmentStart* last_start) {
  std::uint64_t previous_size = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const FoundSegment& segment = found[i];
    const bool last = i + 1 == found.size();
    OpenOptions open_options;
    open_options.read_only = !last;
    ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> file, storage->Open(segment.path, open_options));
    ECHOFS_ASSIGN_OR_RETURN(SegmentStart start, ReadSegmentStart(*file, segment.path));
    if (start.header.base != segment.base) {
      return absl::DataLossError(
          fmt::format("log segment {} is damaged at offset 16: its first entry is {}", segment.path,
                      start.header.base.value + 1));
    }
    if (i != 0) {
      ECHOFS_RETURN_IF_ERROR(CheckLink(found[i - 1], previous_size, segment, start.header));
      log->slots.back().end = start.header.previous_size;
    }
    ECHOFS_ASSIGN_OR_RETURN(previous_size, file->Size());
    log->slots.push_back(
        {std::make_shared<LogSegment>(segment.path, start.header, start.data_start), 0});
    if (last) {
      log->file = std::move(file);
      *last_start = std::move(start);
    }
  }
  return absl::OkStatus();
}

absl::Status Incomplete(const std::string& path, std::uint64_t offset, LogIndex last,
                        LogIndex synced) {
  return DamagedRecord(path, offset,
                       fmt::format("the log ends after entry {}, but up to {} it was on disk",
                                   last.value, synced.value));
}

// Reads the last segment, cuts a torn tail, and makes the rest durable.
absl::Status RecoverLastSegment(Storage* storage, SegmentStart start, RecoveredLog* log) {
  SegmentSlot& slot = log->slots.back();
  const std::string& path = slot.segment->path();
  OpenOptions read_only;
  read_only.read_only = true;
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> file, storage->Open(path, read_only));
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, file->Size());
  BufferedFile buffered(std::move(file), path);
  ScanState state{std::move(start.catalog), std::move(start.terms), start.header.base,
                  start.header.base_term, start.data_start};

  // Up to the watermark all must be there.
  const LogIndex synced = log->watermark->value();
  ECHOFS_RETURN_IF_ERROR(ScanRecords(buffered, size, synced, true, slot.segment.get(), &state));
  if (state.last < synced) return Incomplete(path, state.offset, state.last, synced);
  const std::uint64_t synced_offset = state.offset;

  // Behind it, what is not whole is the tail that a crash tore: nobody was told that it is on disk.
  const absl::Status tail =
      ScanRecords(buffered, size, kEndOfLog, true, slot.segment.get(), &state);
  if (!tail.ok() && !absl::IsDataLoss(tail)) return tail;
  if (state.offset < size) {
    spdlog::warn("log: cut a torn tail of {} bytes after entry {}: {}", size - state.offset,
                 state.last.value, tail.ToString());
    Failpoint("log.open_cut.before");
    ECHOFS_RETURN_IF_ERROR(log->file->Truncate(state.offset));
    Failpoint("log.open_cut.after");
  }
  if (synced_offset < size) {
    ECHOFS_RETURN_IF_ERROR(
        RewriteAndSync(storage, log->file.get(), path, synced_offset, state.offset));
  }
  slot.end = state.offset;
  log->catalog = std::move(state.catalog);
  log->terms = std::move(state.terms);
  log->last = state.last;
  log->last_term = state.last_term;
  (void)log->watermark->Write(state.last);
  return absl::OkStatus();
}

// All records from `begin` to `end` are whole.
absl::Status VerifyRecords(Storage* storage, const std::string& path, std::uint64_t begin,
                           std::uint64_t end) {
  OpenOptions read_only;
  read_only.read_only = true;
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> file, storage->Open(path, read_only));
  BufferedFile buffered(std::move(file), path);
  for (std::uint64_t at = begin; at < end;) {
    ECHOFS_ASSIGN_OR_RETURN(const LogEntry entry, ReadEntryAt(buffered, at, end));
    ECHOFS_RETURN_IF_ERROR(VerifyPayload(buffered, entry, at));
    at += entry.RecordSize();
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RewriteAndSync(Storage* storage, File* file, const std::string& path,
                            std::uint64_t begin, std::uint64_t end) {
  std::vector<std::uint8_t> piece(std::min<std::uint64_t>(kCopySize, end - begin));
  for (std::uint64_t at = begin; at < end;) {
    const auto wanted =
        MutableByteView(piece).first(std::min<std::uint64_t>(piece.size(), end - at));
    ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, file->ReadAt(at, wanted));
    if (n == 0) return DamagedRecord(path, at, "the file ends in a record");
    ECHOFS_RETURN_IF_ERROR(file->WriteAt(at, wanted.first(n)));
    at += n;
  }
  ECHOFS_RETURN_IF_ERROR(file->Sync());
  return VerifyRecords(storage, path, begin, end);
}

absl::Status RemoveSegments(Storage* storage, const std::string& directory, LogIndex from) {
  ECHOFS_ASSIGN_OR_RETURN(const std::vector<FoundSegment> found, FindSegments(storage, directory));
  for (std::size_t i = found.size(); i-- > 0 && found[i].base >= from;) {
    ECHOFS_RETURN_IF_ERROR(storage->Remove(found[i].path));
    ECHOFS_RETURN_IF_ERROR(storage->SyncDirectory(directory));
  }
  return absl::OkStatus();
}

absl::Status FinishReset(Storage* storage, const std::string& directory, LogIndex base,
                         SyncWatermark* watermark) {
  ECHOFS_RETURN_IF_ERROR(watermark->WriteDurably(base));
  Failpoint("log.reset_watermark.after");
  ECHOFS_RETURN_IF_ERROR(RemoveSegments(storage, directory, {}));
  Failpoint("log.reset_segments.after");
  ECHOFS_RETURN_IF_ERROR(storage->Rename(directory + "/" + kResetSegmentName,
                                         directory + "/" + SegmentFileName(base)));
  ECHOFS_RETURN_IF_ERROR(storage->SyncDirectory(directory));
  Failpoint("log.reset.after");
  return absl::OkStatus();
}

absl::StatusOr<RecoveredLog> RecoverLog(const std::string& directory,
                                        const ChangeLogOptions& options) {
  Storage* storage = options.storage;
  RecoveredLog log;
  ECHOFS_RETURN_IF_ERROR(storage->MakeDirectories(directory));
  ECHOFS_ASSIGN_OR_RETURN(log.watermark,
                          SyncWatermark::Open(storage, directory + "/" + kWatermarkName));
  ECHOFS_RETURN_IF_ERROR(TidyDirectory(storage, directory, log.watermark.get()));
  ECHOFS_ASSIGN_OR_RETURN(std::vector<FoundSegment> found, FindSegments(storage, directory));
  if (found.empty()) {
    if (const LogIndex synced = log.watermark->value(); synced.value != 0) {
      return absl::DataLossError(fmt::format(
          "the log {} has no segment, but entries up to {} were on disk", directory, synced.value));
    }
    ECHOFS_RETURN_IF_ERROR(MakeFirstSegment(directory, options));
    ECHOFS_ASSIGN_OR_RETURN(found, FindSegments(storage, directory));
  }
  SegmentStart last_start;
  ECHOFS_RETURN_IF_ERROR(ReadSlots(storage, found, &log, &last_start));
  ECHOFS_RETURN_IF_ERROR(RecoverLastSegment(storage, std::move(last_start), &log));
  ECHOFS_RETURN_IF_ERROR(storage->SyncDirectory(directory));
  return log;
}

}  // namespace echofs
