// The files of a TLS identity: certificate, private key, and the authority that others must have their certificates from.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace echofs {

// Paths of PEM files; all empty: no TLS.
struct TlsFiles {
  std::string cert;  // this side's certificate, and those between it and its authority
  std::string key;   // its private key, without a password
  std::string ca;    // the authorities that the other side's certificate may be from

  bool empty() const { return cert.empty() && key.empty() && ca.empty(); }
  friend bool operator==(const TlsFiles&, const TlsFiles&) = default;
};

// On which side of a connection the certificate is shown.
enum class TlsUse {
  kNode,    // on both: `cert` must be from `ca` itself
  kServer,  // likewise, on the server's side alone
  kClient,  // on the client's side, to a server that may know other authorities; cert and key may be empty
};

struct TlsFacts {
  absl::Time expires = absl::InfiniteFuture();  // of the own certificate
};

// Reads the files and looks whether they fit together, as TLS will want them but for the time at which they are valid.
// InvalidArgument or FailedPrecondition names the file and says what to do. Thread-safe.
absl::StatusOr<TlsFacts> CheckTlsFiles(const TlsFiles& files, TlsUse use);

// What is to be said about a certificate that is not valid any more, or not for long; empty when all is well.
std::string DescribeExpiry(const TlsFiles& files, const TlsFacts& facts, absl::Time now);

}  // namespace echofs
