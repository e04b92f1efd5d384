#!/bin/sh
# Makes an installed prefix small and quick to import: trim.sh PREFIX [PACKAGE...]
#
# Removes what a server never opens (tests, headers, sources of compiled modules, torch's C++ programs),
# strips debug symbols, and compiles byte code under the path it will have, /usr/local. With packages
# named, only those are compiled. Byte code is not checked against the sources: tools that squash layers
# change the sources' times, and a read-only container could not write it again.
set -eu

prefix=$1
site=$prefix/lib/python3.11/site-packages
shift

if [ $# = 0 ]; then
  find "$site" -depth -type d \( -name tests -o -name test \) -not -path '*/numpy/testing/*' -exec rm -rf {} +
  find "$site" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.pyi' -o -name '*.h' -o -name '*.hpp' \
    -o -name '*.cuh' -o -name '*.a' -o -name '*.cmake' -o -name '*.c' -o -name '*.cpp' \) -delete
  rm -rf "$prefix/include" "$prefix/share" "$site/sklearn/datasets/images"
  if [ -d "$site/torch" ]; then
    # Programs and libraries of torch's own tests; one module there is written for Python 3.12.
    find "$site/torch/bin" -mindepth 1 -maxdepth 1 -not -name torch_shm_manager -exec rm -rf {} +
    rm -rf "$site/torch/include" "$site/torch/share" "$site"/torch/lib/*_test.so "$site/torch/lib/libaoti_custom_ops.so" \
      "$site/torch/lib/libbackend_with_compiler.so" "$site/torch/testing/_internal/py312_intrinsics.py"
  fi
  # The bundled libraries (*.libs) were rewritten by auditwheel and hold no symbols worth the risk.
  find "$site" -type f -name '*.so*' -not -path '*.libs/*' -exec strip --strip-unneeded {} +
  set -- .
fi

for package; do
  python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash -s "$prefix" -p /usr/local "$site/$package"
done
