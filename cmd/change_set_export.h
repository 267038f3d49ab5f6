// `echofs log DB --export TXID`: one change set as an LTX file.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "cmd/tools_client.h"

namespace echofs::cmd {

// Writes it to `to`, or below it by its own name when that is a directory; never over a file that exists. The file has
// been read by the decoder before it appears. Returns its path.
absl::StatusOr<std::string> ExportChangeSet(ToolsClient* client, const std::string& database,
                                            Txid txid, const std::string& to);

}  // namespace echofs::cmd
