#include "replication/commit_acks.h"

#include <atomic>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/catch.h"

namespace echofs {
namespace {

// What became of one wait.
class Outcome {
 public:
  CommitAcks::Done Done() {
    return [this](const absl::Status& status) {
      status_ = status;
      done_.Notify();
    };
  }
  bool done() const { return done_.HasBeenNotified(); }
  const absl::Status& Wait() {
    REQUIRE(done_.WaitForNotificationWithTimeout(absl::Minutes(3)));
    return status_;
  }

 private:
  absl::Notification done_;
  absl::Status status_;
};

}  // namespace

TEST_CASE("D1: a commit waits until its entry is acknowledged, and no longer") {
  CommitAcks acks(absl::Hours(1));
  acks.Open();
  Outcome fifth;
  Outcome seventh;
  acks.Wait({7}, seventh.Done());
  acks.Wait({5}, fifth.Done());
  CHECK(acks.waiting());
  acks.Advance({4});
  CHECK_FALSE(fifth.done());
  acks.Advance({6});
  CHECK(fifth.Wait().ok());
  CHECK_FALSE(seventh.done());
  acks.Advance({7});
  CHECK(seventh.Wait().ok());
  CHECK_FALSE(acks.waiting());
  Outcome again;
  acks.Wait({6}, again.Done());
  CHECK(again.done());
  CHECK(again.Wait().ok());
}

TEST_CASE("D3: a commit that nobody acknowledges fails after the timeout, and the next ones work") {
  CommitAcks acks(absl::Milliseconds(50));
  acks.Open();
  Outcome outcome;
  acks.Wait({1}, outcome.Done());
  CHECK(absl::IsUnavailable(outcome.Wait()));
  Outcome next;
  acks.Advance({2});
  acks.Wait({2}, next.Done());
  CHECK(next.Wait().ok());
}

TEST_CASE("R2: when the tenure ends what waits fails, and what comes later too") {
  CommitAcks acks(absl::Hours(1));
  Outcome before;
  acks.Wait({1}, before.Done());
  CHECK(absl::IsUnavailable(before.Wait()));
  acks.Open();
  Outcome during;
  acks.Wait({1}, during.Done());
  CHECK_FALSE(during.done());
  acks.Close("it was handed off");
  CHECK(absl::IsUnavailable(during.Wait()));
  CHECK(std::string(during.Wait().message()).find("it was handed off") != std::string::npos);
  Outcome after;
  acks.Wait({1}, after.Done());
  CHECK(absl::IsUnavailable(after.Wait()));
  // What was acknowledged in an earlier tenure says nothing about this one.
  acks.Open();
  acks.Advance({9});
  acks.Close("again");
  acks.Open();
  Outcome anew;
  acks.Wait({9}, anew.Done());
  CHECK_FALSE(anew.done());
  acks.Advance({9});
  CHECK(anew.Wait().ok());
}

TEST_CASE("D1: a thousand commits wait without a thread each") {
  CommitAcks acks(absl::Hours(1));
  acks.Open();
  std::vector<Outcome> outcomes(1000);
  for (std::size_t i = 0; i < outcomes.size(); ++i) acks.Wait({i + 1}, outcomes[i].Done());
  acks.Advance({500});
  CHECK(outcomes[499].Wait().ok());
  CHECK_FALSE(outcomes[500].done());
  acks.Advance({1000});
  CHECK(outcomes[999].Wait().ok());
}

}  // namespace echofs
