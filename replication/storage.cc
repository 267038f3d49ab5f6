#include "replication/storage.h"

#include <errno.h>
#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <string>
#include <system_error>

#include "absl/strings/cord.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

constexpr char kErrnoUrl[] = "echofs/errno";

absl::StatusCode CodeOf(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return absl::StatusCode::kResourceExhausted;
    case ENOENT:
      return absl::StatusCode::kNotFound;
    case EEXIST:
      return absl::StatusCode::kAlreadyExists;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case ENOTDIR:
    case EISDIR:
    case ENOTEMPTY:
      return absl::StatusCode::kFailedPrecondition;
    case EINVAL:
    case ENAMETOOLONG:
      return absl::StatusCode::kInvalidArgument;
    default:
      return absl::StatusCode::kInternal;
  }
}

int ErrnoOfCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kResourceExhausted:
      return ENOSPC;
    case absl::StatusCode::kNotFound:
      return ENOENT;
    case absl::StatusCode::kAlreadyExists:
      return EEXIST;
    case absl::StatusCode::kPermissionDenied:
      return EACCES;
    case absl::StatusCode::kInvalidArgument:
      return EINVAL;
    case absl::StatusCode::kUnimplemented:
      return ENOTSUP;
    default:
      return EIO;
  }
}

}  // namespace

absl::Status StatusFromErrno(int error, std::string_view what) {
  absl::Status status(CodeOf(error),
                      fmt::format("{}: {}", what, std::generic_category().message(error)));
  status.SetPayload(kErrnoUrl, absl::Cord(std::to_string(error)));
  return status;
}

int ErrnoOf(const absl::Status& status) {
  if (const auto payload = status.GetPayload(kErrnoUrl); payload.has_value()) {
    const std::string text(*payload);
    int error = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), error);
    if (result.ec == std::errc() && error > 0) return error;
  }
  return ErrnoOfCode(status.code());
}

absl::Status ReadZeroFilled(const File& file, std::uint64_t offset, MutableByteView out) {
  ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, file.ReadAt(offset, out));
  if (n < out.size()) std::memset(out.data() + n, 0, out.size() - n);
  return absl::OkStatus();
}

}  // namespace echofs
