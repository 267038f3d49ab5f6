#include "replication/wire.h"

#include <fmt/format.h>

#include <optional>
#include <utility>
#include <vector>

#include "echofs/v1/replication.pb.h"
#include "replication/digest.h"
#include "replication/limits.h"

namespace echofs {

void ToMessage(const DatabasePosition& position, v1::DatabasePosition* message) {
  message->set_name(position.name);
  message->set_txid(position.txid.value);
  message->set_digest(position.digest);
  message->set_page_size(position.page_size);
  message->set_page_count(position.page_count);
  message->set_mode(position.attributes.mode);
  message->set_uid(position.attributes.uid);
  message->set_gid(position.attributes.gid);
  message->set_index(position.index.value);
  message->set_dropped(position.dropped);
  message->set_wal_salt1(position.wal.salt1);
  message->set_wal_salt2(position.wal.salt2);
  message->set_wal_begin_offset(position.wal.begin_offset);
  message->set_wal_end_offset(position.wal.end_offset);
}

absl::StatusOr<DatabasePosition> FromMessage(const v1::DatabasePosition& message) {
  if (!IsValidDatabaseName(message.name())) {
    return absl::InvalidArgumentError("the primary named a database with an invalid name");
  }
  if (!message.dropped() && !IsValidPageSize(message.page_size())) {
    return absl::InvalidArgumentError(
        fmt::format("the primary gave database {} an impossible page size of {}", message.name(),
                    message.page_size()));
  }
  DatabasePosition position;
  position.name = message.name();
  position.txid = {message.txid()};
  position.digest = message.digest();
  position.page_size = message.page_size();
  position.page_count = message.page_count();
  position.attributes = {message.mode(), message.uid(), message.gid()};
  position.index = {message.index()};
  position.dropped = message.dropped();
  position.wal = {message.wal_salt1(), message.wal_salt2(), message.wal_begin_offset(),
                  message.wal_end_offset()};
  return position;
}

void ToMessage(const LogEnds& ends, const TermHistory& terms, v1::Hello* message) {
  message->set_first_index(ends.first.value);
  message->set_last_index(ends.last.value);
  message->set_last_term(ends.last_term.value);
  for (const TermStart& start : terms.starts()) {
    v1::TermStart* added = message->add_terms();
    added->set_term(start.term.value);
    added->set_first_index(start.first.value);
  }
}

absl::StatusOr<TermHistory> TermsFromMessage(const v1::Hello& message) {
  std::vector<TermStart> starts;
  if (static_cast<std::size_t>(message.terms_size()) <= kTermHistoryMax) {
    for (const v1::TermStart& start : message.terms()) {
      starts.push_back({{start.term()}, {start.first_index()}});
    }
    std::optional<TermHistory> terms = TermHistory::FromStarts(std::move(starts));
    if (terms) return *std::move(terms);
  }
  return absl::InvalidArgumentError("its Hello has an impossible history of terms");
}

void ToMessage(const PageSet& pages, v1::FetchDatabaseRequest* message) {
  for (const auto& [first, last] : pages.ranges()) {
    v1::PageRange* range = message->add_pages();
    range->set_first(first);
    range->set_last(last);
  }
}

absl::StatusOr<PageSet> PagesFromMessage(const v1::FetchDatabaseRequest& message) {
  PageSet pages;
  PageNumber last = 0;
  bool valid = static_cast<std::size_t>(message.pages_size()) <= kFetchRangesMax;
  for (int i = 0; valid && i < message.pages_size(); ++i) {
    const v1::PageRange& range = message.pages(i);
    valid = range.first() > last && range.last() >= range.first();
    last = range.last();
    pages.Add(range.first(), range.last());
  }
  if (valid) return pages;
  return absl::InvalidArgumentError("the request has impossible page ranges");
}

}  // namespace echofs
