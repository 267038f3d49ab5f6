#include "replication/tls_files.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <vector>

#include "replication/credential_file.h"
#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

template <class T, void (*free)(T*)>
struct Deleter {
  void operator()(T* object) const { free(object); }
};
struct BioDeleter {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
struct StackDeleter {
  void operator()(STACK_OF(X509) * stack) const { sk_X509_free(stack); }
};
using Certificate = std::unique_ptr<X509, Deleter<X509, X509_free>>;
using PrivateKey = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY, EVP_PKEY_free>>;
using Store = std::unique_ptr<X509_STORE, Deleter<X509_STORE, X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, Deleter<X509_STORE_CTX, X509_STORE_CTX_free>>;
using Bio = std::unique_ptr<BIO, BioDeleter>;

absl::Status Bad(const std::string& what) { return absl::FailedPreconditionError(what); }

Bio Open(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

absl::StatusOr<std::vector<Certificate>> ReadCertificates(const std::string& path) {
  ECHOFS_ASSIGN_OR_RETURN(const std::string text, ReadCredentialFile(path, /*secret=*/false));
  const Bio bio = Open(text);
  std::vector<Certificate> certificates;
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    certificates.emplace_back(certificate);
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (!certificates.empty() && at_end) return certificates;
  return Bad(
      fmt::format("{} is no PEM file with certificates (-----BEGIN CERTIFICATE-----)", path));
}

absl::StatusOr<PrivateKey> ReadKey(const std::string& path) {
  ECHOFS_ASSIGN_OR_RETURN(const std::string text, ReadCredentialFile(path, /*secret=*/true));
  const Bio bio = Open(text);
  const auto no_password = [](char*, int, int, void*) { return -1; };
  PrivateKey key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
  ERR_clear_error();
  if (key != nullptr) return key;
  return Bad(fmt::format(
      "{} is no PEM file with a private key, or has a password, which nobody could enter", path));
}

// Whether somebody who knows the authorities alone believes the certificate.
absl::Status CheckIssuer(const TlsFiles& files, const std::vector<Certificate>& chain,
                         const std::vector<Certificate>& authorities) {
  const Store store(X509_STORE_new());
  for (const Certificate& authority : authorities)
    X509_STORE_add_cert(store.get(), authority.get());
  const std::unique_ptr<STACK_OF(X509), StackDeleter> between(sk_X509_new_null());
  for (std::size_t i = 1; i < chain.size(); ++i) sk_X509_push(between.get(), chain[i].get());
  const StoreContext context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), store.get(), chain.front().get(), between.get());
  X509_STORE_CTX_set_flags(context.get(), X509_V_FLAG_NO_CHECK_TIME | X509_V_FLAG_PARTIAL_CHAIN);
  const bool verified = X509_verify_cert(context.get()) == 1;
  const char* const why = X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get()));
  ERR_clear_error();
  if (verified) return absl::OkStatus();
  return Bad(
      fmt::format("the certificate {} is not from the authority {} ({}): use those that were "
                  "made together",
                  files.cert, files.ca, why));
}

absl::Status CheckPurpose(const TlsFiles& files, X509* certificate, TlsUse use) {
  const bool server =
      use == TlsUse::kClient || X509_check_purpose(certificate, X509_PURPOSE_SSL_SERVER, 0) == 1;
  const bool client =
      use == TlsUse::kServer || X509_check_purpose(certificate, X509_PURPOSE_SSL_CLIENT, 0) == 1;
  if (server && client) return absl::OkStatus();
  return Bad(fmt::format(
      "the certificate {} is not for use as a TLS {}: make it with the extended key usage {}",
      files.cert, server ? "client" : "server",
      use == TlsUse::kNode ? "serverAuth,clientAuth" : (server ? "clientAuth" : "serverAuth")));
}

absl::Time ExpiryOf(const X509* certificate) {
  int days = 0;
  int seconds = 0;
  if (ASN1_TIME_diff(&days, &seconds, nullptr, X509_get0_notAfter(certificate)) != 1) {
    return absl::InfinitePast();
  }
  return absl::Now() + absl::Hours(24) * days + absl::Seconds(seconds);
}

}  // namespace

absl::StatusOr<TlsFacts> CheckTlsFiles(const TlsFiles& files, TlsUse use) {
  ECHOFS_ASSIGN_OR_RETURN(const std::vector<Certificate> authorities, ReadCertificates(files.ca));
  if (files.cert.empty()) return TlsFacts{};
  ECHOFS_ASSIGN_OR_RETURN(const std::vector<Certificate> chain, ReadCertificates(files.cert));
  ECHOFS_ASSIGN_OR_RETURN(const PrivateKey key, ReadKey(files.key));
  X509* const own = chain.front().get();
  const bool matches = X509_check_private_key(own, key.get()) == 1;
  ERR_clear_error();
  if (!matches) {
    return Bad(fmt::format("the private key {} does not belong to the certificate {}", files.key,
                           files.cert));
  }
  ECHOFS_RETURN_IF_ERROR(CheckPurpose(files, own, use));
  if (use != TlsUse::kClient) ECHOFS_RETURN_IF_ERROR(CheckIssuer(files, chain, authorities));
  return TlsFacts{.expires = ExpiryOf(own)};
}

std::string DescribeExpiry(const TlsFiles& files, const TlsFacts& facts, absl::Time now) {
  if (facts.expires > now + kCertificateExpiryNotice) return "";
  const std::string when =
      absl::FormatTime("%Y-%m-%d %H:%M UTC", facts.expires, absl::UTCTimeZone());
  return fmt::format("the certificate {} {} at {}: replace it, a restart is not needed", files.cert,
                     facts.expires <= now ? "is not valid any more, it ended" : "ends", when);
}

}  // namespace echofs
