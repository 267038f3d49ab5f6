// Looks after certificates that are replaced while they are in use.
#pragma once

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "replication/tls_files.h"

namespace echofs {

// A thread that says in the log when the files have been replaced, by what, and when the certificate ends. gRPC takes
// new files by itself (FileWatcherCertificateProvider), also bad ones: this is who tells.
class TlsWatch {
 public:
  // `facts`: of the files as they are now.
  TlsWatch(TlsFiles files, TlsUse use, const TlsFacts& facts);
  ~TlsWatch();

 private:
  void Loop(TlsFacts facts) ABSL_LOCKS_EXCLUDED(mutex_);
  // True when it is time to end.
  bool Wait() ABSL_LOCKS_EXCLUDED(mutex_);

  const TlsFiles files_;
  const TlsUse use_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace echofs
