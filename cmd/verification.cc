#include "cmd/verification.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "cmd/admin_client.h"
#include "cmd/database_reader.h"
#include "cmd/progress.h"
#include "cmd/tools_client.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

using Result = VerifiedCopy::Result;

// A node that was just started, or a database that was just made, comes along in this time.
constexpr absl::Duration kPatience = absl::Seconds(10);
constexpr absl::Duration kPoll = absl::Milliseconds(200);

class Verifier {
 public:
  Verifier(AdminClient* admin, ToolsClient* tools, const VerifyOptions& options)
      : admin_(admin), tools_(tools), options_(options), progress_("verifying") {}

  absl::StatusOr<Verification> Run() {
    ECHOFS_ASSIGN_OR_RETURN(status_, admin_->Status());
    std::vector<DatabaseInfo> wanted;
    for (const DatabaseInfo& database : status_.databases) {
      if (options_.database.empty() || database.name == options_.database) {
        wanted.push_back(database);
      }
    }
    if (wanted.empty() && !options_.database.empty()) {
      return absl::NotFoundError(fmt::format("there is no database {}", options_.database));
    }
    for (const DatabaseInfo& database : wanted) ECHOFS_RETURN_IF_ERROR(VerifyOwn(database));
    ECHOFS_RETURN_IF_ERROR(VerifyOthers());
    std::stable_sort(
        result_.copies.begin(), result_.copies.end(),
        [](const VerifiedCopy& a, const VerifiedCopy& b) { return a.database < b.database; });
    return std::move(result_);
  }

 private:
  absl::Status VerifyOwn(const DatabaseInfo& database) {
    ECHOFS_ASSIGN_OR_RETURN(VerifiedCopy copy, CheckOwn(database));
    if (copy.result != Result::kEqual && options_.repair) {
      ECHOFS_RETURN_IF_ERROR(Repair(database.name));
      ECHOFS_ASSIGN_OR_RETURN(const DatabaseInfo repaired, Find(database.name));
      ECHOFS_ASSIGN_OR_RETURN(copy, CheckOwn(repaired));
      if (copy.result == Result::kEqual) {
        copy.result = Result::kRepaired;
        copy.detail = "fetched from the primary again";
      }
    }
    result_.copies.push_back(std::move(copy));
    return absl::OkStatus();
  }

  // By its state, or by its pages.
  absl::StatusOr<VerifiedCopy> CheckOwn(const DatabaseInfo& database) {
    VerifiedCopy copy = {database.name,   status_.node,     database.txid,
                         database.digest, Result::kUnknown, ""};
    if (database.state == "copying" || database.state == "stopped") {
      copy.detail = database.detail.empty()
                        ? database.state
                        : fmt::format("{}: {}", database.state, database.detail);
      return copy;
    }
    copy.result = Result::kEqual;
    if (!options_.full) return copy;
    progress_.Begin(fmt::format("reading {}", database.name));
    const absl::StatusOr<DatabaseContent> content =
        ReadDatabase(tools_, database.name, nullptr, &progress_);
    progress_.Begin("verifying");
    if (absl::IsUnavailable(content.status())) return content.status();
    if (!content.ok()) {
      copy.result = Result::kUnknown;
      copy.detail = std::string(content.status().message());
      return copy;
    }
    copy.txid = content->position.txid;
    copy.digest = content->digest;
    if (content->digest == content->position.digest) {
      copy.detail = fmt::format("all {} pages read", content->position.page_count);
    } else {
      copy.result = Result::kDifferent;
      copy.detail = fmt::format("its pages are damaged: the history has digest {:016x}",
                                content->position.digest);
    }
    return copy;
  }

  absl::Status Repair(const std::string& name) {
    ECHOFS_RETURN_IF_ERROR(tools_->Refetch(name));
    progress_.Begin(fmt::format("fetching {} from the primary", name));
    while (true) {
      ECHOFS_ASSIGN_OR_RETURN(const DatabaseInfo database, Find(name));
      const std::uint64_t page = database.page_size;
      progress_.Set(database.copy_pages_done * page, database.copy_pages * page);
      if (database.state == "ok") break;
      absl::SleepFor(kPoll);
    }
    progress_.Begin("verifying");
    return absl::OkStatus();
  }

  absl::StatusOr<DatabaseInfo> Find(const std::string& name) {
    ECHOFS_ASSIGN_OR_RETURN(const std::vector<DatabaseInfo> databases, admin_->Databases());
    for (const DatabaseInfo& database : databases) {
      if (database.name == name) return database;
    }
    return absl::NotFoundError(fmt::format("{} was deleted meanwhile", name));
  }

  // What cannot be compared yet is asked for again.
  absl::Status VerifyOthers() {
    const absl::Time deadline = absl::Now() + kPatience;
    while (true) {
      std::vector<VerifiedCopy> copies;
      ECHOFS_RETURN_IF_ERROR(tools_->CompareNodes(
          options_.database, [&](const NodeComparison& node) { copies.push_back(CopyOf(node)); }));
      const bool settled = std::none_of(copies.begin(), copies.end(), [](const VerifiedCopy& copy) {
        return copy.result == Result::kUnknown;
      });
      if (settled || absl::Now() >= deadline) {
        for (VerifiedCopy& copy : copies) result_.copies.push_back(std::move(copy));
        return absl::OkStatus();
      }
      absl::SleepFor(kPoll);
    }
  }

  static VerifiedCopy CopyOf(const NodeComparison& node) {
    VerifiedCopy copy = {node.database,    node.node.empty() ? node.address : node.node,
                         node.txid,        node.digest,
                         Result::kUnknown, node.error};
    if (!node.error.empty()) return copy;
    if (node.digest != node.expected_digest) {
      copy.result = Result::kDifferent;
      copy.detail =
          fmt::format("at this TXID the history has digest {:016x}", node.expected_digest);
    } else if (node.state == "copying" || node.state == "stopped") {
      copy.detail = fmt::format("it is {}: see 'echofs status' there", node.state);
    } else {
      copy.result = Result::kEqual;
    }
    return copy;
  }

  AdminClient* const admin_;
  ToolsClient* const tools_;
  const VerifyOptions& options_;
  Progress progress_;
  NodeStatus status_;
  Verification result_;
};

}  // namespace

bool Verification::AllEqual() const {
  return std::all_of(copies.begin(), copies.end(), [](const VerifiedCopy& copy) {
    return copy.result == Result::kEqual || copy.result == Result::kRepaired;
  });
}

absl::StatusOr<Verification> VerifyNode(const std::string& data_dir, const VerifyOptions& options) {
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<AdminClient> admin, AdminClient::Connect(data_dir));
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<ToolsClient> tools, ToolsClient::Connect(data_dir));
  return Verifier(admin.get(), tools.get(), options).Run();
}

}  // namespace echofs::cmd
