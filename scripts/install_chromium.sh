#!/bin/sh
# Installs Debian's chromium for the tests of the pages. Where it cannot be had, says why and ends well: those tests are
# then skipped with a reason, or fail where BACKBEAT_REQUIRE names "browser".
# No test tool's own browser download is used: it fetches an unlocked binary from elsewhere.
set -eu

for name in "${CHROMIUM:-/usr/bin/chromium}" chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null 2>&1; then
        echo "browser: $(command -v "$name")"
        exit 0
    fi
done

if ! command -v apt-get >/dev/null 2>&1; then
    echo "browser: none found, and no apt-get to install one; install Chromium, or set CHROMIUM to its path"
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    as_root="env"
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo env"
else
    echo "browser: none found, and installing one needs root; run: sudo apt-get install chromium"
    exit 0
fi

echo "browser: installing Debian's chromium"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { $as_root apt-get update && $as_root DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium; } >"$log" 2>&1; then
    tail -n 5 "$log"
    echo "browser: apt-get could not install chromium (its last lines are above)"
    exit 0
fi
echo "browser: $(command -v chromium)"
