#!/bin/sh
# Makes the virtual environment $1 with the Python $2 (3.11 to 3.13), and installs Debian's venv package where it is missing.
set -eu
venv=$1 python=$2

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
  echo "expected Python 3.11, 3.12 or 3.13, received $("$python" -V 2>&1) from '$python': install one and run make PYTHON=python3.12 ..." >&2
  exit 2
}
"$python" -m venv "$venv" >/dev/null 2>&1 && exit 0

# Debian and Ubuntu ship Python without ensurepip; the package python3-venv brings it.
rm -rf "$venv"
as_root=
[ "$(id -u)" = 0 ] || as_root="sudo -n"
package="$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
echo "installing $package, without which '$python -m venv' does not work here"
{ $as_root apt-get update -qq && $as_root apt-get install -y -qq "$package" >/dev/null; } || {
  echo "'$python -m venv $venv' fails: install Python's venv module (Debian, Ubuntu: apt-get install $package) and try again" >&2
  exit 2
}
exec "$python" -m venv "$venv"
