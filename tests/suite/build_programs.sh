#!/usr/bin/env bash
# Fetches the source of this machine's SQLite and builds its test programs into DIR, once: testfixture, which runs the
# test suite, mptester, kvtest and threadtest3. DIR/source is a link to the source tree then.
#   build_programs.sh DIR
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

build() {
  local programs=(testfixture mptester kvtest threadtest3)
  mkdir -p obj
  (cd obj && ../source/configure && make -j "$(nproc)" "${programs[@]}") >build.log 2>&1 ||
    die "building failed: $(tail -20 build.log)"
  # All at once: a directory that is there is complete.
  rm -rf programs.new
  mkdir programs.new
  (cd obj && cp "${programs[@]}" ../programs.new)
  mv programs.new programs
}

main() {
  (($# == 1)) || die "usage: build_programs.sh DIR"
  mkdir -p "$1"
  cd "$1"
  exec 9>lock
  flock 9
  [[ -d programs ]] && return
  if [[ ! -e source ]]; then
    rm -rf package
    fetch
    ln -s "$(echo package/sqlite3-*/)" source
  fi
  echo "building SQLite's test programs, which takes some minutes"
  build
}

main "$@"
