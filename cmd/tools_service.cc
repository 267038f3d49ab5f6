#include "cmd/tools_service.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cstring>

#include "cmd/admin_grpc.h"
#include "echofs/v1/tools.grpc.pb.h"
#include "replication/import_file.h"
#include "replication/limits.h"
#include "replication/status_macros.h"
#include "replication/wire.h"

namespace echofs::cmd {
namespace {

absl::Status Gone() { return absl::CancelledError("the client has gone"); }

// Sends a database to the client.
class ClientSink final : public DatabaseSink {
 public:
  ClientSink(grpc::ServerContext* context, grpc::ServerWriter<v1::DatabasePiece>* writer)
      : context_(context), writer_(writer) {}

  absl::Status Begin(const DatabasePosition& position) override {
    ToMessage(position, piece_.mutable_begin());
    return Send();
  }
  absl::Status Copied(PageNumber first, ByteView pages) override {
    piece_.mutable_copied()->set_first(first);
    piece_.mutable_copied()->set_data(pages.data(), pages.size());
    return Send();
  }
  absl::Status Changed(PageNumber number, ByteView page) override {
    piece_.mutable_changed()->set_first(number);
    piece_.mutable_changed()->set_data(page.data(), page.size());
    return Send();
  }
  absl::Status Resize(PageNumber page_count) override {
    piece_.mutable_resized()->set_page_count(page_count);
    return Send();
  }
  absl::Status End(const DatabasePosition& position) override {
    ToMessage(position, piece_.mutable_end());
    return Send();
  }
  bool cancelled() const override { return context_->IsCancelled(); }

 private:
  absl::Status Send() { return writer_->Write(piece_) ? absl::OkStatus() : Gone(); }

  grpc::ServerContext* const context_;
  grpc::ServerWriter<v1::DatabasePiece>* const writer_;
  v1::DatabasePiece piece_;
};

// The content of a file that the client sends.
class ClientFile final : public ByteSource {
 public:
  explicit ClientFile(grpc::ServerReader<v1::ImportDatabaseRequest>* reader) : reader_(reader) {}

  absl::StatusOr<std::size_t> Read(MutableByteView out) override {
    while (at_ == message_.data().size()) {
      if (!reader_->Read(&message_)) return 0;
      if (message_.has_header() || message_.data().size() > kImportChunkSizeMax) {
        return absl::InvalidArgumentError("a piece of a file was expected");
      }
      at_ = 0;
    }
    const std::size_t n = std::min(out.size(), message_.data().size() - at_);
    std::memcpy(out.data(), message_.data().data() + at_, n);
    at_ += n;
    return n;
  }

 private:
  grpc::ServerReader<v1::ImportDatabaseRequest>* const reader_;
  v1::ImportDatabaseRequest message_;
  std::size_t at_ = 0;
};

// The client's side as a primary sees it, for what is checked in the same way.
class ClientImport final : public ImportServerStream {
 public:
  ClientImport(grpc::ServerContext* context, grpc::ServerReader<v1::ImportDatabaseRequest>* reader)
      : context_(context), reader_(reader) {}
  bool Read(v1::ImportDatabaseRequest* request) override { return reader_->Read(request); }
  bool cancelled() const override { return context_->IsCancelled(); }

 private:
  grpc::ServerContext* const context_;
  grpc::ServerReader<v1::ImportDatabaseRequest>* const reader_;
};

void Fill(const NodeComparison& from, v1::NodeComparison* to) {
  to->set_node(from.node);
  to->set_address(from.address);
  to->set_error(from.error);
  to->set_database(from.database);
  to->set_txid(from.txid.value);
  to->set_digest(from.digest);
  to->set_expected_digest(from.expected_digest);
  to->set_state(from.state);
}

class Service final : public v1::DatabaseTools::Service {
 public:
  explicit Service(ToolsSource* source) : source_(source) {}

  grpc::Status GetMountPoint(grpc::ServerContext*, const v1::GetMountPointRequest*,
                             v1::GetMountPointResponse* response) override {
    response->set_mount_point(source_->MountPoint());
    return grpc::Status::OK;
  }

  grpc::Status ExportDatabase(grpc::ServerContext* context,
                              const v1::ExportDatabaseRequest* request,
                              grpc::ServerWriter<v1::DatabasePiece>* writer) override {
    ClientSink sink(context, writer);
    return ToAdminGrpc(source_->Export(request->database(), sink));
  }

  grpc::Status ExportChangeSet(grpc::ServerContext*, const v1::ExportChangeSetRequest* request,
                               grpc::ServerWriter<v1::LtxPiece>* writer) override {
    v1::LtxPiece piece;
    return ToAdminGrpc(source_->ExportChangeSet(request->database(), {request->txid()},
                                                [writer, &piece](ByteView bytes) {
                                                  piece.set_data(bytes.data(), bytes.size());
                                                  return writer->Write(piece);
                                                }));
  }

  grpc::Status CompareNodes(grpc::ServerContext*, const v1::CompareNodesRequest* request,
                            grpc::ServerWriter<v1::NodeComparison>* writer) override {
    return ToAdminGrpc(
        source_->CompareNodes(request->database(), [writer](const NodeComparison& comparison) {
          v1::NodeComparison message;
          Fill(comparison, &message);
          return writer->Write(message);
        }));
  }

  grpc::Status RefetchDatabase(grpc::ServerContext*, const v1::RefetchDatabaseRequest* request,
                               v1::RefetchDatabaseResponse*) override {
    return ToAdminGrpc(source_->Refetch(request->database()));
  }

  grpc::Status ForwardImport(grpc::ServerContext* context,
                             grpc::ServerReader<v1::ImportDatabaseRequest>* reader,
                             v1::ImportDatabaseResponse* response) override {
    return ToAdminGrpc(Forward(context, reader, response));
  }

 private:
  absl::Status Forward(grpc::ServerContext* context,
                       grpc::ServerReader<v1::ImportDatabaseRequest>* reader,
                       v1::ImportDatabaseResponse* response) {
    ClientImport stream(context, reader);
    ECHOFS_ASSIGN_OR_RETURN(const ImportHeader header, ReceiveImportHeader(stream));
    ClientFile file(reader);
    ECHOFS_ASSIGN_OR_RETURN(
        const DatabasePosition position,
        source_->ForwardImport(header.database, header.size, header.replace, file,
                               [context] { return context->IsCancelled(); }));
    ToMessage(position, response->mutable_position());
    return absl::OkStatus();
  }

  ToolsSource* const source_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeToolsService(ToolsSource* source) {
  return std::make_unique<Service>(source);
}

}  // namespace echofs::cmd
