# shellcheck shell=bash
# What the scripts of this folder share: how they talk, and how they get the tools and the Docker engine that they need.
# Sourced, never run. Knows nothing of pods or clusters.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Talk goes to stderr: stdout is data.
say() { printf '== %s\n' "$*" >&2; }

# fail SENTENCE [HINT]
fail() {
    printf 'error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

can_apt() { [ "$(id -u)" = 0 ] && have apt-get; }

# apt_install PACKAGE...: the lists are fetched only if a package isn't known yet.
apt_install() {
    say "installing $*"
    apt-cache show "$@" >/dev/null 2>&1 || apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# need COMMAND PACKAGE: the command, from that Debian package if it is missing and may be installed.
need() {
    have "$1" && return
    can_apt || fail "'$1' is missing" "install it (Debian's package: $2), then run this again"
    apt_install "$2"
    have "$1" || fail "'$1' is missing, although package $2 is installed"
}

# What a build needs. The Rust of Debian 12 is too old for the workspace, so it isn't installed from there.
need_build_tools() {
    need cc gcc
    # Headers for the C code of SQLite: gcc without recommended packages comes without them.
    if [ ! -e /usr/include/stdio.h ] && can_apt; then apt_install libc6-dev; fi
    if ! have cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH="$HOME/.cargo/bin:$PATH"; fi
    have cargo || fail "'cargo' is missing" "install Rust $(rust_version) or newer with rustup (see https://rustup.rs), then run this again"
}

rust_version() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/Cargo.toml"; }

# The test runner. A debug build of it is ready in a third of the time of a release build and no slower to wait for.
need_nextest() {
    cargo nextest --version >/dev/null 2>&1 && return
    say "installing cargo-nextest (takes some minutes, once)"
    cargo install --quiet --locked --debug cargo-nextest || fail "cargo-nextest can't be installed" "see https://nexte.st for other ways"
}

docker_answers() { timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# wait_until SECONDS COMMAND...: whether the command succeeded in that time.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.2
    done
}

# need_docker [PID_FILE]: an engine that answers. If this has to start a daemon by itself, its pid goes to PID_FILE and its log beside it.
need_docker() {
    # Debian 13 has the client in a package of its own, which docker.io only recommends.
    if ! have docker && can_apt; then apt_install docker.io && { have docker || apt_install docker-cli; }; fi
    need docker docker.io
    docker_answers && return
    if [ -n "${DOCKER_HOST:-}" ]; then fail "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST" "start it, or unset DOCKER_HOST"; fi
    [ "$(id -u)" = 0 ] || fail "no Docker engine answers" "start it (systemctl start docker) and let '$(id -un)' use it (group 'docker'), or run this as root"
    say "starting Docker"
    if [ -d /run/systemd/system ]; then systemctl start docker >&2 || true; elif have service; then service docker start >&2 || true; fi
    wait_until 15 docker_answers && return
    start_dockerd "${1:-${TMPDIR:-/tmp}/cube-dockerd.pid}"
}

start_dockerd() {
    local pid_file=$1 log="${1%.pid}.log"
    have dockerd || fail "no Docker engine answers and 'dockerd' is missing" "install Debian's package docker.io"
    setsid dockerd >"$log" 2>&1 </dev/null &
    echo $! >"$pid_file"
    wait_until 60 docker_answers || fail "dockerd was started and doesn't answer; the end of its log: $(tail -n 3 "$log")" "the whole log: $log"
}
