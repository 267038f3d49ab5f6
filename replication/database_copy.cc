#include "replication/database_copy.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "echofs/v1/replication.pb.h"
#include "replication/digest.h"
#include "replication/failpoint.h"
#include "replication/limits.h"
#include "replication/ltx.h"
#include "replication/status_macros.h"
#include "replication/wire.h"

namespace echofs {
namespace {

class Copier {
 public:
  Copier(Storage* storage, const ChangeLog& log, FetchCall& call, const std::string& path,
         CopyTask& task)
      : log_(log),
        call_(call),
        task_(task),
        temporary_(std::make_unique<TemporaryFile>(storage, path)),
        storage_(storage),
        rewind_(task.rewind ? &*task.rewind : nullptr),
        page_count_(task.rewind ? task.rewind->page_count : 0) {}

  absl::StatusOr<CompletedCopy> Run() {
    ECHOFS_ASSIGN_OR_RETURN(
        file_, storage_->Open(temporary_->path(), OpenOptions{.create = true, .truncate = true}));
    ECHOFS_RETURN_IF_ERROR(Receive());
    Failpoint("copy.pages.after");
    ECHOFS_RETURN_IF_ERROR(WaitForLog());
    ECHOFS_RETURN_IF_ERROR(ApplyLog());
    if (rewind_) return FinishRewind();
    ECHOFS_RETURN_IF_ERROR(file_->Truncate(FileSize(end_.page_count)));
    ECHOFS_RETURN_IF_ERROR(CheckDigest());
    Failpoint("copy.sync.before");
    ECHOFS_RETURN_IF_ERROR(file_->Sync());
    Failpoint("copy.sync.after");
    return CompletedCopy{end_, end_index_, std::move(temporary_), std::nullopt, fetched_};
  }

 private:
  absl::StatusOr<CompletedCopy> FinishRewind() {
    if (page_count_ != end_.page_count) {
      return absl::AbortedError("its size is not the one that the log leads to");
    }
    return CompletedCopy{end_, end_index_, std::move(temporary_), std::move(in_file_), fetched_};
  }
  absl::Status Cancelled() const {
    return absl::CancelledError(fmt::format("the copy of {} was cancelled", task_.database));
  }
  absl::Status BadMessage(const std::string& what) const {
    return absl::InvalidArgumentError(
        fmt::format("the primary sent a bad copy of {}: {}", task_.database, what));
  }
  std::uint64_t FileSize(std::uint64_t pages) const { return pages * begin_.page_size; }

  // Begin, pages, End; each page into its place in the file.
  absl::Status Receive() {
    v1::FetchDatabaseResponse response;
    bool begun = false;
    bool ended = false;
    while (call_.Read(&response)) {
      if (task_.cancelled()) return Cancelled();
      if (ended || begun == response.has_begin()) return BadMessage("messages in a wrong order");
      if (response.has_begin()) {
        ECHOFS_RETURN_IF_ERROR(ReceivePosition(response.begin().position(), &begin_));
        begin_index_ = {response.begin().log_index()};
        if (rewind_ && begin_.page_size != rewind_->page_size) {
          return absl::AbortedError("its page size has changed");
        }
        task_.pages = rewind_ ? rewind_->pages.size() : begin_.page_count;
        begun = true;
      } else if (response.has_pages()) {
        ECHOFS_RETURN_IF_ERROR(ReceivePages(response.pages()));
      } else if (response.has_end()) {
        ECHOFS_RETURN_IF_ERROR(ReceivePosition(response.end().position(), &end_));
        end_index_ = {response.end().log_index()};
        ended = true;
      }
    }
    ECHOFS_RETURN_IF_ERROR(call_.Finish());
    if (task_.cancelled()) return Cancelled();
    if (!ended) return BadMessage("it has no end");
    if (end_.page_size != begin_.page_size || end_index_ < begin_index_) {
      return BadMessage("its end does not fit its begin");
    }
    return absl::OkStatus();
  }

