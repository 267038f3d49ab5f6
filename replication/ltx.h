// LTX version 3, the encoding of a change set (design L1). The format is described in
// docs/formats.md. Encoder and decoder hold one page at a time, so that a change set may be larger
// than memory.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/bytes.h"
#include "replication/change_set.h"

namespace echofs {

inline constexpr std::size_t kLtxHeaderSize = 100;  // bytes
inline constexpr std::size_t kLtxTrailerSize = 16;  // bytes

// Writes one LTX file into a sink. Call AddPage in ascending order of page number, then Finish
// once. One thread. After an error the output is worthless and the object must not be used further.
class LtxEncoder {
 public:
  // Does not own `sink`. Writes the header at once.
  static absl::StatusOr<std::unique_ptr<LtxEncoder>> Start(ByteSink* sink,
                                                           const ChangeSetHeader& header);
  ~LtxEncoder();
  // `page` has the page size of the header. InvalidArgument when the order is wrong, for the lock
  // page, or for a page beyond the header's page_count.
  absl::Status AddPage(PageNumber number, ByteView page);
  absl::Status Finish();

 private:
  struct State;
  explicit LtxEncoder(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Reads one LTX file from a source and checks everything on the way. Errors are DataLoss with the
// offset of the damage in the file. Every size is bounded before it is allocated. One thread.
class LtxDecoder {
 public:
  // Does not own `source`. Reads and checks the header.
  static absl::StatusOr<std::unique_ptr<LtxDecoder>> Start(ByteSource* source);
  ~LtxDecoder();
  const ChangeSetHeader& header() const;

  struct Page {
    PageNumber number;
    ByteView content;  // valid until the next call
  };
  // The next page, or nothing after the last one: then the page index and the trailer have been
  // read and have been found right.
  absl::StatusOr<std::optional<Page>> Next();

 private:
  struct State;
  explicit LtxDecoder(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Name of the file of a change set: "%016x-%016x.ltx".
std::string LtxFileName(Txid min, Txid max);

}  // namespace echofs
