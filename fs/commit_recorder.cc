#include "fs/commit_recorder.h"

#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "replication/digest.h"
#include "replication/ltx.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

// Change sets up to this size are read once and encoded in memory; larger ones are read twice and streamed.
constexpr std::uint64_t kInMemorySizeMax = 4ull << 20;  // bytes

// Reads pages of a source, from memory when they all fit.
class PageReader {
 public:
  PageReader(PageSource* source, std::uint32_t page_size) : source_(source), page_size_(page_size) {
    const std::uint64_t total = std::uint64_t{page_size} * source->size();
    buffer_.resize(total <= kInMemorySizeMax ? total : page_size);
    whole_ = total <= kInMemorySizeMax;
  }

  bool in_memory() const { return whole_; }

  absl::StatusOr<ByteView> FirstRead(std::size_t i) {
    const MutableByteView out =
        MutableByteView(buffer_).subspan(whole_ ? i * page_size_ : 0, page_size_);
    ECHOFS_RETURN_IF_ERROR(source_->Read(i, out));
    return ByteView(out);
  }
  absl::StatusOr<ByteView> ReadAgain(std::size_t i) {
    if (!whole_) return FirstRead(i);
    return ByteView(buffer_).subspan(i * page_size_, page_size_);
  }

 private:
  PageSource* const source_;
  const std::uint32_t page_size_;
  bool whole_ = false;
  std::vector<std::uint8_t> buffer_;
};

// What the hashes say about a draft.
struct Difference {
  std::vector<std::uint64_t> hashes;  // of all candidates
  std::vector<std::size_t> changed;   // candidates whose content is new
  std::uint64_t digest_after = 0;
};

absl::StatusOr<Difference> Compare(const DatabasePosition& before, bool replaces_all,
                                   const CommitDraft& draft, PageReader& reader) {
  Difference result;
  result.digest_after = replaces_all ? 0 : before.digest;
  const std::uint32_t old_count = replaces_all ? 0 : before.page_count;
  result.hashes.reserve(draft.pages->size());
  for (std::size_t i = 0; i < draft.pages->size(); ++i) {
    const PageNumber number = draft.pages->number(i);
    ECHOFS_ASSIGN_OR_RETURN(const ByteView page, reader.FirstRead(i));
    const std::uint64_t hash = PageHash(number, page);
    result.hashes.push_back(hash);
    if (number <= old_count) {
      ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t old, draft.old_hash(number));
      if (old == hash) continue;
      result.digest_after -= old;
    }
    result.digest_after += hash;
    result.changed.push_back(i);
  }
  for (PageNumber gone = draft.page_count + 1; gone <= old_count; ++gone) {
    if (gone == LockPage(draft.page_size)) continue;
    ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t old, draft.old_hash(gone));
    result.digest_after -= old;
  }
  return result;
}

absl::Status Encode(ByteSink& sink, const ChangeSetHeader& header, const CommitDraft& draft,
                    const Difference& difference, PageReader& reader) {
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<LtxEncoder> encoder,
                          LtxEncoder::Start(&sink, header));
  for (const std::size_t i : difference.changed) {
    ECHOFS_ASSIGN_OR_RETURN(const ByteView page, reader.ReadAgain(i));
    ECHOFS_RETURN_IF_ERROR(encoder->AddPage(draft.pages->number(i), page));
  }
  return encoder->Finish();
}

LogEntry MakeEntry(Term term, const DatabasePosition& before, const CommitDraft& draft,
                   std::uint64_t digest_after) {
  LogEntry entry;
  entry.kind = EntryKind::kChangeSet;
  entry.term = term;
  entry.database = before.name;
  entry.txid = before.txid.Next();
  entry.digest_before = before.dropped ? 0 : before.digest;
  entry.digest_after = digest_after;
  entry.page_size = draft.page_size;
  entry.page_count = draft.page_count;
  entry.attributes = draft.attributes;
  entry.timestamp_ms = absl::ToUnixMillis(absl::Now());
  entry.wal = draft.wal;
  return entry;
}

ChangeSetHeader MakeHeader(const LogEntry& entry) {
  ChangeSetHeader header;
  header.page_size = entry.page_size;
  header.page_count = entry.page_count;
  header.txid = header.min_txid = entry.txid;
  header.timestamp_ms = entry.timestamp_ms;
  header.wal = entry.wal;
  header.term = entry.term;
  header.digest_after = entry.digest_after;
  return header;
}

absl::StatusOr<LogIndex> AppendEntry(ChangeLog& log, const LogEntry& entry,
                                     const CommitDraft& draft, const Difference& difference,
                                     PageReader& reader) {
  const ChangeSetHeader header = MakeHeader(entry);
  if (reader.in_memory()) {
    std::vector<std::uint8_t> payload;
    VectorSink sink(&payload);
    ECHOFS_RETURN_IF_ERROR(Encode(sink, header, draft, difference, reader));
    return log.Append(entry, payload);
  }
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<EntryWriter> writer, log.Begin(entry));
  ECHOFS_RETURN_IF_ERROR(Encode(*writer, header, draft, difference, reader));
  return writer->Commit(entry);
}

}  // namespace

absl::StatusOr<std::optional<RecordedCommit>> RecordCommit(ChangeLog& log, Term term,
                                                           const DatabasePosition& before,
                                                           const CommitDraft& draft) {
  const bool replaces_all = draft.replaces_all || before.txid == Txid{} || before.dropped ||
                            before.page_size != draft.page_size;
  PageReader reader(draft.pages, draft.page_size);
  ECHOFS_ASSIGN_OR_RETURN(Difference difference, Compare(before, replaces_all, draft, reader));
  if (!replaces_all && difference.changed.empty() && draft.page_count == before.page_count) {
    return std::nullopt;
  }
  const LogEntry entry = MakeEntry(term, before, draft, difference.digest_after);
  ECHOFS_ASSIGN_OR_RETURN(const LogIndex index, AppendEntry(log, entry, draft, difference, reader));

  RecordedCommit recorded;
  recorded.page_hashes = std::move(difference.hashes);
  recorded.position.name = before.name;
  recorded.position.txid = entry.txid;
  recorded.position.digest = entry.digest_after;
  recorded.position.page_size = entry.page_size;
  recorded.position.page_count = entry.page_count;
  recorded.position.attributes = entry.attributes;
  recorded.position.wal = entry.wal;
  recorded.position.index = index;
  return recorded;
}

absl::StatusOr<DatabasePosition> RecordDrop(ChangeLog& log, Term term,
                                            const DatabasePosition& before) {
  LogEntry entry;
  entry.kind = EntryKind::kDrop;
  entry.term = term;
  entry.database = before.name;
  entry.txid = before.txid.Next();
  entry.digest_before = before.digest;
  entry.timestamp_ms = absl::ToUnixMillis(absl::Now());
  DatabasePosition after = before;
  ECHOFS_ASSIGN_OR_RETURN(after.index, log.Append(entry, {}));
  after.txid = entry.txid;
  after.digest = 0;
  after.page_count = 0;
  after.dropped = true;
  return after;
}

}  // namespace echofs::fs
