# A Debian in a container of systemd-nspawn: made once, copied for each run, booted, and looked at from outside. Nothing
# of the machine's own is installed, upgraded or configured for it: debootstrap and systemd-nspawn are unpacked beside what
# is there. Sourced by test/host, after test/debian.sh.
# shellcheck shell=bash disable=SC2154 # cache, root, logs and machine are the script's

container=
init=
cgroups=()
checks=0
good=0

fail() {
    printf 'host: %s\n' "$*" >&2
    exit 1
}

heading() {
    printf '\n== %s\n' "$*"
}

# check NAME COMMAND...: counts; what the command said is shown only when it fails. Each line of a function counts: the first
# that fails ends it.
check() {
    local name=$1 log=$logs/check start=$SECONDS status=0
    shift
    checks=$((checks + 1))
    set +e
    (
        set -euo pipefail
        "$@"
    ) >"$log" 2>&1 </dev/null
    status=$?
    set -e
    if ((status == 0)); then
        good=$((good + 1))
        printf 'ok    %s (%s s)\n' "$name" $((SECONDS - start))
    else
        printf 'FAIL  %s\n' "$name"
        tail -n 25 "$log" | cut -c1-400 | sed 's/^/      /'
    fi
}

# not COMMAND...: fails where the command succeeds, which `!` does not in the middle of a function.
not() {
    if "$@"; then
        printf 'has succeeded: %s\n' "$*"
        return 1
    fi
}

make_debootstrap() {
    unpack_debian "$1" default debootstrap
}

make_ubuntu_keyring() {
    unpack_debian "$1" trixie ubuntu-keyring
}

# systemd-nspawn, unpacked beside the machine's own systemd, which a package of it would upgrade.
make_nspawn() {
    unpack_debian "$1" default systemd-container
}

# in_root DIR SCRIPT: runs a script in a root that has not booted. Debconf and dpkg want /proc, and no service is to start.
in_root() {
    printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
    chmod 755 "$1/usr/sbin/policy-rc.d"
    cp /etc/resolv.conf "$1/etc/resolv.conf"
    # shellcheck disable=SC2016 # for the inner bash to expand
    unshare --mount --propagation private bash -c 'mount --bind /proc "$1/proc"
        DEBIAN_FRONTEND=noninteractive exec chroot "$1" bash -euo pipefail -c "$2"' - "$1" "$2" >&2
    rm "$1/usr/sbin/policy-rc.d"
}

# bootstrap NEW SUITE MIRROR SCRIPT OPTION...: a root with systemd and this distribution's Nix; without a mirror or a script
# those that debootstrap knows.
bootstrap() {
    local new=$1 suite=$2 mirror=$3 script=$4 tool
    shift 4
    tool=$(cached debootstrap make_debootstrap)
    say "making the root of $suite with systemd and Nix (debootstrap)"
    DEBOOTSTRAP_DIR=$tool/usr/share/debootstrap sh "$tool/usr/sbin/debootstrap" --variant=minbase \
        --include=systemd,systemd-sysv,dbus,ca-certificates "$@" "$suite" "$new" "$mirror" ${script:+"$script"} >&2
    # Not in the same debootstrap: a Perl package fails there.
    in_root "$new" "apt-get -qq -y --no-install-recommends install nix-bin nix-setup-systemd"
}

