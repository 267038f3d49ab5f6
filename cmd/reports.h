// What `echofs status`, `databases`, `log`, `handoff`, `promote` and `orphans list` print. Pure functions of what the node answered.
//
// JSON is for scripts and changes only by addition of keys; TXIDs and digests are 16 hex digits.
// Texts are for people. All end with a newline.
#pragma once

#include <string>
#include <vector>

#include "cmd/admin_source.h"
#include "replication/change_log.h"

namespace echofs::cmd {

// The object of design section 11.
std::string StatusJson(const NodeStatus& status);
std::string StatusText(const NodeStatus& status);

// One line that says who is the primary after a handoff or a promotion.
std::string PrimaryText(const PrimaryInfo& primary);
// Lines that say what is lost, or may be, when the node with this status becomes the primary by
// force; empty when it is the primary.
std::string ForceWarning(const NodeStatus& status);

// A list of the objects that stand under "databases" in the status.
std::string DatabasesJson(const std::vector<DatabaseInfo>& databases);
std::string DatabasesText(const std::vector<DatabaseInfo>& databases);

// A list of names.
std::string LocalFilesJson(const std::vector<std::string>& files);

// The orphans of a node, one object or row for each time that its log was cut.
std::string OrphansJson(const std::vector<OrphanInfo>& list);
std::string OrphansText(const std::vector<OrphanInfo>& list);

// Where a database stands after an import or an export; `what` was done with it.
std::string PositionJson(const DatabasePosition& position);
std::string PositionText(const std::string& what, const DatabasePosition& position);

// One line for each change set, so that a long log can be printed as it comes: an object, or a row
// below ChangeSetHeading.
std::string ChangeSetJson(const ChangeSetSummary& summary);
std::string ChangeSetHeading();
std::string ChangeSetText(const ChangeSetSummary& summary);

}  // namespace echofs::cmd
