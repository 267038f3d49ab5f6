// What has arrived in a node's log, seen from outside the node: its segment files are read as they grow.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "replication/log_segment.h"
#include "replication/storage.h"

namespace echofs {

// One thread. Ends the program with a message when the log cannot be read.
class ReceivedLog {
 public:
  // `directory` of the log of a node that runs. Reads it from the begin of its newest segment.
  ReceivedLog(std::string directory, std::string database);

  // TXID of the newest entry of the database that is whole; 0 when there is none. A few microseconds when nothing
  // is new.
  std::uint64_t NewestTxid();

 private:
  void OpenSegment(LogIndex base);
  // Steps over the next record; false when it is not there yet.
  bool ReadRecord();

  const std::string directory_;
  const std::string database_;
  std::unique_ptr<File> segment_;
  std::uint64_t offset_ = 0;  // of the next record
  LogIndex base_;             // of the segment
  LogIndex last_;             // the last record that was read
  std::uint64_t newest_txid_ = 0;
};

}  // namespace echofs
