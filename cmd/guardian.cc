#include "cmd/guardian.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "cmd/fuse_mount.h"
#include "cmd/guardian_link.h"
#include "cmd/mount_helper.h"
#include "cmd/mount_probe.h"
#include "cmd/service_notify.h"
#include "cmd/unique_fd.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

using Clock = Supervisor::Clock;

constexpr int kHelperEndMillisMax = 2000;
// Of the service manager's timeout: how often it is told that all is well.
constexpr int kWatchdogParts = 3;

std::string Text(const absl::Status& status) { return std::string(status.message()); }

// ^C at a terminal goes to every process in the foreground, the command too.
bool IsFromTerminal(const signalfd_siginfo& info) { return info.ssi_code == SI_KERNEL; }

class Guardian {
 public:
  Guardian(const GuardianOptions& options, const DaemonFunction& run_daemon)
      : options_(options), run_daemon_(run_daemon) {}
  ~Guardian() { ::sigprocmask(SIG_SETMASK, &original_mask_, nullptr); }
  Guardian(const Guardian&) = delete;
  Guardian& operator=(const Guardian&) = delete;

  absl::Status Start();
  int Run();

 private:
  absl::Status BlockSignals();
  absl::Status MakeChannels();
  absl::Status StartDaemon();
  [[noreturn]] void BeDaemon(pid_t guardian);
  bool CommandRuns() const { return supervisor_ && supervisor_->running(); }

  int PollTimeoutMillis() const;
  void WaitForEvent();
  void OnSignals();
  void OnStopSignal(int signal, bool from_terminal);
  void OnLinkMessage();
  void OnReady();
  void BeginStop();
  void ReapChildren();
  void OnDaemonExit(int wait_status);
  bool AtStep() const { return steps_done_ < options_.steps.size(); }
  void StartNext();
  void OnCommandExit();
  void DismissHelper();
  int ExitCode() const;

  const GuardianOptions& options_;
  const DaemonFunction& run_daemon_;
  const ServiceNotify notify_ = ServiceNotify::FromEnvironment();
  sigset_t original_mask_;
  UniqueFd signals_;
  FuseMount mount_;
  UniqueFd link_;            // ours
  UniqueFd daemon_link_;     // the daemon's, until it is forked
  UniqueFd helper_watch_;    // our end: a byte dismisses the helper, closing tells it of our death
  UniqueFd helper_watched_;  // its end, until the daemon is forked
  UniqueFd helper_alive_;    // read end: closed when the helper has ended
  UniqueFd helper_living_;   // write end, until the daemon is forked
  pid_t daemon_ = 0;
  bool ready_ = false;
  bool stopping_ = false;            // a signal asked for it
  bool stop_begun_ = false;          // for whatever reason
  std::optional<MountProbe> probe_;  // for the service manager's watchdog
  std::size_t steps_done_ = 0;
  std::optional<Supervisor> supervisor_;  // of the step, then of the command
  std::optional<int> daemon_exit_;        // exit code
  std::optional<int> command_exit_;       // exit code, when the command ended before the daemon
};

absl::Status Guardian::BlockSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD}) {
    sigaddset(&set, signal);
  }
  ::sigprocmask(SIG_BLOCK, &set, &original_mask_);
  signals_.Reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (signals_.get() >= 0) return absl::OkStatus();
  return absl::InternalError(fmt::format("cannot make a signalfd: {}", std::strerror(errno)));
}

absl::Status Guardian::MakeChannels() {
  std::array<int, 2> link;
  std::array<int, 2> watch;
  std::array<int, 2> alive;
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link.data()) != 0 ||
      ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, watch.data()) != 0 ||
      ::pipe2(alive.data(), O_CLOEXEC) != 0) {
    return absl::InternalError(fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  }
  link_.Reset(link[0]);
  daemon_link_.Reset(link[1]);
  helper_watched_.Reset(watch[0]);
  helper_watch_.Reset(watch[1]);
  helper_alive_.Reset(alive[0]);
  helper_living_.Reset(alive[1]);
  return absl::OkStatus();
}

