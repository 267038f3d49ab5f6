#include "replication/bytes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace echofs {

absl::Status VectorSink::Write(ByteView bytes) {
  out_->insert(out_->end(), bytes.begin(), bytes.end());
  return absl::OkStatus();
}

absl::StatusOr<std::size_t> ViewSource::Read(MutableByteView out) {
  const std::size_t n = std::min(out.size(), rest_.size());
  if (n != 0) std::memcpy(out.data(), rest_.data(), n);
  rest_ = rest_.subspan(n);
  return n;
}

absl::Status ReadExactly(ByteSource& source, MutableByteView out) {
  std::size_t have = 0;
  while (have < out.size()) {
    absl::StatusOr<std::size_t> n = source.Read(out.subspan(have));
    if (!n.ok()) return n.status();
    if (*n == 0) {
      return absl::DataLossError(fmt::format("data ends after {} of {} bytes", have, out.size()));
    }
    have += *n;
  }
  return absl::OkStatus();
}

}  // namespace echofs
