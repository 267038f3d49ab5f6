// The lease in etcd v3, over its gRPC API. The layout of the keys is in docs/formats.md.
//
// - KEY/record has no etcd lease, so terms outlive everything. Its revision in etcd is LeaseRecord.revision.
// - KEY/holder exists while the primary holds the lease. It is attached to an etcd lease of at least the TTL, which the
//   holder keeps alive; the id stands in it, so that the target of a Transfer knows which one is its own.
// - Every change is one etcd transaction on the revisions of both keys.
//
// A Renew with a shorter TTL than the etcd lease has leaves that one as it is: the lease then lasts longer than asked for.
//
// Why nobody acquires too early (R2): Acquire and Transfer grant the etcd lease after they were called, and it lasts for
// the TTL rounded up to seconds. Renew keeps it alive, and then reads that the holder is still the caller, from one and
// the same leader of etcd (EtcdConnection::KeepAliveAndRange). A new leader of etcd gives every etcd lease its whole
// time again.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "replication/grpc_security.h"
#include "replication/lease.h"

namespace echofs {

// `endpoints`: "host:port" of etcd's members, at least one; `key`: lease.key. Does not wait: etcd that cannot be reached
// shows in the first call. Calls that can be repeated without harm are, on the next endpoint; Acquire and Transfer are
// not.
std::unique_ptr<Lease> MakeEtcdLease(const std::vector<std::string>& endpoints,
                                     const std::string& key,
                                     std::shared_ptr<GrpcSecurity> security = GrpcSecurity::None());

}  // namespace echofs
