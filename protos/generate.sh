#!/bin/sh
# Generates the Python code of protos/*.proto beside them. With --check: compares instead, and fails when it is not current.
set -eu
cd "$(dirname "$0")/.."
out=.
if [ "${1:-}" = --check ]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
fi
messages="protos/bundle.proto protos/classifier.proto protos/inference.proto"
services="protos/classifier.proto protos/inference.proto"
# shellcheck disable=SC2086  lists of names
python -m grpc_tools.protoc -I. --python_out="$out" --mypy_out="quiet:$out" $messages
# shellcheck disable=SC2086
python -m grpc_tools.protoc -I. --grpc_python_out="$out" --mypy_grpc_out="quiet:$out" $services
[ "$out" != . ] || exit 0
for made in "$out"/protos/*; do
  cmp -s "$made" "protos/$(basename "$made")" || {
    echo "protos/$(basename "$made") is not what its .proto gives: run make proto and commit the result" >&2
    exit 1
  }
done
