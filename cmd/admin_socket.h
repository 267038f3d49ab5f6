// Unix socket paths, for both ends of the Admin service.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace echofs::cmd {

// OK when a process listens on the socket; NotFound when there is none, or one that nobody listens
// on; PermissionDenied; InvalidArgument when the path is too long for a unix socket.
absl::Status ProbeSocket(const std::string& path);

// The socket as gRPC names it. Absolute path.
std::string GrpcAddress(const std::string& path);

}  // namespace echofs::cmd
