#include "replication/grpc_security.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <optional>
#include <string_view>
#include <utility>

#include "replication/limited_log.h"
#include "replication/limits.h"
#include "replication/status_macros.h"
#include "replication/tls_watch.h"
#include "replication/token_file.h"

namespace echofs {
namespace {

namespace tls = grpc::experimental;

constexpr std::string_view kMetadataKey = "authorization";
constexpr std::string_view kScheme = "Bearer ";

// The address without the port, which is another one for each connection.
std::string HostOf(const grpc::ServerContext& context) {
  const std::string peer = context.peer();
  return peer.substr(0, peer.rfind(':'));
}

class GrpcSecurityImpl final : public GrpcSecurity {
 public:
  GrpcSecurityImpl() = default;

  absl::Status UseTls(const TlsFiles& files, TlsUse use) {
    ECHOFS_ASSIGN_OR_RETURN(const TlsFacts facts, CheckTlsFiles(files, use));
    const auto provider = std::make_shared<tls::FileWatcherCertificateProvider>(
        files.key, files.cert, files.ca,
        static_cast<unsigned>(absl::ToInt64Seconds(kCredentialLookInterval)));
    tls::TlsChannelCredentialsOptions client;
    client.set_certificate_provider(provider);
    client.watch_root_certs();
    if (!files.cert.empty()) client.watch_identity_key_cert_pairs();
    client.set_certificate_verifier(std::make_shared<tls::HostNameCertificateVerifier>());
    channel_credentials_ = tls::TlsCredentials(client);
    if (use != TlsUse::kClient) {
      tls::TlsServerCredentialsOptions server(provider);
      server.watch_root_certs();
      server.watch_identity_key_cert_pairs();
      server.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
      server_credentials_ = tls::TlsServerCredentials(server);
    }
    watch_.emplace(files, use, facts);
    return absl::OkStatus();
  }

  absl::Status UseToken(const std::string& path) {
    ECHOFS_ASSIGN_OR_RETURN(token_, TokenFile::Open(path));
    return absl::OkStatus();
  }

  std::shared_ptr<grpc::ChannelCredentials> channel_credentials() const override {
    return channel_credentials_;
  }
  std::shared_ptr<grpc::ServerCredentials> server_credentials() const override {
    return server_credentials_;
  }

  void Authorize(grpc::ClientContext* context) override {
    if (token_ == nullptr) return;
    context->AddMetadata(std::string(kMetadataKey), std::string(kScheme) + token_->ToSend());
  }

  absl::Status CheckCaller(const grpc::ServerContext& context) override {
    if (token_ == nullptr) return absl::OkStatus();
    const auto [begin, end] = context.client_metadata().equal_range(
        grpc::string_ref(kMetadataKey.data(), kMetadataKey.size()));
    std::string_view sent;
    if (begin != end) sent = {begin->second.data(), begin->second.size()};
    if (sent.substr(0, kScheme.size()) == kScheme && token_->Accepts(sent.substr(kScheme.size()))) {
      return absl::OkStatus();
    }
    const char* const what = begin == end ? "without a token" : "with a wrong token";
    refusals_.Warn(HostOf(context) + what,
                   fmt::format("refused a call {} from {}: the token files of both sides must have "
                               "the same token (grpc.token-file)",
                               what, context.peer()));
    return absl::UnauthenticatedError(fmt::format(
        "the call came {}: give this side the token file of the other one (grpc.token-file)",
        what));
  }

 private:
  std::shared_ptr<grpc::ChannelCredentials> channel_credentials_ =
      grpc::InsecureChannelCredentials();
  std::shared_ptr<grpc::ServerCredentials> server_credentials_ = grpc::InsecureServerCredentials();
  std::optional<TlsWatch> watch_;
  std::unique_ptr<TokenFile> token_;
  LimitedLog refusals_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<GrpcSecurity>> GrpcSecurity::Make(const SecurityOptions& options,
                                                                 TlsUse use) {
  auto security = std::make_shared<GrpcSecurityImpl>();
  if (!options.tls.empty()) ECHOFS_RETURN_IF_ERROR(security->UseTls(options.tls, use));
  if (!options.token_file.empty()) ECHOFS_RETURN_IF_ERROR(security->UseToken(options.token_file));
  return security;
}

std::shared_ptr<GrpcSecurity> GrpcSecurity::None() { return std::make_shared<GrpcSecurityImpl>(); }

absl::StatusOr<std::string> CheckSecurity(const SecurityOptions& options, TlsUse use) {
  if (!options.token_file.empty()) {
    ECHOFS_RETURN_IF_ERROR(TokenFile::Open(options.token_file).status());
  }
  if (options.tls.empty()) return "";
  ECHOFS_ASSIGN_OR_RETURN(const TlsFacts facts, CheckTlsFiles(options.tls, use));
  return DescribeExpiry(options.tls, facts, absl::Now());
}

std::string DescribeSecurity(const SecurityOptions& options) {
  if (options.tls.empty() && options.token_file.empty()) {
    return "by nothing: for networks that are trusted";
  }
  if (options.tls.empty()) return "by a token, in plain text: for private networks";
  return fmt::format("by TLS{}{}",
                     options.tls.cert.empty() ? "" : " with certificates on both sides",
                     options.token_file.empty() ? "" : ", and a token");
}

}  // namespace echofs
