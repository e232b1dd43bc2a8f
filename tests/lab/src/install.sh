# Installs the Debian packages named as arguments, as root, without starting or creating any service.
set -eu
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
snippets=/etc/postgresql-common/createcluster.d
made_policy= made_snippets=

cleanup() {
    if [ -n "$made_policy" ]; then rm -f "$policy"; fi
    rm -f "$snippets/repmgr-lab.conf"
    if [ -n "$made_snippets" ]; then rmdir "$snippets" 2>/dev/null || true; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# Ours may be left over from a run that was killed.
if [ ! -e "$policy" ] || grep -q repmgr-lab "$policy"; then
    made_policy=yes
    printf '#!/bin/sh\n# repmgr-lab: no service is started while its packages are installed\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
if [ ! -d "$snippets" ]; then
    made_snippets=yes
    mkdir -p "$snippets"
fi
echo 'create_main_cluster = false' >"$snippets/repmgr-lab.conf"

install() {
    apt-get -y -q -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
}
# Package lists may be missing or old.
install "$@" || { apt-get -q -o DPkg::Lock::Timeout=300 update && install "$@"; }
