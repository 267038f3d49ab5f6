// The services for the commands (proto/echofs/v1/admin.proto, tools.proto) of a running node, on a unix socket that only the
// node's user can open.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "cmd/admin_source.h"
#include "cmd/tools_source.h"

namespace echofs::cmd {

class AdminServer {
 public:
  // Listens on `socket_path` (absolute), mode 0600; replaces a socket that a killed node left
  // there. Does not own `source` and `tools`, which must outlive the server; without `tools` it has no such service. InvalidArgument when the path is
  // too long for a unix socket, AlreadyExists when another node listens there. Starts threads.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Start(const std::string& socket_path,
                                                            AdminSource* source,
                                                            ToolsSource* tools = nullptr);
  // Ends running calls and removes the socket.
  ~AdminServer();
  AdminServer(const AdminServer&) = delete;
  AdminServer& operator=(const AdminServer&) = delete;

 private:
  struct State;
  explicit AdminServer(std::unique_ptr<State> state);
  const std::unique_ptr<State> state_;
};

}  // namespace echofs::cmd
