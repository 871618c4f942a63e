# The program under test, and a daemon of it. Sourced by test scripts.
# shellcheck shell=bash

# build_static: makes the static release binary and prints its path.
build_static() {
    local host root
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    host=$(rustc -vV | sed -n 's/^host: //p')
    (cd "$root" && RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --locked --release --target "$host")
    printf '%s\n' "${CARGO_TARGET_DIR:-$root/target}/$host/release/nix-gocacheprog"
}

# start_daemon: $home/bin/nix-gocacheprog as the user $uid, with an empty cache; leaves its process in $daemon. The caller
# has `fail`.
# shellcheck disable=SC2154 # $home and $uid
start_daemon() {
    local _
    rm -rf "$home/cache" "$home/run"
    mkdir "$home/cache" "$home/run"
    chown "$uid:$uid" "$home/cache" "$home/run"
    setpriv --reuid "$uid" --regid "$uid" --clear-groups --inh-caps=-all \
        "$home/bin/nix-gocacheprog" daemon --cache-dir "$home/cache" --runtime-dir "$home/run" \
        </dev/null >"$home/daemon.log" 2>&1 &
    daemon=$!
    for _ in {1..200}; do
        [[ ! -S $home/run/build/sock || ! -S $home/run/control/sock ]] || return 0
        sleep 0.05
    done
    fail "the daemon has made no socket: $(tail -n 5 "$home/daemon.log")"
}

# shellcheck disable=SC2154 # $home
stop_daemon() {
    kill -TERM "$daemon"
    wait "$daemon" || fail "the daemon failed: $(tail -n 5 "$home/daemon.log")"
}
