// Real lease services for the tests, each in processes of its own, and gone with the object.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "replication/lease.h"
#include "tests/replication/temp_directory.h"

namespace echofs::test {

// A program that is killed at the latest with this object, or with the test.
class Process {
 public:
  // What it writes to stderr and stdout goes to `log`.
  Process(const std::vector<std::string>& arguments, const std::string& log);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void Kill();       // kill -9
  int Terminate();   // SIGTERM; its exit code
  int WaitForEnd();  // its exit code

 private:
  pid_t pid_;
};

// A port of 127.0.0.1 that was free a moment ago.
int FreePort();

// Waits until `condition` holds, for a generous while; fails the test otherwise.
void Await(const std::string& what, const std::function<bool()>& condition);

// Lease::SetInSync on the record as it is. The record must be readable.
absl::StatusOr<LeaseRecord> SetInSync(Lease& lease, Term term, const std::string& node_id,
                                      const std::vector<std::string>& in_sync);

class LeaseBackend {
 public:
  virtual ~LeaseBackend() = default;
  // A lease of cluster `key`, as a node's process has it.
  virtual std::unique_ptr<Lease> Connect(const std::string& key = "test") = 0;
  // kill -9, start again, and wait until it answers.
  virtual void Restart() = 0;
};

// "server": the lease server in this process; "process": `echofs lease-server`; "etcd": one etcd.
std::unique_ptr<LeaseBackend> StartBackend(const std::string& name);

// `echofs lease-server`.
class LeaseServerProcess final : public LeaseBackend {
 public:
  // In a directory of its own, or in `data_directory`.
  explicit LeaseServerProcess(const std::string& data_directory = "");
  std::unique_ptr<Lease> Connect(const std::string& key = "test") override;
  void Restart() override;

  void Start();
  Process& process() { return *process_; }
  std::string address() const;
  std::string log() const { return directory_.path() + "/log"; }

 private:
  void AwaitAnswer();

  const TempDirectory directory_;
  const std::string data_directory_;
  const int port_;
  std::unique_ptr<Process> process_;
};

// etcd with some members.
class EtcdCluster final : public LeaseBackend {
 public:
  explicit EtcdCluster(int members);
  std::unique_ptr<Lease> Connect(const std::string& key = "test") override;
  void Restart() override;  // all members

  void StartMember(int member);
  void KillMember(int member) { processes_[member].reset(); }
  // Of this member alone.
  std::unique_ptr<Lease> ConnectTo(int member, const std::string& key = "test");
  std::vector<std::string> endpoints() const;

 private:
  void AwaitAnswer();

  const TempDirectory directory_;
  std::vector<int> client_ports_;
  std::vector<int> peer_ports_;
  std::vector<std::unique_ptr<Process>> processes_;
};

}  // namespace echofs::test
