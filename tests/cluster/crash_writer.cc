// Kills writers of SQLite databases with SIGKILL, and looks with connections that stay at what is left.
//
//   crash_writer steps MODE SYNCHRONOUS ROWS AFTER PRIMARY REPLICA DB...
//     One transaction over the databases DB, by a writer that is killed after its first operation on a file, the
//     next one after its second, and so on until one comes to its end. MODE: journal mode, or new-wal, in which
//     each writer's transaction is the first one of a WAL; ROWS in each database;
//     AFTER: SQL for behind COMMIT. PRIMARY, REPLICA: directories. Prints a line for each: the operation, and
//     whether the transaction is there ("kept", "gone") and whether its COMMIT had returned.
//   crash_writer random MODE ROUNDS SEED PRIMARY REPLICA DB
//     A writer is killed at a random moment, ROUNDS times, while another one that is not killed goes on.
//
// Ends with 1 and a message when a connection gets an error, a transaction is there in part, one whose COMMIT
// returned is missing, or the replica does not get what the primary has.
#include <signal.h>
#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "crash_vfs.h"

namespace {

constexpr int kBusyMs = 30000;
constexpr int kConvergeMs = 30000;

struct Shared {
  CrashPoint point;
  std::atomic<bool> began{false};  // the writer is in its first transaction
  std::atomic<long> committed{
      0};  // by the writer that is killed: its transactions are numbered from 1
  std::atomic<long> bystander{0};  // by the one that is not
};

Shared* shared = nullptr;

[[noreturn]] void Fail(const std::string& what) {
  std::printf("FAILED: %s\n", what.c_str());
  std::fflush(stdout);
  std::_Exit(1);
}

class Connection {
 public:
  Connection(const std::string& directory, const std::vector<std::string>& names) {
    if (sqlite3_open((directory + "/" + names[0]).c_str(), &db_) != SQLITE_OK) Fail("open");
    sqlite3_busy_timeout(db_, kBusyMs);
    for (std::size_t i = 1; i < names.size(); ++i) {
      Run("attach '" + directory + "/" + names[i] + "' as d" + std::to_string(i));
    }
    schemas_.push_back("main");
    for (std::size_t i = 1; i < names.size(); ++i) schemas_.push_back("d" + std::to_string(i));
  }
  // With the journal mode, which a connection keeps for itself unless it is WAL.
  Connection(const std::string& directory, const std::vector<std::string>& names,
             const std::string& mode)
      : Connection(directory, names) {
    RunInAll("pragma $.journal_mode=" + mode);
  }
  ~Connection() { sqlite3_close(db_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const std::vector<std::string>& schemas() const { return schemas_; }

  void Run(const std::string& sql) { Ask(sql); }
  void RunInAll(const std::string& sql) {  // $ stands for the database
    for (const std::string& schema : schemas_) Run(With(sql, schema));
  }
  // First column of the first row, as a number.
  long Ask(const std::string& sql) {
    long answer = 0;
    char* error = nullptr;
    const int rc = sqlite3_exec(
        db_, sql.c_str(),
        [](void* out, int, char** values, char**) {
          if (values[0] != nullptr) *static_cast<long*>(out) = std::atol(values[0]);
          return 0;
        },
        &answer, &error);
    if (rc != SQLITE_OK) {
      Fail(std::string(error ? error : "?") + " (" + std::to_string(sqlite3_extended_errcode(db_)) +
           ") in: " + sql);
    }
    return answer;
  }
  static std::string With(std::string sql, const std::string& schema) {
    for (std::size_t at = 0; (at = sql.find('$', at)) != std::string::npos;) {
      sql.replace(at, 1, schema);
    }
    return sql;
  }

 private:
  sqlite3* db_ = nullptr;
  std::vector<std::string> schemas_;
};

std::string Insert(long round, long rows, int size) {
  return "with recursive c(i) as (select 1 union all select i+1 from c where i<" +
         std::to_string(rows) + ") insert into $.t(round, v) select " + std::to_string(round) +
         ", randomblob(" + std::to_string(size) + ") from c";
}

// A number that differs when the tables differ, in all likelihood.
const char kContent[] = "select count(*)+1000*total(id)+7*total(round)+total(length(v)) from $.t";

// Until the replica's databases have what the primary's have.
void AwaitReplica(Connection& primary, Connection& replica) {
  for (const std::string& schema : primary.schemas()) {
    const std::string sql = Connection::With(kContent, schema);
    const long expected = primary.Ask(sql);
    int waited = 0;
    for (; replica.Ask(sql) != expected; ++waited) {
      if (waited == kConvergeMs) Fail("the replica's " + schema + " does not become equal");
      usleep(1000);
    }
  }
}

template <class Body>
pid_t Fork(Body body) {
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) std::_Exit(1);
  body();
  std::_Exit(0);
}

bool WasKilled(pid_t pid) {
  int status = 0;
  waitpid(pid, &status, 0);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return true;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) Fail("a writer ended with an error");
  return false;
}

// A process that has no connection and starts the writers, so that they inherit no descriptors of SQLite's.
class Nursery {
 public:
  // `raise` starts a writer and returns, when it is gone, whether it was killed.
  template <class Raise>
  explicit Nursery(Raise raise) {
    int ask[2];
    int answer[2];
    if (pipe(ask) != 0 || pipe(answer) != 0) Fail("pipe");
    Fork([&] {
      close(ask[1]);
      for (int number; read(ask[0], &number, sizeof(number)) == sizeof(number);) {
        const bool killed = raise(number);
        if (write(answer[1], &killed, sizeof(killed)) != sizeof(killed)) return;
      }
    });
    close(ask[0]);
    close(answer[1]);
    ask_ = ask[1];
    answer_ = answer[0];
  }

