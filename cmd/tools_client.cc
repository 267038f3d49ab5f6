#include "cmd/tools_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <limits>
#include <utility>

#include "cmd/admin_grpc.h"
#include "echofs/v1/tools.grpc.pb.h"
#include "replication/digest.h"
#include "replication/import_file.h"
#include "replication/status_macros.h"
#include "replication/wire.h"

namespace echofs::cmd {
namespace {

constexpr std::chrono::seconds kAnswerLimit{10};
// Other nodes are asked, some of which may not answer.
constexpr std::chrono::minutes kCompareLimit{10};

void SetLimit(std::chrono::seconds limit, grpc::ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() + limit);
}

// One database as it comes.
class Receiver {
 public:
  explicit Receiver(DatabaseSink* sink) : sink_(sink) {}

  absl::Status Take(const v1::DatabasePiece& piece) {
    if (piece.has_begin() == begun_ || ended_) return Bad();
    switch (piece.piece_case()) {
      case v1::DatabasePiece::kBegin: {
        ECHOFS_ASSIGN_OR_RETURN(begin_, FromMessage(piece.begin()));
        if (begin_.dropped) return Bad();
        begun_ = true;
        return sink_->Begin(begin_);
      }
      case v1::DatabasePiece::kCopied:
        ECHOFS_RETURN_IF_ERROR(Check(piece.copied()));
        return sink_->Copied(piece.copied().first(), AsBytes(piece.copied().data()));
      case v1::DatabasePiece::kChanged:
        ECHOFS_RETURN_IF_ERROR(Check(piece.changed()));
        return sink_->Changed(piece.changed().first(), AsBytes(piece.changed().data()));
      case v1::DatabasePiece::kResized:
        return sink_->Resize(piece.resized().page_count());
      case v1::DatabasePiece::kEnd: {
        ECHOFS_ASSIGN_OR_RETURN(const DatabasePosition end, FromMessage(piece.end()));
        if (end.dropped || end.page_size != begin_.page_size) return Bad();
        ended_ = true;
        return sink_->End(end);
      }
      case v1::DatabasePiece::PIECE_NOT_SET:
        break;
    }
    return Bad();
  }

  absl::Status Finish() const { return ended_ ? absl::OkStatus() : Bad(); }

 private:
  static absl::Status Bad() {
    return absl::DataLossError("the node sent pieces that make no database");
  }

  absl::Status Check(const v1::DatabasePiece::Pages& pages) const {
    const std::uint64_t count = pages.data().size() / begin_.page_size;
    const bool whole = count > 0 && pages.data().size() % begin_.page_size == 0;
    const bool fits =
        pages.first() > 0 && pages.first() + count - 1 < std::numeric_limits<PageNumber>::max();
    return whole && fits ? absl::OkStatus() : Bad();
  }

  DatabaseSink* const sink_;
  DatabasePosition begin_;
  bool begun_ = false;
  bool ended_ = false;
};

class ForwardCall final : public ImportCall {
 public:
  explicit ForwardCall(v1::DatabaseTools::Stub* stub)
      : writer_(stub->ForwardImport(&context_, &response_)) {}
  ~ForwardCall() override {
    if (finished_) return;
    context_.TryCancel();
    writer_->Finish();
  }

  bool Write(const v1::ImportDatabaseRequest& request) override { return writer_->Write(request); }
  void Cancel() override { context_.TryCancel(); }
  absl::Status Finish(v1::ImportDatabaseResponse* response) override {
    finished_ = true;
    writer_->WritesDone();
    absl::Status status = FromAdminGrpc(writer_->Finish());
    *response = response_;
    return status;
  }

 private:
  grpc::ClientContext context_;
  v1::ImportDatabaseResponse response_;
  const std::unique_ptr<grpc::ClientWriter<v1::ImportDatabaseRequest>> writer_;
  bool finished_ = false;
};

}  // namespace

struct ToolsClient::State {
  std::unique_ptr<v1::DatabaseTools::Stub> stub;
};

absl::StatusOr<std::unique_ptr<ToolsClient>> ToolsClient::Connect(const std::string& data_dir) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, ConnectToNode(data_dir));
  auto state = std::make_unique<State>();
  state->stub = v1::DatabaseTools::NewStub(channel);
  return std::unique_ptr<ToolsClient>(new ToolsClient(std::move(state)));
}

ToolsClient::ToolsClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
ToolsClient::~ToolsClient() = default;

absl::StatusOr<std::string> ToolsClient::MountPoint() {
  grpc::ClientContext context;
  SetLimit(kAnswerLimit, &context);
  v1::GetMountPointResponse response;
  ECHOFS_RETURN_IF_ERROR(FromAdminGrpc(state_->stub->GetMountPoint(&context, {}, &response)));
  return response.mount_point();
}

absl::Status ToolsClient::Export(const std::string& database, DatabaseSink& sink) {
  grpc::ClientContext context;  // without a limit: its progress shows
  v1::ExportDatabaseRequest request;
  request.set_database(database);
  const auto reader = state_->stub->ExportDatabase(&context, request);
  Receiver receiver(&sink);
  v1::DatabasePiece piece;
  absl::Status taken;
  while (taken.ok() && reader->Read(&piece)) taken = receiver.Take(piece);
  if (!taken.ok()) context.TryCancel();
  const absl::Status finished = FromAdminGrpc(reader->Finish());
  ECHOFS_RETURN_IF_ERROR(taken);
  ECHOFS_RETURN_IF_ERROR(finished);
  return receiver.Finish();
}

absl::Status ToolsClient::ExportChangeSet(const std::string& database, Txid txid,
                                          const std::function<absl::Status(ByteView)>& write) {
  grpc::ClientContext context;  // without a limit: the log may be searched from its begin
  v1::ExportChangeSetRequest request;
  request.set_database(database);
  request.set_txid(txid.value);
  const auto reader = state_->stub->ExportChangeSet(&context, request);
  v1::LtxPiece piece;
  absl::Status written;
  while (written.ok() && reader->Read(&piece)) written = write(AsBytes(piece.data()));
  if (!written.ok()) context.TryCancel();
  const absl::Status finished = FromAdminGrpc(reader->Finish());
  return written.ok() ? finished : written;
}

absl::Status ToolsClient::CompareNodes(const std::string& database,
                                       const std::function<void(const NodeComparison&)>& visit) {
  grpc::ClientContext context;
  SetLimit(kCompareLimit, &context);
  v1::CompareNodesRequest request;
  request.set_database(database);
  const auto reader = state_->stub->CompareNodes(&context, request);
  v1::NodeComparison from;
  while (reader->Read(&from)) {
    visit({.node = from.node(),
           .address = from.address(),
           .error = from.error(),
           .database = from.database(),
           .txid = {from.txid()},
           .digest = from.digest(),
           .expected_digest = from.expected_digest(),
           .state = from.state()});
  }
  return FromAdminGrpc(reader->Finish());
}

absl::Status ToolsClient::Refetch(const std::string& database) {
  grpc::ClientContext context;
  SetLimit(kAnswerLimit, &context);
  v1::RefetchDatabaseRequest request;
  request.set_database(database);
  v1::RefetchDatabaseResponse response;
  return FromAdminGrpc(state_->stub->RefetchDatabase(&context, request, &response));
}

absl::StatusOr<DatabasePosition> ToolsClient::ForwardImport(const std::string& database,
                                                            std::uint64_t size, bool replace,
                                                            ByteSource& file) {
  ForwardCall call(state_->stub.get());
  return SendImport({"", database, size, replace}, file, call);
}

}  // namespace echofs::cmd
