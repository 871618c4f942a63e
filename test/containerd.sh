# The real and well-known Go program that test/demo and test/nix-matrix build. Sourced by them.
# shellcheck shell=bash disable=SC2034

module=github.com/containerd/containerd/v2
version=v2.4.2
module_sum=h1:p6Qg+xbEz8lvwdhHDx0U469xENvp4LgGBx+E7djXkGw=
go_version=1.27.3
# One of its dependencies in another version: the sums, and the hash of the vendor directory then.
dependency=github.com/klauspost/compress
dependency_from=v1.20.0
dependency_to=v1.20.3
dependency_sum=h1:zWNoFqq/lSuYQRim3dUXlXeA0IqwuZGicdG5ZTfY5j4=
dependency_mod_sum=h1:LUdAzn7YLVvxLpc7y3V1m40wESHTgc1422pwwBSKYuI=
dependency_vendor_hash=sha256-VVAjYk0LVF+paAxpWEqAHFICTkJk7FE06tsdGXtYG9c=

# fetch_source GOROOT DIR: puts $module at $version into DIR/source, as the proxy has it. $module_sum pins it, so no
# checksum database is needed. Runs that share DIR fetch it once: the others wait.
fetch_source() {
    local work=$2
    mkdir -p "$work"
    [[ -d $work/source ]] || (
        flock 9
        [[ -d $work/source ]] || download_source "$@"
    ) 9>"$work/source.lock"
}

download_source() {
    local goroot=$1 work=$2 got dir
    got=$(cd "$work" && GOPATH=$work/gopath GOCACHE=$work/gocache GOFLAGS=-modcacherw GOTOOLCHAIN=local GOSUMDB=off \
        "$goroot/bin/go" mod download -json "$module@$version")
    if ! grep -qF "\"Sum\": \"$module_sum\"" <<<"$got"; then
        printf '%s\n' "$got"
        echo "the module is not the one whose sum is pinned: $module_sum"
        return 1
    fi
    dir=$(sed -nE 's/^\t"Dir": "(.*)",?$/\1/p' <<<"$got")
    rm -rf "$work/source.new"
    cp -r "$dir" "$work/source.new"
    chmod -R u+w "$work/source.new"
    mv "$work/source.new" "$work/source"
}
