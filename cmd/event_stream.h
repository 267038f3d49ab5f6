// The body of /events: one JSON object a line for each entry of the log from an index on, as long as the client stays,
// and for each change of this node's role. docs/operations.md describes the lines.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "cmd/http_server.h"
#include "cmd/node_observer.h"
#include "replication/change_log.h"

namespace echofs::cmd {

class EventStream final : public HttpStream {
 public:
  // Begins with the entry at `from`, which the log has or will have next. Owns nothing. Once `stopping` is true the
  // stream ends.
  EventStream(NodeObserver* node, const ChangeLog* log, LogIndex from,
              const std::atomic<bool>* stopping);

  std::optional<std::string> Next() override;

 private:
  void AddRole(absl::Time now, std::string* lines);
  void AddEntries(absl::Time now, std::string* lines);
  void AddEnd(const std::string& reason, std::string* lines);

  NodeObserver* const node_;
  const std::atomic<bool>* const stopping_;
  const std::unique_ptr<LogReader> reader_;
  LogIndex next_;  // index of the entry that comes next
  std::optional<RoleObservation> role_;
  absl::Time role_at_ = absl::InfinitePast();
  absl::Time said_at_ = absl::InfinitePast();
  bool ended_ = false;
};

}  // namespace echofs::cmd
