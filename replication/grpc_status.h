// absl::Status <-> grpc::Status: the codes are the same numbers. grpc::Status is only named here,
// so that this header needs none of gRPC's.
#pragma once

#include "absl/status/status.h"

namespace grpc {
class Status;
}

namespace echofs {

absl::Status FromGrpcStatus(const grpc::Status& status);
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace echofs