  absl::Status ReceivePosition(const v1::DatabasePosition& message, DatabasePosition* position) {
    ECHOFS_ASSIGN_OR_RETURN(*position, FromMessage(message));
    if (position->name != task_.database) return BadMessage("it is of another database");
    if (position->dropped) return BadMessage("it was deleted");
    return absl::OkStatus();
  }

  absl::Status ReceivePages(const v1::FetchDatabaseResponse::Pages& pages) {
    const std::string& data = pages.data();
    const std::uint64_t count = data.size() / begin_.page_size;
    const bool expected = rewind_ ? Wanted(pages.first(), count) : pages.first() == next_page_;
    if (!expected || data.empty() || data.size() % begin_.page_size != 0 ||
        pages.first() + count > std::numeric_limits<PageNumber>::max()) {
      return BadMessage(fmt::format("{} pages from {} on, which are not expected after page {}",
                                    count, pages.first(), next_page_ - 1));
    }
    ECHOFS_RETURN_IF_ERROR(file_->WriteAt(FileSize(pages.first() - 1), AsBytes(data)));
    file_->StartSync(FileSize(pages.first() - 1), data.size());
    if (!rewind_) AddToDigest(static_cast<PageNumber>(pages.first()), AsBytes(data));
    next_page_ = pages.first() + count;
    fetched_ += count;
    task_.pages_done = fetched_;
    if (rewind_) {
      in_file_.Add(pages.first(), static_cast<PageNumber>(pages.first() + count - 1));
    }
    if (absl::Now() >= next_message_) {
      if (next_message_ != absl::InfinitePast()) {
        spdlog::info("copying {}: {} of {} pages", task_.database, task_.pages_done.load(),
                     task_.pages.load());
      }
      next_message_ = absl::Now() + kCopyProgressInterval;
    }
    return absl::OkStatus();
  }

  // The pages are asked for, and come in ascending order.
  bool Wanted(std::uint64_t first, std::uint64_t count) const {
    if (first < next_page_ || count == 0) return false;
    const auto& ranges = rewind_->pages.ranges();
    const auto after = ranges.upper_bound(static_cast<PageNumber>(first));
    return after != ranges.begin() && first + count - 1 <= std::prev(after)->second;
  }

  // The entries come by the other stream.
  absl::Status WaitForLog() {
    while (log_.WaitForIndex(end_index_, absl::Now() + kStopCheckInterval) < end_index_) {
      if (task_.cancelled()) return Cancelled();
    }
    return absl::OkStatus();
  }

  absl::Status ApplyLog() {
    const LogIndex from = rewind_ ? rewind_->after : begin_index_;
    if (from == end_index_) return absl::OkStatus();
    if (log_.first_index() > from.Next()) {
      return absl::AbortedError("the log does not reach back to the begin of the copy");
    }
    const std::unique_ptr<LogReader> reader = log_.Read(from.Next());
    LogIndex index = from;
    while (index < end_index_) {
      if (task_.cancelled()) return Cancelled();
      ECHOFS_ASSIGN_OR_RETURN(const std::optional<LogEntry> entry, reader->Next());
      if (!entry) return absl::AbortedError("the log ends before the end of the copy");
      index = entry->index;
      if (entry->database != task_.database) continue;
      changed_by_log_ = true;
      if (entry->kind == EntryKind::kDrop) {
        if (rewind_) return absl::AbortedError("it was deleted and made again");
        ECHOFS_RETURN_IF_ERROR(file_->Truncate(0));
      }
      if (entry->kind == EntryKind::kChangeSet) ECHOFS_RETURN_IF_ERROR(ApplyEntry(*entry, *reader));
    }
    return absl::OkStatus();
  }