absl::Status Guardian::Start() {
  ECHOFS_RETURN_IF_ERROR(BlockSignals());
  ECHOFS_RETURN_IF_ERROR(MakeChannels());
  ECHOFS_ASSIGN_OR_RETURN(const std::string directory,
                          PrepareMountDirectory(options_.config.fuse.dir));
  const bool allow_other = options_.config.fuse.allow_other.value_or(::geteuid() == 0);
  ECHOFS_ASSIGN_OR_RETURN(mount_, MountFuse(directory, allow_other));
  absl::Status status = StartDaemon();
  if (!status.ok()) AbortAndDetach(mount_.ref);
  return status;
}

absl::Status Guardian::StartDaemon() {
  const pid_t guardian = ::getpid();
  std::fflush(nullptr);
  daemon_ = ::fork();
  if (daemon_ < 0) {
    return absl::InternalError(fmt::format("cannot fork: {}", std::strerror(errno)));
  }
  if (daemon_ == 0) BeDaemon(guardian);
  mount_.fd.Reset();
  daemon_link_.Reset();
  helper_watched_.Reset();
  helper_living_.Reset();
  return absl::OkStatus();
}

// In the daemon's process. Its own session keeps a terminal's signals from it: they come through
// the guardian.
void Guardian::BeDaemon(pid_t guardian) {
  ::setsid();
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  signals_.Reset();
  link_.Reset();
  helper_watch_.Reset();
  helper_alive_.Reset();
  sigset_t set;
  for (const int signal : {SIGUSR1, SIGUSR2, SIGCHLD}) {
    sigemptyset(&set);
    sigaddset(&set, signal);
    if (sigismember(&original_mask_, signal) == 0) ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
  }
  int code = 1;
  const absl::Status status =
      StartMountHelper(mount_.ref, helper_watched_.get(), helper_living_.get());
  if (!status.ok()) {
    spdlog::error("{}", Text(status));
  } else if (::getppid() == guardian) {
    helper_watched_.Reset();
    helper_living_.Reset();
    code = run_daemon_({.fuse_fd = mount_.fd.Release(),
                        .mount_point = mount_.ref.mount_point,
                        .config = options_.config,
                        .link_fd = daemon_link_.get()});
  }
  std::fflush(nullptr);
  std::_Exit(code);
}

int Guardian::Run() {
  while (!daemon_exit_ || CommandRuns()) WaitForEvent();
  DismissHelper();
  return ExitCode();
}

int Guardian::PollTimeoutMillis() const {
  std::optional<Clock::time_point> next;
  if (supervisor_) next = supervisor_->deadline();
  if (probe_ && probe_->deadline() && (!next || *probe_->deadline() < *next)) {
    next = probe_->deadline();
  }
  if (!next) return -1;
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(*next - Clock::now()).count();
  return static_cast<int>(std::max<decltype(ms)>(ms, 0));
}

void Guardian::WaitForEvent() {
  std::array<pollfd, 2> fds = {{{signals_.get(), POLLIN, 0}, {link_.get(), POLLIN, 0}}};
  if (::poll(fds.data(), fds.size(), PollTimeoutMillis()) < 0) return;
  if (fds[1].revents != 0) OnLinkMessage();
  if (fds[0].revents != 0) OnSignals();
  if (supervisor_) supervisor_->Tick(Clock::now());
  if (probe_) probe_->Tick(Clock::now());
}

void Guardian::OnSignals() {
  signalfd_siginfo info;
  while (::read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
    const int signal = static_cast<int>(info.ssi_signo);
    switch (signal) {
      case SIGCHLD:
        ReapChildren();
        break;
      case SIGTERM:
      case SIGINT:
        OnStopSignal(signal, IsFromTerminal(info));
        break;
      default:
        // The command of a terminal has got SIGHUP already.
        if (CommandRuns()) {
          if (!IsFromTerminal(info)) supervisor_->Forward(signal);
        } else if (signal == SIGHUP && !daemon_exit_) {
          ::kill(daemon_, signal);
        }
    }
  }
}

void Guardian::OnStopSignal(int signal, bool from_terminal) {
  stopping_ = true;
  BeginStop();
  if (CommandRuns()) {
    // A second ^C makes many programs end without order; the terminal has sent the first one
    // itself.
    supervisor_->Stop(from_terminal ? 0 : signal, Clock::now());
  } else if (!daemon_exit_) {
    ::kill(daemon_, signal);
  }
}

