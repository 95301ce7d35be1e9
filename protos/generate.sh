#!/bin/sh
# Generates the Python code of protos/*.proto beside them. With --check: compares instead, and fails when it is not current.
set -eu
cd "$(dirname "$0")/.."
out=.
if [ "${1:-}" = --check ]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
fi
python -m grpc_tools.protoc -I. --python_out="$out" --mypy_out="quiet:$out" protos/bundle.proto protos/classifier.proto
python -m grpc_tools.protoc -I. --grpc_python_out="$out" --mypy_grpc_out="quiet:$out" protos/classifier.proto
[ "$out" != . ] || exit 0
for made in "$out"/protos/*; do
  cmp -s "$made" "protos/$(basename "$made")" || {
    echo "protos/$(basename "$made") is not what its .proto gives: run make proto and commit the result" >&2
    exit 1
  }
done