  // As plain page writes; the file need not be a consistent database before the last entry.
  absl::Status ApplyEntry(const LogEntry& entry, LogReader& reader) {
    if (entry.page_size != begin_.page_size) {
      return absl::AbortedError("the page size changed while it was copied");
    }
    const std::unique_ptr<ByteSource> payload = reader.Payload();
    ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<LtxDecoder> decoder,
                            LtxDecoder::Start(payload.get()));
    if (decoder->header().page_size != begin_.page_size) {
      return absl::DataLossError(
          fmt::format("entry {}: page size differs between record and LTX", entry.index.value));
    }
    while (true) {
      ECHOFS_ASSIGN_OR_RETURN(const std::optional<LtxDecoder::Page> page, decoder->Next());
      if (!page) break;
      ECHOFS_RETURN_IF_ERROR(file_->WriteAt(FileSize(page->number - 1), page->content));
      if (rewind_) in_file_.Add(page->number);
    }
    if (rewind_) SizeChanged(entry.page_count);
    return file_->Truncate(FileSize(entry.page_count));
  }

  // Pages that the database gains and that are not written are zeros.
  void SizeChanged(PageNumber page_count) {
    if (page_count < page_count_) in_file_.CutAfter(page_count);
    in_file_.Add(page_count_ + 1, page_count);
    page_count_ = page_count;
  }

  void AddToDigest(PageNumber number, ByteView pages) {
    for (std::size_t at = 0; at < pages.size(); at += begin_.page_size, ++number) {
      if (number == LockPage(begin_.page_size)) continue;
      digest_ += PageHash(number, pages.subspan(at, begin_.page_size));
    }
  }

  // A6: nothing is installed whose content was not checked as a whole. What was received is hashed on its way; when
  // entries of the log have changed it since, or there are fewer or more pages now, the file is read again.
  absl::Status CheckDigest() {
    if (changed_by_log_ || next_page_ - 1 != end_.page_count) {
      ECHOFS_RETURN_IF_ERROR(ReadDigest());
    }
    if (digest_ == end_.digest) return absl::OkStatus();
    return absl::DataLossError(
        fmt::format("the copy of {} at TXID {} has digest {:016x}, the history {:016x}",
                    task_.database, end_.txid.value, digest_, end_.digest));
  }

  absl::Status ReadDigest() {
    std::vector<std::uint8_t> run(std::max<std::size_t>(kCopyRunSizeMax, begin_.page_size));
    digest_ = 0;
    for (std::uint64_t offset = 0; offset < FileSize(end_.page_count);) {
      if (task_.cancelled()) return Cancelled();
      const std::uint64_t size =
          std::min<std::uint64_t>(run.size(), FileSize(end_.page_count) - offset);
      const MutableByteView bytes(run.data(), static_cast<std::size_t>(size));
      ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*file_, offset, bytes));
      AddToDigest(static_cast<PageNumber>(offset / begin_.page_size + 1), bytes);
      offset += size;
    }
    return absl::OkStatus();
  }

  const ChangeLog& log_;
  FetchCall& call_;
  CopyTask& task_;
  std::unique_ptr<TemporaryFile> temporary_;
  Storage* const storage_;
  std::unique_ptr<File> file_;
  DatabasePosition begin_;
  DatabasePosition end_;
  LogIndex begin_index_;
  LogIndex end_index_;
  std::uint64_t next_page_ = 1;
  std::uint64_t fetched_ = 0;  // pages
  std::uint64_t digest_ = 0;   // of the pages received
  bool changed_by_log_ = false;
  // Of a rewind.
  const PagesWanted* const rewind_;
  PageSet in_file_;
  PageNumber page_count_;  // of the state that the log has led to so far
  absl::Time next_message_ = absl::InfinitePast();
};

}  // namespace

absl::StatusOr<CompletedCopy> CopyDatabase(Storage* storage, const ChangeLog& log, FetchCall& call,
                                           const std::string& path, CopyTask& task) {
  task.SetCall(&call);
  absl::StatusOr<CompletedCopy> copy = Copier(storage, log, call, path, task).Run();
  task.SetCall(nullptr);
  return copy;
}

}  // namespace echofs
