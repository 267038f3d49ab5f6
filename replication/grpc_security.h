// How connections between nodes, to the lease server and to etcd are secured: TLS in which both sides show a
// certificate, a token that callers have to know, both, or nothing. The types of gRPC are only named here.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/tls_files.h"

namespace grpc {
class ChannelCredentials;
class ClientContext;
class ServerContext;
class ServerCredentials;
}  // namespace grpc

namespace echofs {

struct SecurityOptions {
  TlsFiles tls;            // empty: plain text
  std::string token_file;  // token_file.h; empty: none
  friend bool operator==(const SecurityOptions&, const SecurityOptions&) = default;
};

// Thread-safe. Lives as long as a server or channel that uses it. Certificates and tokens are taken anew when their
// files are replaced, for connections and calls that begin after that, a few seconds later.
class GrpcSecurity {
 public:
  // Errors are for people and name the file.
  static absl::StatusOr<std::shared_ptr<GrpcSecurity>> Make(const SecurityOptions& options,
                                                            TlsUse use);
  // Plain text for everybody.
  static std::shared_ptr<GrpcSecurity> None();
  virtual ~GrpcSecurity() = default;

  virtual std::shared_ptr<grpc::ChannelCredentials> channel_credentials() const = 0;
  virtual std::shared_ptr<grpc::ServerCredentials> server_credentials() const = 0;
  // Puts the token into a call that is about to begin.
  virtual void Authorize(grpc::ClientContext* context) = 0;
  // Whether the caller knows the token. Unauthenticated says what is missing; that is in the log then, too. To be asked
  // first of all by every method of a server.
  virtual absl::Status CheckCaller(const grpc::ServerContext& context) = 0;
};

// As Make, without using the files for anything. What is to be said of a certificate that ends soon, or nothing.
absl::StatusOr<std::string> CheckSecurity(const SecurityOptions& options, TlsUse use);
// For people, what stands after "secured".
std::string DescribeSecurity(const SecurityOptions& options);

}  // namespace echofs
