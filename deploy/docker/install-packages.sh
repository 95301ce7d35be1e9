#!/bin/sh
# For image builds: installs what the file $1 pins, by hash, into a new virtual environment without pip, /opt/shoal.
# With --slim, which needs binutils, it then takes off 75 MB that no server runs: packages' tests, stubs, headers, converters,
# quantizers, and the debugging symbols that some wheels bring. Libraries beside the extension modules stay as they are,
# since the tool that put them into the wheels has rewritten them in a way that strip does not know.
set -eu
requirements=$1 slim=${2:-}

python3 -m venv /opt/pip
python3 -m venv --without-pip /opt/shoal
/opt/pip/bin/pip --python /opt/shoal/bin/python install --no-cache-dir --disable-pip-version-check \
  --require-hashes --only-binary :all: -r "$requirements"

[ "$slim" = --slim ] || exit 0
packages=$(echo /opt/shoal/lib/python3*/site-packages)
find "$packages" -depth \( -type d -name tests -o -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' \) \
  -exec rm -r {} +
rm -r "$packages"/numpy/f2py "$packages"/onnxruntime/transformers "$packages"/onnxruntime/tools \
  "$packages"/onnxruntime/quantization
find "$packages" \( -name '*.cpython-*.so' -o -name '*.abi3.so' \) -exec strip --strip-unneeded {} +
