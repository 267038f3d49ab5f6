#include "replication/database_export.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>

#include "echofs/v1/replication.pb.h"
#include "replication/fetch_session.h"
#include "replication/ltx.h"
#include "replication/status_macros.h"
#include "replication/wire.h"

namespace echofs {
namespace {

// Takes what a replica would be sent.
class Exporter final : public FetchServerStream {
 public:
  Exporter(const ChangeLog& log, ApplyTarget& target, const std::string& database, LogIndex from,
           DatabaseSink& sink)
      : log_(log),
        target_(target),
        database_(database),
        sink_(sink),
        reader_(log.Read(from)),
        next_(from) {}

  absl::Status Run() {
    const std::atomic<bool> stopping = false;
    const absl::Status served = ServeFetch(log_, target_, database_, PageSet(), stopping, *this);
    ECHOFS_RETURN_IF_ERROR(status_);
    ECHOFS_RETURN_IF_ERROR(served);
    ECHOFS_RETURN_IF_ERROR(Redo(end_index_));
    return sink_.End(end_);
  }

  bool Write(const v1::FetchDatabaseResponse& response) override {
    status_ = Take(response);
    return status_.ok();
  }
  void Cancel() override {}
  bool cancelled() const override { return sink_.cancelled(); }

 private:
  absl::Status Take(const v1::FetchDatabaseResponse& response) {
    if (response.has_begin()) {
      ECHOFS_ASSIGN_OR_RETURN(const DatabasePosition begin,
                              FromMessage(response.begin().position()));
      page_size_ = begin.page_size;
      return sink_.Begin(begin);
    }
    if (response.has_end()) {
      ECHOFS_ASSIGN_OR_RETURN(end_, FromMessage(response.end().position()));
      end_index_ = {response.end().log_index()};
      return absl::OkStatus();
    }
    ECHOFS_RETURN_IF_ERROR(
        sink_.Copied(response.pages().first(), AsBytes(response.pages().data())));
    return RedoApplied();
  }

  // As it comes: the log need not keep it for as long as the copy takes. But only what the files hold, which on a
  // replica may be less than the log does: a page that is copied later would take back what is newer.
  absl::Status RedoApplied() {
    const absl::StatusOr<DatabasePosition> applied = target_.AppliedPosition(database_);
    return applied.ok() ? Redo(applied->index) : absl::OkStatus();
  }

  // The log's entries up to `last`, or to its end.
  absl::Status Redo(LogIndex last) {
    while (next_ <= last) {
      if (cancelled()) return absl::CancelledError("nobody wants the copy any more");
      absl::StatusOr<std::optional<LogEntry>> entry = reader_->Next();
      if (absl::IsOutOfRange(entry.status())) {
        return absl::AbortedError(fmt::format("the log was cut while {} was copied: {}", database_,
                                              std::string(entry.status().message())));
      }
      ECHOFS_RETURN_IF_ERROR(entry.status());
      if (!entry->has_value()) return absl::OkStatus();
      next_ = (*entry)->index.Next();
      if ((*entry)->database == database_) ECHOFS_RETURN_IF_ERROR(Redo(**entry));
    }
    return absl::OkStatus();
  }

  absl::Status Redo(const LogEntry& entry) {
    if (entry.kind == EntryKind::kDrop) return sink_.Resize(0);
    if (entry.page_size != page_size_) {
      return absl::AbortedError(
          fmt::format("the page size of {} changed while it was copied", database_));
    }
    const std::unique_ptr<ByteSource> payload = reader_->Payload();
    ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<LtxDecoder> decoder,
                            LtxDecoder::Start(payload.get()));
    if (decoder->header().page_size != page_size_) {
      return absl::DataLossError(
          fmt::format("entry {}: page size differs between record and LTX", entry.index.value));
    }
    while (true) {
      ECHOFS_ASSIGN_OR_RETURN(const std::optional<LtxDecoder::Page> page, decoder->Next());
      if (!page) return sink_.Resize(entry.page_count);
      ECHOFS_RETURN_IF_ERROR(sink_.Changed(page->number, page->content));
    }
  }

  const ChangeLog& log_;
  ApplyTarget& target_;
  const std::string& database_;
  DatabaseSink& sink_;
  const std::unique_ptr<LogReader> reader_;
  LogIndex next_;
  std::uint32_t page_size_ = 0;
  DatabasePosition end_;
  LogIndex end_index_;
  absl::Status status_;
};

}  // namespace

absl::Status ExportDatabase(const ChangeLog& log, ApplyTarget& target, const std::string& database,
                            DatabaseSink& sink) {
  const absl::StatusOr<DatabasePosition> logged = log.Position(database);
  if (absl::IsNotFound(logged.status()) || (logged.ok() && logged->dropped)) {
    return absl::NotFoundError(fmt::format("there is no database {}", database));
  }
  ECHOFS_RETURN_IF_ERROR(logged.status());
  // Before any page is read: what the files get from now on is in the log after it. On a replica the log may be
  // ahead of the files, and has what they lack.
  ECHOFS_ASSIGN_OR_RETURN(const DatabasePosition applied, target.AppliedPosition(database));
  const LogIndex from = std::max(applied.index.Next(), log.first_index());
  return Exporter(log, target, database, from, sink).Run();
}

}  // namespace echofs
