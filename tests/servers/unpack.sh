#!/usr/bin/env bash
# usage: unpack.sh SUITE ROOT PACKAGE... -- PROGRAM...
#
# Downloads packages of another Debian suite with all libraries they need, unpacks them into ROOT and makes the
# programs run with ROOT's own loader and libraries. Nothing is installed on this machine. SUITE may be two: that of
# the packages, and one that it builds on ("bookworm-backports bookworm").
set -euo pipefail
suite=$1 root=$2
shift 2
packages=() programs=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do packages+=("$1"); shift; done
[ $# -gt 0 ] && shift
programs=("$@")

# Start from nothing: a half-unpacked folder of an interrupted run must not be taken for a whole one.
rm -rf "$root"
mkdir -p "$root"
root=$(realpath "$root")
apt=$root/.apt
mkdir -p "$apt"/lists/partial "$apt"/cache/archives/partial
# With an empty list of installed packages apt fetches everything down to libc6, which the programs need: this
# machine's libc is older than theirs.
: >"$apt/status"
# Images have the first of these files, what the installer made the second; where neither names a mirror, Debian's own serves.
mirror=$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
  sed -nE 's/^URIs: *//p; s/^deb +(\[[^]]*\] +)?(https?:[^ ]+) .*/\2/p' | head -n 1 || true)
cat >"$apt/suite.sources" <<S
Types: deb
URIs: ${mirror:-http://deb.debian.org/debian}
Suites: $suite
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
S
options=(-q -o Dir::Etc::sourcelist="$apt/suite.sources" -o Dir::Etc::sourceparts=- -o Dir::State::Lists="$apt/lists"
  -o Dir::Cache="$apt/cache" -o Dir::State::status="$apt/status" -o APT::Sandbox::User=root
  -o APT::Default-Release="${suite%% *}" -o APT::Install-Recommends=false -o Acquire::Languages=none -o Acquire::Retries=3)
apt-get "${options[@]}" update
apt-get "${options[@]}" -y --download-only install "${packages[@]}"
for deb in "$apt"/cache/archives/*.deb; do dpkg -x "$deb" "$root"; done
rm -rf "$apt"

loader=$(find "$root" -path '*/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2' -print -quit)
libraries=$root/usr/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu/ceph:$root/lib/x86_64-linux-gnu
for program in "${programs[@]}"; do
  for folder in usr/bin usr/sbin; do
    if [ -e "$root/$folder/$program" ]; then
      # some are links to one binary with another name
      patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$(realpath "$root/$folder/$program")"
      continue 2
    fi
  done
  echo "unpack.sh: no $program in ${packages[*]} of $suite" >&2
  exit 1
done
