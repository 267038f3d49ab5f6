// What the simulated nodes say to each other: the messages of proto/echofs/v1/replication.proto as plain values.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "replication/change_log.h"
#include "replication/lease.h"
#include "replication/log_match.h"

namespace echofs::sim {

// Number of a stream between two nodes, given once.
using StreamId = std::uint64_t;

struct Hello {
  std::string node_id;
  std::string address;
  Term term;  // a primary's own; the highest that a replica has seen
  LogIndex first_index;
  LogPosition last;
  TermHistory history;
};
struct Rewind {  // cut the log after this
  LogPosition to;
};
struct Base {  // the log starts anew after this
  LogState state;
};
struct Record {  // one whole record, byte for byte (L3)
  std::shared_ptr<const std::vector<std::uint8_t>> bytes;
};
struct Heartbeat {
  Term term;
};
struct Ack {
  LogIndex synced;
};
struct FetchDatabase {
  std::string database;
};
// A whole database of one committed state, after the records up to it in the stream or before them.
struct DatabaseCopy {
  DatabasePosition position;
  LogPosition at;  // the end of the log when it was read
  std::shared_ptr<const std::vector<std::vector<std::uint8_t>>> pages;
};
struct Close {};

using Message =
    std::variant<Hello, Rewind, Base, Record, Heartbeat, Ack, FetchDatabase, DatabaseCopy, Close>;

}  // namespace echofs::sim
