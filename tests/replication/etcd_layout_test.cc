// What echofs finds below its key in etcd, and did not write itself.
#include "replication/etcd_layout.h"

#include <string>

#include "etcd/rpc.pb.h"
#include "tests/catch.h"

namespace echofs {
namespace {

etcdserverpb::RangeResponse ResponseWithRecord(const EtcdLayout& layout, const std::string& value) {
  etcdserverpb::RangeResponse response;
  mvccpb::KeyValue* const record = response.add_kvs();
  record->set_key(layout.record_key());
  record->set_value(value);
  record->set_mod_revision(7);
  return response;
}

TEST_CASE("etcd layout: the record says its format version, and reads back as it was") {
  const EtcdLayout layout("test");
  LeaseRecord record;
  record.term = {5};
  record.primary_id = "a";
  etcdserverpb::TxnRequest transaction;
  layout.PutRecord(record, &transaction);
  const std::string value = transaction.success(0).request_put().value();
  CHECK(value.find("\"format_version\":1") != std::string::npos);
  const absl::StatusOr<EtcdView> view = layout.Parse(ResponseWithRecord(layout, value));
  REQUIRE(view.ok());
  CHECK(view->state.record.term == Term{5});
  CHECK(view->state.record.primary_id == "a");
}

TEST_CASE("etcd layout: a record without a format version is of the first one") {
  const EtcdLayout layout("test");
  const absl::StatusOr<EtcdView> view =
      layout.Parse(ResponseWithRecord(layout, R"({"term": "3", "what_is_this": [1]})"));
  REQUIRE(view.ok());
  CHECK(view->state.record.term == Term{3});
}

TEST_CASE("etcd layout: the record of a newer echofs is refused") {
  const EtcdLayout layout("test");
  const absl::StatusOr<EtcdView> view =
      layout.Parse(ResponseWithRecord(layout, R"({"term": "3", "format_version": 2})"));
  REQUIRE(absl::IsInvalidArgument(view.status()));
  CHECK(std::string(view.status().message()).find("newer echofs") != std::string::npos);
}

}  // namespace
}  // namespace echofs
