#include "tests/fs/replica_fixture.h"

#include <fstream>

#include "tests/catch.h"

namespace echofs::fs {

ReplicaFixture::ReplicaFixture(const std::string& setup, ReplicaDatabaseOptions o)
    : options(o),
      primary(std::make_unique<PrimaryDatabase>(directory / "primary.db", setup)),
      path(directory / "replica.db") {
  OpenReplica();
}

void ReplicaFixture::OpenReplica(const DatabasePosition& position) {
  replica.reset();
  int pid = 0;
  auto opened = ReplicaDatabase::Open(std::make_unique<PlainReplicaFiles>(path, &cache), &cache,
                                      position, options, &pid);
  INFO(opened.status().ToString());
  REQUIRE(opened.ok());
  replica = *std::move(opened);
}

absl::StatusOr<ApplyOutcome> ReplicaFixture::Try(const Change& change) {
  ViewSource payload(change.payload);
  return replica->Apply(change.entry, payload);
}

void ReplicaFixture::Apply(const Change& change) {
  auto outcome = Try(change);
  while (outcome.ok() && outcome->kind == ApplyOutcome::Kind::kLater) outcome = Try(change);
  if (!outcome.ok()) FAIL(outcome.status().ToString());
  if (outcome->kind != ApplyOutcome::Kind::kApplied) {
    FAIL("blocked by " << outcome->blocked_by_pid);
  }
  REQUIRE(replica->EndTurn().ok());
}

void ReplicaFixture::CheckSame() {
  REQUIRE(replica->EndTurn().ok());
  CHECK(replica->position() == primary->position());
  CHECK(DigestOf(primary->image(), primary->page_size()) == primary->position().digest);
  std::vector<std::uint8_t> pages;
  while (pages.size() < primary->image().size()) {
    const auto next = static_cast<PageNumber>(1 + pages.size() / primary->page_size());
    const auto run = replica->ReadPages(next, 1000);
    REQUIRE(run.ok());
    REQUIRE(!run->pages.empty());
    CHECK(run->position == primary->position());
    pages.insert(pages.end(), run->pages.begin(), run->pages.end());
  }
  CHECK(pages == primary->image());
  SqliteProcess process(path, 2000);
  CHECK(process.Run("PRAGMA integrity_check") == "ok");
  process.Quit();
}

std::string ReplicaFixture::WriteImage() {
  const std::string copy = directory / "copy.db";
  std::ofstream out(copy, std::ios::binary);
  out.write(reinterpret_cast<const char*>(primary->image().data()), primary->image().size());
  return copy;
}

}  // namespace echofs::fs