# make_base NEW FINAL SUITE: a Debian bookworm with systemd, and with the Nix of this suite; or Ubuntu's noble, with its own.
make_base() {
    local new=$1 suite=$3 mirror keyring bookworm
    mirror=$(debian_mirror)
    [[ -n $mirror ]] || fail "needs a Debian mirror among the machine's apt sources"
    if [[ $suite == bookworm ]]; then
        bootstrap "$new" bookworm "$mirror" ''
    elif [[ $suite == noble ]]; then
        keyring=$(cached ubuntu-keyring make_ubuntu_keyring)
        # By the script of all of Ubuntu's releases, as this one is younger than bookworm's debootstrap.
        bootstrap "$new" noble '' gutsy --components=main,universe \
            --keyring="$keyring/usr/share/keyrings/ubuntu-archive-keyring.gpg"
    else
        bookworm=$(cached host-bookworm make_base bookworm)
        say "putting the Nix of $suite into it"
        cp -a --reflink=auto "$bookworm" "$new"
        printf 'deb %s %s main\n' "$mirror" "$suite" >"$new/etc/apt/sources.list.d/$suite.list"
        printf 'Package: *\nPin: release n=%s\nPin-Priority: 100\n' "$suite" >"$new/etc/apt/preferences.d/$suite"
        # A mirror may be a snapshot of some age. Libraries that were renamed since overwrite files of the old ones.
        in_root "$new" "apt-get -qq -y purge --auto-remove nix-bin nix-setup-systemd
            apt-get -qq -o Acquire::Check-Valid-Until=false update
            apt-get -qq -y --no-install-recommends -o Dpkg::Options::=--force-overwrite -t $suite install \\
                nix-bin nix-setup-systemd"
    fi
    rm -rf "$new"/var/cache/apt/archives/*.deb "$new"/var/lib/apt/lists/*
}

# Takes the place of the shell that calls it, whose process is the container's then.
nspawn() {
    local dir
    dir=$(cached nspawn make_nspawn)
    LD_LIBRARY_PATH=$(printf '%s:' "$dir"/{usr/,}lib/{*-linux-gnu,*-linux-gnu/systemd,systemd}) \
        exec "$dir/usr/bin/systemd-nspawn" "$@"
}

# Starts the container, and waits until it has booted.
boot() {
    local dir
    mapfile -t cgroups < <(own_cgroups)
    for dir in "${cgroups[@]}"; do
        mkdir -p "$dir"
    done
    {
        for dir in "${cgroups[@]}"; do
            echo "$BASHPID" >"$dir/cgroup.procs"
        done
        nspawn --quiet --directory="$root" --machine="$machine" --register=no --keep-unit --boot \
            --resolv-conf=off --timezone=off --link-journal=no --console=read-only
    } >>"$logs/console" 2>&1 </dev/null &
    container=$!
    wait_for_boot
}

# The folders of a cgroup of the container's own, in each hierarchy that systemd uses. Containers that are started in the
# same cgroup would share those of their services, and each would signal the other's processes.
own_cgroups() {
    local controllers path mount
    while IFS=: read -r _ controllers path; do
        case $controllers in
        '') mount=$(findmnt --first-only --noheadings --output TARGET --types cgroup2) || continue ;;
        name=systemd)
            mount=$(findmnt --first-only --noheadings --output TARGET --types cgroup --options name=systemd) || continue
            ;;
        *) continue ;;
        esac
        printf '%s/%s\n' "$mount${path%/}" "$machine"
    done </proc/self/cgroup
}

# The container's first process, once it has a PID namespace of its own: until then its parent's children are this host's.
find_init() {
    local child namespace
    child=$(cat "/proc/$container/task/$container/children" 2>/dev/null) || return 1
    child=${child%% *}
    namespace=$(readlink "/proc/$child/ns/pid") || return 1
    [[ $namespace != "$(readlink /proc/self/ns/pid)" ]] || return 1
    printf '%s\n' "$child"
}

wait_for_boot() {
    local state=unknown
    for _ in {1..3000}; do
        init=$(find_init) || true
        if [[ -n $init ]]; then
            state=$(inside systemctl is-system-running 2>/dev/null) || true
            [[ $state != running && $state != degraded ]] || return 0
        fi
        kill -0 "$container" 2>/dev/null || break
        sleep 0.2
    done
    tail -n 20 "$logs/console" >&2
    fail "the container has not booted ($state)"
}

shut_down() {
    local dir
    [[ -z $init ]] || inside systemctl poweroff >/dev/null 2>&1 || true
    for _ in {1..600}; do
        kill -0 "$container" 2>/dev/null || break
        sleep 0.1
    done
    # The container would outlive systemd-nspawn.
    if kill -0 "$container" 2>/dev/null; then
        kill -KILL ${init:+"$init"} "$container" 2>/dev/null || true
    fi
    wait "$container" 2>/dev/null || true
    container=
    init=
    for dir in "${cgroups[@]}"; do
        find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    # systemd-nspawn leaves it when /run is on a disk.
    rmdir "/run/systemd/nspawn/propagate/$machine" 2>/dev/null || true
}

# inside COMMAND...: runs as the container's root.
inside() {
    nsenter --target "$init" --all -- env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root LANG=C.UTF-8 "$@"
}

# as USER SCRIPT: runs a script as an ordinary user, in that user's home.
as() {
    inside runuser -u "$1" -- env -i PATH=/usr/local/bin:/usr/bin:/bin HOME="/home/$1" USER="$1" LANG=C.UTF-8 \
        GOROOT="$goroot" GOPROXY="$goproxy" NIX_SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
        bash -euo pipefail -c "cd; $2"
}

# Every file of the host that an installation could leave behind or change: kind, mode, owner, size, content.
# Not what runs and logs write by themselves, nor Nix's store and the users' homes.
snapshot() {
    (
        cd "$root"
        local -a skip=(./nix ./proc ./sys ./dev ./run ./tmp ./var/tmp ./var/log ./var/lib/systemd ./root ./home ./opt/carol
            ./etc/passwd- ./etc/group- ./etc/shadow- ./etc/gshadow- ./etc/.pwd.lock ./etc/.updated ./var/.updated)
        local path
        local -a prune=()
        for path in "${skip[@]}"; do
            prune+=(-path "$path" -prune -o)
        done
        find . "${prune[@]}" -printf '%p %y %m %U:%G %l\n' | LC_ALL=C sort
        find . "${prune[@]}" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
        # What is in use while the system runs.
        find ./run -path '*nix-gocacheprog*' | LC_ALL=C sort
    ) >"$logs/snapshot-$1"
}

same() {
    snapshot "$2"
    diff "$logs/snapshot-$1" "$logs/snapshot-$2"
}

now() {
    # A line is not to count for two builds.
    sleep 1.1
    inside date '+%Y-%m-%d %H:%M:%S'
}
