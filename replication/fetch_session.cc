#include "replication/fetch_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "absl/time/clock.h"
#include "echofs/v1/replication.pb.h"
#include "replication/limits.h"
#include "replication/status_macros.h"
#include "replication/wire.h"

namespace echofs {
namespace {

class Fetch {
 public:
  Fetch(const ChangeLog& log, ApplyTarget& target, const std::string& database,
        const PageSet& pages, const std::atomic<bool>& stopping, FetchServerStream& stream)
      : log_(log),
        target_(target),
        database_(database),
        pages_(pages),
        stopping_(stopping),
        stream_(stream) {}

  absl::Status Run() {
    // The index is taken before any page is read: what is newer in the pages is in the log after
    // it.
    const LogIndex begin = log_.last_index();
    ECHOFS_ASSIGN_OR_RETURN(const DatabasePosition position, log_.Position(database_));
    if (position.dropped) return absl::NotFoundError(database_ + " was deleted");
    page_size_ = position.page_size;
    v1::FetchDatabaseResponse response;
    ToMessage(position, response.mutable_begin()->mutable_position());
    response.mutable_begin()->set_log_index(begin.value);
    if (!stream_.Write(response)) return Gone();
    ECHOFS_RETURN_IF_ERROR(SendPages());
    return SendEnd(begin);
  }

 private:
  static absl::Status Gone() { return absl::CancelledError("the replica has gone"); }

  absl::Status Changed() const {
    return absl::AbortedError(
        database_ + " was deleted or got another page size while it was copied: start again");
  }

  absl::Status SendPages() {
    if (pages_.empty()) return SendPages(1, std::numeric_limits<PageNumber>::max());
    for (const auto& [first, last] : pages_.ranges()) {
      ECHOFS_RETURN_IF_ERROR(SendPages(first, last));
    }
    return absl::OkStatus();
  }

  // Those of them that are there.
  absl::Status SendPages(PageNumber first, PageNumber last) {
    const auto count_max = static_cast<std::uint32_t>(
        std::clamp<std::uint64_t>(kCopyRunSizeMax / page_size_, 1, kCopyRunPagesMax));
    v1::FetchDatabaseResponse response;
    while (true) {
      const std::uint32_t count = std::min(count_max - 1, last - first) + 1;
      ECHOFS_ASSIGN_OR_RETURN(const PageRun run, ReadRun(first, count));
      if (run.position.dropped || run.position.page_size != page_size_) return Changed();
      if (run.pages.empty()) return absl::OkStatus();
      ECHOFS_CHECK(run.first == first && run.pages.size() % page_size_ == 0);
      v1::FetchDatabaseResponse::Pages* pages = response.mutable_pages();
      pages->set_first(first);
      pages->set_data(run.pages.data(), run.pages.size());
      if (!stream_.Write(response)) return Gone();
      first += static_cast<PageNumber>(run.pages.size() / page_size_);
      if (first > run.position.page_count || first > last) return absl::OkStatus();
    }
  }

  // One step; waits while a transaction is in the way.
  absl::StatusOr<PageRun> ReadRun(PageNumber first, std::uint32_t count) {
    const absl::Time give_up = absl::Now() + kCopyUnavailableMax;
    absl::Duration delay = absl::Milliseconds(1);
    while (true) {
      if (stopping_.load() || stream_.cancelled()) return Gone();
      absl::StatusOr<PageRun> run = target_.ReadPages(database_, first, count);
      if (run.ok()) return run;
      if (absl::IsNotFound(run.status())) return Changed();
      if (!absl::IsUnavailable(run.status()) || absl::Now() > give_up) return run.status();
      absl::SleepFor(delay);
      delay = std::min(delay * 2, kBlockedDelayMax);
    }
  }

  // All pages were read from states at or before the position that the log has now. The log stands
  // at that position from the database's last entry on.
  absl::Status SendEnd(LogIndex begin) {
    ECHOFS_ASSIGN_OR_RETURN(const DatabasePosition position, log_.Position(database_));
    if (position.dropped || position.page_size != page_size_) return Changed();
    v1::FetchDatabaseResponse response;
    ToMessage(position, response.mutable_end()->mutable_position());
    response.mutable_end()->set_log_index(std::max(begin, position.index).value);
    return stream_.Write(response) ? absl::OkStatus() : Gone();
  }

  const ChangeLog& log_;
  ApplyTarget& target_;
  const std::string& database_;
  const PageSet& pages_;
  const std::atomic<bool>& stopping_;
  FetchServerStream& stream_;
  std::uint32_t page_size_ = 0;
};

}  // namespace

absl::Status ServeFetch(const ChangeLog& log, ApplyTarget& target, const std::string& database,
                        const PageSet& pages, const std::atomic<bool>& stopping,
                        FetchServerStream& stream) {
  return Fetch(log, target, database, pages, stopping, stream).Run();
}

}  // namespace echofs
