// The pages that one apply writes, from a change set or from a whole copy, and the digest that the
// database has afterwards (design C8, A6). Holds one page at a time: a change set may be larger
// than memory.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/bytes.h"
#include "replication/ids.h"
#include "replication/log_entry.h"
#include "replication/ltx.h"
#include "replication/page_set.h"
#include "replication/storage.h"

namespace echofs::fs {

// The state that is changed. page_count 0: there is nothing, all pages are new.
struct BaseState {
  std::uint32_t page_size = 0;
  std::uint32_t page_count = 0;
  std::uint64_t digest = 0;
  // Content of a page <= page_count before the change. It must not have been written yet.
  std::function<absl::Status(PageNumber, MutableByteView)> read;
};

// One thread.
class ChangeStream {
 public:
  virtual ~ChangeStream() = default;

  struct Page {
    PageNumber number;
    ByteView content;  // valid until the next call
  };
  // The next page to write, in ascending order and without the lock page, or nothing after the last
  // one.
  virtual absl::StatusOr<std::optional<Page>> Next() = 0;
  // Digest of the database with all pages written; valid after Next returned nothing.
  virtual std::uint64_t digest() const = 0;
};

// The pages of a change set. Pages by which the database grows and that the change set lacks are
// given out as zeros, for that is what the digest counts them as. When the page size differs from
// the base's, all pages are new. DataLoss when the LTX file is damaged or is not that of the entry.
// Neither `payload` nor `entry` is owned; both must outlive the stream.
absl::StatusOr<std::unique_ptr<ChangeStream>> OpenChangeSet(const LogEntry& entry,
                                                            ByteSource* payload, BaseState base);

// The pages of a whole copy that differ from the base. InvalidArgument when the copy does not have
// page_count pages. `file` is not owned.
absl::StatusOr<std::unique_ptr<ChangeStream>> OpenCopy(const File* file, std::uint32_t page_size,
                                                       std::uint32_t page_count, BaseState base);

// Those of `pages` that differ from the base; all others are the same before and after. `file` holds each at its
// place. InvalidArgument when a page that is new is not among them, or the base has another page size. Owns
// neither; both must outlive the stream.
absl::StatusOr<std::unique_ptr<ChangeStream>> OpenPages(const File* file, const PageSet* pages,
                                                        std::uint32_t page_size,
                                                        std::uint32_t page_count, BaseState base);

}  // namespace echofs::fs
