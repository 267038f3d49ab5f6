#include "replication/tls_watch.h"

#include <spdlog/spdlog.h>

#include <array>
#include <optional>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "replication/credential_file.h"
#include "replication/limits.h"

namespace echofs {
namespace {

using Stamps = std::array<std::optional<FileStamp>, 3>;

Stamps StampsOf(const TlsFiles& files) {
  return {StampOf(files.cert), StampOf(files.key), StampOf(files.ca)};
}

}  // namespace

TlsWatch::TlsWatch(TlsFiles files, TlsUse use, const TlsFacts& facts)
    : files_(std::move(files)), use_(use), thread_([this, facts] { Loop(facts); }) {}

TlsWatch::~TlsWatch() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

bool TlsWatch::Wait() {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&stopping_), kCredentialLookInterval);
}

void TlsWatch::Loop(TlsFacts facts) {
  Stamps taken = StampsOf(files_);
  Stamps before = taken;
  absl::Time next_notice = absl::InfinitePast();
  do {
    const Stamps now = StampsOf(files_);
    // Two looks that find the same: the files are not in the middle of being replaced.
    if (now == before && now != taken) {
      taken = now;
      next_notice = absl::InfinitePast();
      if (const absl::StatusOr<TlsFacts> checked = CheckTlsFiles(files_, use_); checked.ok()) {
        facts = *checked;
        spdlog::info("{}, {} and {} were replaced: new connections use them", files_.cert,
                     files_.key, files_.ca);
      } else {
        spdlog::error("the files of TLS were replaced, and new connections may fail: {}",
                      std::string(checked.status().message()));
      }
    }
    before = now;
    if (absl::Now() >= next_notice) {
      next_notice = absl::Now() + kCertificateExpiryInterval;
      const std::string expiry = DescribeExpiry(files_, facts, absl::Now());
      if (!expiry.empty()) spdlog::warn("{}", expiry);
    }
  } while (!Wait());
}

}  // namespace echofs
