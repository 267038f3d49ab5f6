// gRPC's own messages in the program's log.
#pragma once

namespace echofs {

// From now on errors of gRPC are warnings of this program, limited in number (limited_log.h): most of them tell of a
// connection that somebody else began. To be called before gRPC is used, once the log is set up.
void RouteGrpcLog();

}  // namespace echofs
