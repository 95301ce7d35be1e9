#!/bin/sh
# Generates the Python code of protos/*.proto beside them. With --check: compares instead, and fails when it is not current.
set -eu
cd "$(dirname "$0")/.."
out=.
if [ "${1:-}" = --check ]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
fi
tensorflow="protos/tensorflow.proto protos/tensorflow_error.proto protos/tensorflow_serving.proto"
messages="protos/bundle.proto protos/classifier.proto protos/inference.proto $tensorflow"
services="protos/classifier.proto protos/inference.proto protos/tensorflow_serving.proto"
# shellcheck disable=SC2086  lists of names
python -m grpc_tools.protoc -I. --python_out="$out" --mypy_out="quiet:$out" $messages
# shellcheck disable=SC2086
python -m grpc_tools.protoc -I. --grpc_python_out="$out" --mypy_grpc_out="quiet:$out" $services
# Copies of TensorFlow's messages go to a pool of their own: see protos/tensorflow_pool.py.
for proto in $tensorflow; do
  made="$out/${proto%.proto}_pb2.py"
  sed -i.bak 's/^from google.protobuf import descriptor_pool as /from protos import tensorflow_pool as /' "$made"
  rm "$made.bak"
done
[ "$out" != . ] || exit 0
for made in "$out"/protos/*; do
  cmp -s "$made" "protos/$(basename "$made")" || {
    echo "protos/$(basename "$made") is not what its .proto gives: run make proto and commit the result" >&2
    exit 1
  }
done
