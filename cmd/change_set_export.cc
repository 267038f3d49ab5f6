#include "cmd/change_set_export.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <memory>
#include <optional>

#include "cmd/output_file.h"
#include "replication/ltx.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

class FileSource final : public ByteSource {
 public:
  explicit FileSource(const File* file) : file_(file) {}
  absl::StatusOr<std::size_t> Read(MutableByteView out) override {
    ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, file_->ReadAt(offset_, out));
    offset_ += n;
    return n;
  }

 private:
  const File* const file_;
  std::uint64_t offset_ = 0;
};

absl::Status Check(const File& file, Txid txid) {
  FileSource source(&file);
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<LtxDecoder> decoder, LtxDecoder::Start(&source));
  if (decoder->header().txid != txid) {
    return absl::DataLossError(
        fmt::format("the node sent change set {:016x}", decoder->header().txid.value));
  }
  std::optional<LtxDecoder::Page> page;
  do {
    ECHOFS_ASSIGN_OR_RETURN(page, decoder->Next());
  } while (page);
  return absl::OkStatus();
}

bool IsDirectory(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

}  // namespace

absl::StatusOr<std::string> ExportChangeSet(ToolsClient* client, const std::string& database,
                                            Txid txid, const std::string& to) {
  const std::string path = IsDirectory(to) ? to + "/" + LtxFileName(txid, txid) : to;
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<OutputFile> output,
                          OutputFile::Create(path, false));
  std::uint64_t size = 0;
  ECHOFS_RETURN_IF_ERROR(client->ExportChangeSet(database, txid, [&](ByteView bytes) {
    const std::uint64_t offset = size;
    size += bytes.size();
    return output->file().WriteAt(offset, bytes);
  }));
  ECHOFS_RETURN_IF_ERROR(Check(output->file(), txid));
  ECHOFS_RETURN_IF_ERROR(output->Finish());
  return path;
}

}  // namespace echofs::cmd
