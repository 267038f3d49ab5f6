// Connections to other nodes over gRPC.
#pragma once

#include "replication/transport.h"

namespace echofs {

// Connects to "host:port". Lives for ever. A call to a node that cannot be reached fails at once
// with Unavailable; retrying is the caller's business. HTTP proxies of the environment are not
// used.
Connector* GrpcConnector();

}  // namespace echofs
