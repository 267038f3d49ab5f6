#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cmd/report_table.h"
#include "cmd/verification.h"

namespace echofs::cmd {
namespace {

const char* ResultName(VerifiedCopy::Result result) {
  switch (result) {
    case VerifiedCopy::Result::kEqual:
      return "equal";
    case VerifiedCopy::Result::kRepaired:
      return "repaired";
    case VerifiedCopy::Result::kDifferent:
      return "different";
    case VerifiedCopy::Result::kUnknown:
      return "not compared";
  }
  return "";
}

}  // namespace

std::string VerificationJson(const Verification& verification) {
  nlohmann::ordered_json copies = nlohmann::ordered_json::array();
  for (const VerifiedCopy& copy : verification.copies) {
    copies.push_back({{"database", copy.database},
                      {"node", copy.node},
                      {"txid", fmt::format("{:016x}", copy.txid.value)},
                      {"digest", fmt::format("{:016x}", copy.digest)},
                      {"result", ResultName(copy.result)}});
    if (!copy.detail.empty()) copies.back()["detail"] = copy.detail;
  }
  const nlohmann::ordered_json json = {{"equal", verification.AllEqual()},
                                       {"copies", std::move(copies)}};
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string VerificationText(const Verification& verification) {
  if (verification.copies.empty()) return "no databases yet\n";
  std::vector<std::vector<std::string>> rows = {{"DATABASE", "NODE", "TXID", "DIGEST", "RESULT"}};
  for (const VerifiedCopy& copy : verification.copies) {
    std::string result = ResultName(copy.result);
    if (!copy.detail.empty()) result += ": " + copy.detail;
    rows.push_back({copy.database.empty() ? "-" : copy.database, copy.node,
                    fmt::format("{:016x}", copy.txid.value), fmt::format("{:016x}", copy.digest),
                    result});
  }
  return ReportTable(rows);
}

}  // namespace echofs::cmd
