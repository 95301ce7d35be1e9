#!/bin/sh
# Installs requirements with hashes into the virtual environment $1; what follows is passed on (-r FILE, --no-deps).
# By uv, which needs a fifth of pip's time; where uv cannot be had or does not reach the index that pip is set up for, by pip.
set -eu
venv=$1; shift
here=$(dirname "$0")

pip() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes "$@"; }

if [ ! -x "$venv/bin/uv" ]; then
  pip -r "$here/uv.txt" || { echo "uv cannot be installed here: pip goes on by itself" >&2; pip "$@"; exit; }
fi
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --require-hashes "$@" || {
  echo "uv could not install $*: pip tries" >&2
  pip "$@"
}
