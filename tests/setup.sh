# What ./test and ./demo share: tools, toolchain, the right to make namespaces. Sourced by bash.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
MSRV=89

die() { printf '%s\n' "$*" >&2; exit 1; }

# Root, or sudo in front of what needs it; $SUDO is empty for root and NOROOT=1 without both.
need_root() {
    SUDO=; NOROOT=
    if [ "$(id -u)" -eq 0 ]; then return; fi
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }; }; then
        SUDO=sudo
    else
        NOROOT=1
    fi
}

# Installs Debian or Ubuntu packages for commands that are missing: pairs COMMAND:PACKAGE.
need_tools() {
    local pair missing=()
    for pair in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    export PATH=$PATH:/usr/sbin:/sbin
    [ ${#missing[@]} -eq 0 ] && return
    local line="apt-get install -y --no-install-recommends ${missing[*]}"
    if [ -n "$NOROOT" ] || ! command -v apt-get >/dev/null; then
        die "missing: ${missing[*]}. As root, type: $line"
    fi
    printf 'Installing %s\n' "${missing[*]}"
    # shellcheck disable=SC2086
    $SUDO env DEBIAN_FRONTEND=noninteractive sh -c "{ $line || { apt-get update && $line; }; } >/dev/null" ||
        die "apt-get failed. As root, type: apt-get update && $line"
}

cargo_is_new() {
    local version
    version=$(cargo --version 2>/dev/null | cut -d' ' -f2) || return 1
    local major=${version%%.*} rest=${version#*.}
    [ -n "$version" ] && { [ "$major" -gt 1 ] || [ "${rest%%.*}" -ge $MSRV ]; }
}

# A cargo of at least 1.89: the one on PATH, that of rustup, or a new one by rustup.
need_cargo() {
    cargo_is_new && return
    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    cargo_is_new && return
    local line="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c rustfmt -c clippy"
    if command -v rustup >/dev/null; then
        line="rustup toolchain install stable --profile minimal -c rustfmt -c clippy && rustup default stable"
    else
        need_tools curl:curl update-ca-certificates:ca-certificates
    fi
    printf 'No cargo >= 1.%s. Installing one: %s\n' $MSRV "$line"
    bash -c "set -o pipefail; $line" >/dev/null 2>&1
    cargo_is_new || die "No cargo >= 1.$MSRV and rustup cannot be reached. Type: $line"
}
