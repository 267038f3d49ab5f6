// Connections to other nodes over gRPC.
#pragma once

#include <memory>

#include "replication/grpc_security.h"
#include "replication/transport.h"

namespace echofs {

// Connects to "host:port". A call to a node that cannot be reached fails at once with Unavailable;
// retrying is the caller's business. HTTP proxies of the environment are not used.
std::unique_ptr<Connector> MakeGrpcConnector(
    std::shared_ptr<GrpcSecurity> security = GrpcSecurity::None());

}  // namespace echofs
