# The parts of `./test --long`; read by ./test, which defines `tests`, `part` and the counters.
# shellcheck shell=bash disable=SC2154
#
#   first-ping   up to first ping, 20 rounds, gated at the project's own figure
#   joining      attach to first ping in networks of 45 and of 100, 20 newcomers each, gated at the figure
#   repeat       the lab, 10 times (FARLAN_REPEAT)
#   fuzz         every fuzz target, an hour in all (FARLAN_SECONDS), release speed with debug assertions
#   restart      each node killed and started 10 times, with and without a bootstrap, gated at the figure
#   churn        10 minutes (FARLAN_SECONDS) of nodes killed, links cut, MACs moved; nothing may grow
#   relay        the bootstrap's relay and coturn, the same datagrams in turns; coturn is installed by hand
#   packaging    the debs, with cargo-deb installed where it is missing, then on a clean Debian that boots
#                its own systemd in QEMU, and the newcomer's hour with them
#
# Each writes its raw samples to docs/results/PART-DATE.txt, with the commit and the machine.

LONG_PARTS='first-ping joining repeat restart fuzz churn relay packaging'

# long_settings PART..: what the test programs read from the environment; before it is handed to sudo.
long_settings() {
    local name
    [ $# -gt 0 ] || { printf 'parts: %s\n' "$LONG_PARTS" >&2; exit 2; }
    for name in "$@"; do
        case " $LONG_PARTS " in
            *" $name "*) ;;
            *) printf 'no part %s; parts: %s\n' "$name" "$LONG_PARTS" >&2; exit 2 ;;
        esac
    done
    repeat=${FARLAN_REPEAT:-}
    export FARLAN_LONG=1
}

# record PART FAILED LOG..: keeps the samples of a part.
record() {
    local name=$1 bad=$2 file dirty=; shift 2
    file=docs/results/$name-$(date -u +%Y%m%dT%H%M%SZ).txt
    mkdir -p docs/results
    [ -z "$(git status --porcelain --untracked-files=no 2>/dev/null)" ] || dirty=' with changes'
    {
        printf 'part: %s\nverdict: %s\n' "$name" "$([ "$bad" -eq 0 ] && echo passed || echo FAILED)"
        printf 'date: %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
        printf 'commit: %s%s\n' "$(git rev-parse HEAD 2>/dev/null || echo unknown)" "$dirty"
        printf 'machine: %s CPUs, Linux %s, %s\n\n' "$(nproc)" "$(uname -r)" "$(rustc --version)"
        grep -hE '^sample |^test .*(ok|FAILED)$|outcomes, |^FAILED|^repeat with|late by mean' "$@"
    } >"$file"
    printf 'Results: %s\n' "$file"
}

# lab_env NAME=VALUE..: for the test programs, also where they run through sudo.
lab_env() {
    export "$@"
    [ -z "$SUDO" ] || export "CARGO_TARGET_${host}_RUNNER=sudo env $keep $*"
}

lab_tests() { cargo test --release -p farlan-tests --locked --no-fail-fast "$@" -- --test-threads=1 --nocapture; }

long_part() {
    local name=$1 before=$failed n kept=()
    case $name in
        first-ping | joining | repeat | restart | churn) part build cargo build --release --workspace --bins --locked ;;
    esac
    case $name in
        first-ping)
            lab_env "FARLAN_REPEAT=${repeat:-20}"
            tests first-ping lab_tests --test first_ping
            kept=("$logs/first-ping.log") ;;
        joining)
            for n in 45 100; do
                lab_env "FARLAN_REPEAT=${repeat:-20}" "FARLAN_MEMBERS=$n"
                tests "joining-$n" lab_tests --test joining
                kept+=("$logs/joining-$n.log")
            done ;;
        repeat)
            lab_env FARLAN_REPEAT=3 FARLAN_CHURN_SECONDS=20
            for ((n = 1; n <= ${repeat:-10}; n++)); do
                tests "repeat-$n" lab_tests
                kept+=("$logs/repeat-$n.log")
            done ;;
        restart)
            lab_env "FARLAN_REPEAT=${repeat:-10}"
            tests restart lab_tests --test restart
            kept=("$logs/restart.log") ;;
        fuzz)
            part long-fuzz cargo run --profile fuzz -q -p farlan-fuzz --locked -- \
                run all --seconds "${FARLAN_SECONDS:-3600}" --seed "$(date +%s)"
            kept=("$logs/long-fuzz.log") ;;
        relay)
            tests relay cargo test --release -p bootstrap --locked -- --nocapture coturn
            kept=("$logs/relay.log") ;;
        churn)
            lab_env "FARLAN_CHURN_SECONDS=${FARLAN_SECONDS:-600}"
            tests churn lab_tests --test churn
            kept=("$logs/churn.log") ;;
        packaging)
            need_tools debootstrap:debootstrap
            # shellcheck disable=SC2086
            part debs packaging/build-deb $build_debs
            # The newcomer's packages are the release that users get, too.
            part build cargo build --release --workspace --bins --locked
            tests packaging lab_tests --test packaging --test clean_install --test newcomer
            kept=("$logs/packaging.log") ;;
    esac
    record "$name" $((failed - before)) "${kept[@]}"
}
