#!/bin/sh
# Copies the wire contract into the package and describes it there: classifier.proto, .binpb (descriptors) and .pyi (types).
# With --check: compares instead, and fails when something is not current.
set -eu
cd "$(dirname "$0")/../.."
package=clients/python/src/shoal_client/_proto
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
cp protos/classifier.proto "$made/classifier.proto"
python -m grpc_tools.protoc -I"$made" --descriptor_set_out="$made/classifier.binpb" --mypy_out="quiet:$made" classifier.proto
for name in classifier.proto classifier.binpb classifier_pb2.pyi; do
  if [ "${1:-}" != --check ]; then
    cp "$made/$name" "$package/$name"
  elif ! cmp -s "$made/$name" "$package/$name"; then
    echo "$package/$name is not what protos/classifier.proto gives: run clients/python/generate.sh and commit the result" >&2
    exit 1
  fi
done