void Guardian::OnLinkMessage() {
  const std::string message = ReceiveLinkMessage(link_.get());
  if (message.empty()) {
    link_.Reset();  // the daemon is dying; SIGCHLD follows
  } else if (message[0] == kLinkReady) {
    if (!ready_) OnReady();
  } else if (message[0] == kLinkUnmount) {
    BeginStop();
    const absl::Status status = Unmount(mount_.ref);
    SendLinkMessage(link_.get(), kLinkUnmounted + Text(status)).IgnoreError();
  }
}

void Guardian::OnReady() {
  ready_ = true;
  if (!stop_begun_) {
    notify_.Ready();
    if (const auto timeout = notify_.watchdog_timeout()) {
      probe_.emplace(mount_.ref.mount_point + "/" + options_.probe_file, *timeout / kWatchdogParts,
                     Clock::now());
    }
  }
  StartNext();
}

void Guardian::BeginStop() {
  if (stop_begun_) return;
  stop_begun_ = true;
  notify_.Stopping();
  if (probe_) probe_->Stop();
}

void Guardian::StartNext() {
  if (stopping_ || daemon_exit_) return;
  const std::vector<std::string>& next = AtStep() ? options_.steps[steps_done_] : options_.command;
  supervisor_.reset();
  if (next.empty()) return;
  supervisor_.emplace(next, original_mask_, options_.command_grace);
  if (const absl::Status status = supervisor_->Start(); !status.ok()) {
    spdlog::error("{}", Text(status));
    command_exit_ = supervisor_->exit_code();
    BeginStop();
    ::kill(daemon_, SIGTERM);
  }
}

// Any child: as process 1 of a container the guardian inherits orphans.
void Guardian::ReapChildren() {
  int status = 0;
  for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid == daemon_) {
      OnDaemonExit(status);
    } else if (supervisor_ && supervisor_->OnChildExit(pid, status) && !daemon_exit_) {
      OnCommandExit();
    } else if (probe_ && probe_->OnChildExit(pid, status)) {
      notify_.AnswerWatchdog();
    }
  }
}

void Guardian::OnCommandExit() {
  const int code = supervisor_->exit_code();
  if (AtStep() && !stopping_) {
    if (code == 0) {
      ++steps_done_;
      StartNext();
      return;
    }
    spdlog::error(
        "the command {} of exec ended with exit code {}, so what stands behind it is not "
        "started, and this node ends",
        options_.steps[steps_done_][0], code);
  }
  command_exit_ = code;
  BeginStop();
  ::kill(daemon_, SIGTERM);
}

void Guardian::OnDaemonExit(int wait_status) {
  daemon_exit_ = ShellExitCode(wait_status);
  BeginStop();
  AbortAndDetach(mount_.ref);
  if (WIFSIGNALED(wait_status)) {
    spdlog::error("the daemon was killed by signal {} ({}); the mount {} has been removed",
                  WTERMSIG(wait_status), ::strsignal(WTERMSIG(wait_status)),
                  mount_.ref.mount_point);
  }
  if (supervisor_) supervisor_->Stop(SIGTERM, Clock::now());
}

// Waits for the helper's end, so that it can never take a mount of the next echofs here for ours.
void Guardian::DismissHelper() {
  // Fails when the helper has ended already.
  if (::send(helper_watch_.get(), &kHelperDismissed, 1, MSG_NOSIGNAL) != 1) return;
  pollfd alive = {helper_alive_.get(), POLLIN, 0};
  ::poll(&alive, 1, kHelperEndMillisMax);
}

int Guardian::ExitCode() const {
  if (command_exit_) return *command_exit_;
  if (*daemon_exit_ == 0 && supervisor_) return supervisor_->exit_code();
  return *daemon_exit_;
}

}  // namespace

int RunGuardian(const GuardianOptions& options, const DaemonFunction& run_daemon) {
  Guardian guardian(options, run_daemon);
  if (const absl::Status status = guardian.Start(); !status.ok()) {
    spdlog::error("{}", Text(status));
    return 1;
  }
  return guardian.Run();
}

}  // namespace echofs::cmd