  bool Raise(int number) {
    bool killed = false;
    if (write(ask_, &number, sizeof(number)) != sizeof(number) ||
        read(answer_, &killed, sizeof(killed)) != sizeof(killed)) {
      Fail("a writer failed");
    }
    return killed;
  }

 private:
  int ask_ = -1;
  int answer_ = -1;
};

struct Steps {
  std::string mode;
  bool new_wal;
  std::string synchronous;
  long rows;
  std::string after, primary, replica;
  std::vector<std::string> names;
};

void StepsWriter(const Steps& job, int round, int steps) {
  RegisterCrashVfs(&shared->point);
  Connection connection(job.primary, job.names, job.mode);
  connection.RunInAll("pragma $.synchronous=" + job.synchronous);
  connection.RunInAll("pragma $.cache_size=5");
  connection.Run("pragma wal_autocheckpoint=0");  // a new start of the WAL would be more operations
  connection.RunInAll("select count(*) from $.t");
  shared->point.steps_left = steps;
  connection.Run("begin immediate");
  connection.RunInAll(
      Insert(round, job.rows, job.rows == 1 ? 50 : 700));  // a row alone is one page
  if (job.rows > 1) connection.RunInAll("update $.t set v=randomblob(3000) where id=2");
  connection.Run("commit");
  shared->committed = round;
  if (!job.after.empty()) connection.Run(job.after);
  shared->point.steps_left = -1;
}

// The same tables before each transaction, so that each makes the same operations.
void Reset(Connection& connection) {
  connection.Run("begin immediate");
  connection.RunInAll("delete from $.t where round<>0");
  connection.RunInAll("insert into $.b(v) values(randomblob(50))");
  connection.RunInAll("delete from $.b where id<(select max(id) from $.b)-5");
  connection.Run("commit");
}

int RunSteps(const Steps& job) {
  Nursery nursery(
      [&](int round) { return WasKilled(Fork([&] { StepsWriter(job, round, round); })); });
  const pid_t reader = Fork([&] {
    // A snapshot that stays. In rollback modes a reader would change what the writer does, and when.
    if (job.mode != "wal" || job.new_wal) return;
    Connection connection(job.primary, job.names);
    while (true) {
      connection.Run("begin");
      const long before = connection.Ask("select count(*) from t");
      usleep(20000);
      if (connection.Ask("select count(*) from t") != before) Fail("a snapshot changed");
      connection.Run("commit");
      usleep(1000);
    }
  });
  auto connection = std::make_unique<Connection>(job.primary, job.names, job.mode);
  Connection replica(job.replica, job.names);
  connection->RunInAll(Insert(0, 5, 3000));
  connection->RunInAll(Insert(-1, job.rows, 700));
  Reset(*connection);
  for (int round = 1;; ++round) {
    if (job.new_wal) {
      connection.reset();  // the last one removes the WAL
      connection = std::make_unique<Connection>(job.primary, job.names, job.mode);
      connection->RunInAll("select count(*) from $.t");
    }
    Connection& primary = *connection;
    primary.Run("pragma wal_autocheckpoint=0");
    const bool killed = nursery.Raise(round);
    const bool returned = shared->committed == round;
    const std::string count = "select count(*) from $.t where round=" + std::to_string(round);
    long in_databases = 0;
    for (const std::string& schema : primary.schemas()) {
      const long rows = primary.Ask(Connection::With(count, schema));
      if (rows != 0 && rows != job.rows) Fail("a transaction is there in part");
      if (rows != 0) ++in_databases;
    }
    const auto all = static_cast<long>(primary.schemas().size());
    if (returned && in_databases != all) Fail("a transaction whose COMMIT returned is missing");
    // Across databases a transaction is whole with rollback journals only.
    if (job.mode != "wal" && in_databases != 0 && in_databases != all) {
      Fail("a transaction is in some databases only");
    }
    std::printf("%d after %s: %s, COMMIT %s\n", round, killed ? shared->point.last : "nothing",
                in_databases == 0 ? "gone" : "kept", returned ? "returned" : "did not return");
    AwaitReplica(primary, replica);
    Reset(primary);
    AwaitReplica(primary, replica);
    if (!killed) break;
  }
  kill(reader, SIGTERM);
  waitpid(reader, nullptr, 0);
  return 0;
}

struct Random {
  std::string mode;
  int rounds;
  unsigned seed;
  std::string primary, replica;
  std::vector<std::string> names;
};

void RandomWriter(const Random& job, unsigned seed) {
  std::mt19937 random(seed);
  Connection connection(job.primary, job.names, job.mode);
  const char* const levels[] = {"off", "normal", "full", "extra"};
  connection.Run(std::string("pragma synchronous=") + levels[random() % 4]);
  connection.Run("pragma cache_size=5");
  if (random() % 4 == 0) connection.Run("pragma wal_autocheckpoint=5");
  while (true) {
    connection.Run("begin immediate");
    shared->began = true;
    const long number = connection.Ask("select max(coalesce(max(round), 0), " +
                                       std::to_string(shared->committed.load()) + ")+1 from t");
    // Each transaction says in its rows how many they are.
    const long rows = 1 + static_cast<long>(random() % 20);
    connection.Run(Connection::With(Insert(number, rows, 100 + int(random() % 900)), "main"));
    connection.Run("update t set n=" + std::to_string(rows) +
                   " where round=" + std::to_string(number));
    connection.Run("delete from t where round<" + std::to_string(number - 20));
    connection.Run("commit");
    shared->committed = number;
  }
}

int RunRandom(const Random& job) {
  std::mt19937 random(job.seed);
  Nursery nursery([&](int) {
    shared->began = false;
    const unsigned seed = random();
    const pid_t writer = Fork([&] { RandomWriter(job, seed); });
    int status = 0;
    while (!shared->began && waitpid(writer, &status, WNOHANG) == 0) usleep(100);
    if (!shared->began) Fail("a writer failed");
    usleep(random() % 4000);
    kill(writer, SIGKILL);
    return WasKilled(writer);
  });
  const pid_t bystander = Fork([&] {
    Connection connection(job.primary, job.names, job.mode);
    while (true) {
      connection.Run("insert into b(v) values(randomblob(200))");
      shared->bystander = connection.Ask("select max(id) from b");
      connection.Run("delete from b where id<(select max(id) from b)-50");
      usleep(2000);
    }
  });
  Connection primary(job.primary, job.names, job.mode);
  Connection replica(job.replica, job.names);
  long kept_in_doubt = 0;
  for (int round = 0; round < job.rounds; ++round) {
    if (!nursery.Raise(round)) Fail("a writer ended by itself");
    const long committed = shared->committed;
    const long last = primary.Ask("select max(round) from t");
    if (last < committed) Fail("a transaction whose COMMIT returned is missing");
    kept_in_doubt += last > committed ? 1 : 0;
    shared->committed = last;
    if (primary.Ask("select count(*) from (select count(*) c, max(n) n, min(n) m from t group by "
                    "round) where c<>n or m<>n") != 0) {
      Fail("a transaction is there in part");
    }
    if (round % 50 == 0 && primary.Ask("select max(id) from b") < shared->bystander - 1) {
      Fail("a commit of the other writer is missing");
    }
    if (waitpid(bystander, nullptr, WNOHANG) != 0) Fail("the other writer failed");
  }
  kill(bystander, SIGKILL);
  waitpid(bystander, nullptr, 0);
  if (primary.Ask("select max(id) from b") < shared->bystander) {
    Fail("a commit of the other writer is missing");
  }
  AwaitReplica(primary, replica);
  std::printf("rounds %d, transactions %ld, kept without COMMIT returning %ld, by the other %ld\n",
              job.rounds, shared->committed.load(), kept_in_doubt, shared->bystander.load());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  void* const memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) Fail("mmap");
  shared = new (memory) Shared;
  if (arguments.size() >= 8 && arguments[0] == "steps") {
    const bool new_wal = arguments[1] == "new-wal";
    return RunSteps({new_wal ? "wal" : arguments[1],
                     new_wal,
                     arguments[2],
                     std::stol(arguments[3]),
                     arguments[4],
                     arguments[5],
                     arguments[6],
                     {arguments.begin() + 7, arguments.end()}});
  }
  if (arguments.size() == 7 && arguments[0] == "random") {
    return RunRandom({arguments[1],
                      std::stoi(arguments[2]),
                      static_cast<unsigned>(std::stoul(arguments[3])),
                      arguments[4],
                      arguments[5],
                      {arguments[6]}});
  }
  std::fprintf(stderr, "usage: see the head of crash_writer.cc\n");
  return 2;
}
