# shellcheck shell=sh
#
# For scripts that need Debian packages: to be sourced by a script that defines `say`.

have() {
    command -v "$1" >/dev/null 2>&1
}

# Services that come with packages must not be started: the tests start servers of their own.
# If there is no policy, this sets one while the packages are installed.
policy=/usr/sbin/policy-rc.d
our_policy=

remove_policy() {
    [ -z "$our_policy" ] || rm -f "$policy"
    our_policy=
}

# The packages are the arguments. Fails if they cannot be had.
install_packages() {
    say "running: apt-get update && apt-get install -y --no-install-recommends $*"
    trap remove_policy EXIT
    trap 'exit 1' HUP INT TERM
    if [ ! -e "$policy" ] && [ ! -L "$policy" ]; then
        our_policy=yes
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    # Whoever calls this in a condition has no `set -e` here.
    installed=yes
    apt-get update </dev/null || installed=
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "$@" </dev/null || installed=
    remove_policy
    trap - EXIT HUP INT TERM
    [ -n "$installed" ]
}
