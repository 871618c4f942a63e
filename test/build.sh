# The program under test. Sourced by test scripts.
# shellcheck shell=bash

# build_static: makes the static release binary and prints its path.
build_static() {
    local host root
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    host=$(rustc -vV | sed -n 's/^host: //p')
    (cd "$root" && RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --locked --release --target "$host")
    printf '%s\n' "${CARGO_TARGET_DIR:-$root/target}/$host/release/nix-gocacheprog"
}
