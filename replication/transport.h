// The network between nodes as the replication core sees it (design section 10): streams of
// messages and nothing of gRPC, so that a whole cluster can run in one process under a simulated
// network. grpc_server and grpc_client are the real ones.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"

namespace echofs::v1 {
class FollowRequest;
class FollowResponse;
class FetchDatabaseRequest;
class FetchDatabaseResponse;
class ImportDatabaseRequest;
class ImportDatabaseResponse;
class ListPositionsRequest;
class NodeDatabase;
class RequestHandoffRequest;
}  // namespace echofs::v1

namespace echofs {

// The primary's side of one Follow call. One thread reads, one writes, both at the same time if
// they like; Cancel and cancelled from any thread.
class FollowServerStream {
 public:
  virtual ~FollowServerStream() = default;
  // Waits for a message; false when there will be none any more.
  virtual bool Read(v1::FollowRequest* request) = 0;
  // Waits while the flow control holds it back; false when the call is dead.
  virtual bool Write(const v1::FollowResponse& response) = 0;
  // Ends the call: Read and Write return false soon. The replica sees CANCELLED.
  virtual void Cancel() = 0;
  virtual bool cancelled() const = 0;
};

// The primary's side of one FetchDatabase call. One thread, but Cancel and cancelled from any.
class FetchServerStream {
 public:
  virtual ~FetchServerStream() = default;
  virtual bool Write(const v1::FetchDatabaseResponse& response) = 0;
  virtual void Cancel() = 0;
  virtual bool cancelled() const = 0;
};

// The primary's side of one ImportDatabase call. One thread.
class ImportServerStream {
 public:
  virtual ~ImportServerStream() = default;
  virtual bool Read(v1::ImportDatabaseRequest* request) = 0;
  virtual bool cancelled() const = 0;
};

// What a node's server serves. Called by any number of threads, one for each call, which lasts
// until the function returns; its status is what the caller of the RPC sees.
class ReplicationService {
 public:
  virtual ~ReplicationService() = default;
  virtual absl::Status Follow(FollowServerStream& stream) = 0;
  virtual absl::Status FetchDatabase(const v1::FetchDatabaseRequest& request,
                                     FetchServerStream& stream) = 0;
  virtual absl::Status RequestHandoff(const v1::RequestHandoffRequest& request) = 0;
  // `write` returns false when the caller has gone.
  virtual absl::Status ListPositions(const v1::ListPositionsRequest& request,
                                     const std::function<bool(const v1::NodeDatabase&)>& write) = 0;
  virtual absl::Status ImportDatabase(ImportServerStream& stream,
                                      v1::ImportDatabaseResponse* response) = 0;
};

// The replica's side of one Follow call. One thread reads, one writes; Cancel from any thread.
// Finish when neither reads nor writes any more. Destruction cancels a call that was not finished.
class FollowCall {
 public:
  virtual ~FollowCall() = default;
  virtual bool Read(v1::FollowResponse* response) = 0;
  virtual bool Write(const v1::FollowRequest& request) = 0;
  virtual void Cancel() = 0;
  // Why the stream ended; OK when the primary ended it as planned. Once.
  virtual absl::Status Finish() = 0;
};

// The replica's side of one FetchDatabase call. One thread, but Cancel from any.
class FetchCall {
 public:
  virtual ~FetchCall() = default;
  virtual bool Read(v1::FetchDatabaseResponse* response) = 0;
  virtual void Cancel() = 0;
  virtual absl::Status Finish() = 0;
};

// The replica's side of one ImportDatabase call. One thread, but Cancel from any.
class ImportCall {
 public:
  virtual ~ImportCall() = default;
  // False when the call has ended: Finish says why.
  virtual bool Write(const v1::ImportDatabaseRequest& request) = 0;
  // Ends it, whatever it waits for; from any thread.
  virtual void Cancel() = 0;
  // Waits for the primary's answer to what was written. Once.
  virtual absl::Status Finish(v1::ImportDatabaseResponse* response) = 0;
};

// A connection to one node. Thread-safe; the calls may outlive it.
class PrimaryChannel {
 public:
  virtual ~PrimaryChannel() = default;
  virtual std::unique_ptr<FollowCall> Follow() = 0;
  virtual std::unique_ptr<FetchCall> FetchDatabase(const v1::FetchDatabaseRequest& request) = 0;
  // Waits for the answer.
  virtual absl::Status RequestHandoff(const v1::RequestHandoffRequest& request) = 0;
  // Calls `visit` for each database of the answer, until it fails.
  virtual absl::Status ListPositions(
      const v1::ListPositionsRequest& request,
      const std::function<absl::Status(const v1::NodeDatabase&)>& visit) = 0;
  virtual std::unique_ptr<ImportCall> ImportDatabase() = 0;
};

// Makes connections. Thread-safe.
class Connector {
 public:
  virtual ~Connector() = default;
  // Never fails and does not wait: a node that cannot be reached shows in the first call.
  virtual std::unique_ptr<PrimaryChannel> Connect(const std::string& address) = 0;
};

}  // namespace echofs
