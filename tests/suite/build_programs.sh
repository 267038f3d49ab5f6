#!/usr/bin/env bash
# Fetches the source of this machine's SQLite and builds those PROGRAMs of it that are not in DIR/programs yet:
# testfixture, which runs the test suite, mptester, kvtest, threadtest3, speedtest1. DIR/source is a link to the source
# tree then.
#   build_programs.sh DIR PROGRAM...
set -euo pipefail

die() {
  echo "build_programs.sh: $*" >&2
  exit 1
}

# The source package of this machine's release, without a change to the machine's own list of sources.
fetch() {
  local system codename options
  system=$(sed -n 's/^ID=//p' /etc/os-release)
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  mkdir -p lists/partial package
  case "$system" in
    debian) echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $codename main" ;;
    ubuntu) echo "deb-src [signed-by=/usr/share/keyrings/ubuntu-archive-keyring.gpg] http://archive.ubuntu.com/ubuntu $codename main" ;;
    *) die "SQLite's source can be fetched on Debian and Ubuntu only" ;;
  esac >sources.list
  options=(-o "Dir::Etc::sourcelist=$PWD/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$PWD/lists" -o APT::Sandbox::User=root -o Acquire::Retries=3)
  apt-get "${options[@]}" update -qq
  (cd package && apt-get "${options[@]}" source -qq sqlite3) >fetch.log 2>&1 || die "fetching failed: $(tail -5 fetch.log)"
}

# A program that is in DIR/programs is complete.
build() {
  local program
  mkdir -p obj programs
  (cd obj && { [[ -f Makefile ]] || ../source/configure; } && make -j "$(nproc)" "$@") >build.log 2>&1 ||
    die "building failed: $(tail -20 build.log)"
  for program in "$@"; do
    cp "obj/$program" "programs/$program.new"
    mv "programs/$program.new" "programs/$program"
  done
}

main() {
  local program missing=()
  (($# >= 2)) || die "usage: build_programs.sh DIR PROGRAM..."
  mkdir -p "$1"
  cd "$1"
  shift
  exec 9>lock
  flock 9
  for program in "$@"; do
    [[ -x "programs/$program" ]] || missing+=("$program")
  done
  ((${#missing[@]} > 0)) || return 0
  if [[ ! -e source ]]; then
    rm -rf package
    fetch
    ln -s "$(echo package/sqlite3-*/)" source
  fi
  echo "building SQLite's programs ${missing[*]}, which takes some minutes"
  build "${missing[@]}"
}

main "$@"
