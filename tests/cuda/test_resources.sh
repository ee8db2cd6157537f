#!/bin/sh
# The kernels' registers, spills, shared memory and occupancy are no worse than tests/cuda/resources.txt says, and a
# table that promises more than there is is noticed.
set -eu
here=$LK_SOURCE_DIR/tests/cuda
status=0
"$here/resources" check "$LK_BUILD_DIR" || status=$?
[ "$status" -eq 0 ] || exit "$status"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/tests/cuda" "$work/backends/cuda"
cp "$here/resources" "$here/resources.awk" "$work/tests/cuda"
cp "$LK_SOURCE_DIR/backends/cuda/variants.txt" "$work/backends/cuda"
toolkit=$(sed -n 's/^const char lk_cuda_toolkit\[\] = "\(.*\)";/\1/p' "$LK_BUILD_DIR/cuda/images.c")
sed -e "s/^# nvcc .*/# nvcc $toolkit/" -e 's/^\(rms_norm_64_1 [0-9]* [0-9]* 0 [0-9]* 64\) [0-9]*/\1 101/' \
    "$here/resources.txt" > "$work/tests/cuda/resources.txt"
if "$work/tests/cuda/resources" check "$LK_BUILD_DIR" > "$work/said"; then
    echo "a lower occupancy of rms_norm is not noticed"
    exit 1
fi
grep -q 'rms_norm_64_1 has occupancy' "$work/said"
