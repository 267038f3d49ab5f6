// gRPC channels to the endpoints of a lease service, of which one is in use.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "replication/grpc_security.h"

namespace grpc {
class Channel;
class ClientContext;
class Status;
}  // namespace grpc

namespace echofs {

// Thread-safe. A channel connects by itself, and again after a loss.
class EndpointChannels {
 public:
  // "host:port" each, at least one.
  EndpointChannels(const std::vector<std::string>& endpoints,
                   std::shared_ptr<GrpcSecurity> security);
  ~EndpointChannels();

  std::size_t size() const { return endpoints_.size(); }
  struct Endpoint {
    std::string address;
    std::shared_ptr<grpc::Channel> channel;
  };
  GrpcSecurity& security() const { return *security_; }
  // The one in use.
  const Endpoint& current() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits until the endpoint is connected, for a second or so; at once when it is already. UNAVAILABLE: it is not, and
  // nothing was sent. Calls must do this first: gRPC reads the network only while a call or this waits, so calls that
  // fail at once would never see a connection come into being.
  grpc::Status Connect(const Endpoint& endpoint) const;
  // `failed` did not answer: the next one is used, unless somebody moved on from `failed` already.
  void MoveOn(const Endpoint& failed) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const std::shared_ptr<GrpcSecurity> security_;
  std::vector<Endpoint> endpoints_;  // as constructed
  mutable absl::Mutex mutex_;
  std::size_t current_ ABSL_GUARDED_BY(mutex_) = 0;
};

// That an endpoint cannot be asked, as opposed to an answer that says no.
bool IsEndpointFailure(const grpc::Status& status);

}  // namespace echofs
