#!/bin/sh
# `lorikeet probe` on a machine with neither drivers nor loaders; what the environment overrides; and that neither the
# program nor the library is linked with anything of a GPU.
set -eu
program=$LK_BUILD_DIR/lorikeet
model=$LK_SOURCE_DIR/tests/data/models/stories260k
if [ ! -x "$program" ]; then
    echo "SKIP: the program was not built"
    exit 77
fi
fail() {
    echo "$*"
    exit 1
}
for file in "$program" "$LK_BUILD_DIR"/liblorikeet.so; do
    if ldd "$file" 2>/dev/null | grep -i -e vulkan -e opencl -e cuda -e nvidia -e pocl; then
        fail "$file is linked with a library of a GPU"
    fi
done

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for name in libvulkan.so.1 libvulkan.so libOpenCL.so.1 libOpenCL.so libcuda.so.1; do
    echo 'not a library' >"$folder/$name"
done
LD_LIBRARY_PATH=$folder "$program" probe >"$folder/text" || fail "probe without drivers failed"
LD_LIBRARY_PATH=$folder "$program" probe --json >"$folder/json" || fail "probe --json without drivers failed"
for backend in cuda opencl vulkan; do
    grep -A1 "^$backend:" "$folder/text" | grep -q -e 'not here:.*install' -e 'not here:.*built without' ||
        fail "probe does not say what $backend lacks: $(cat "$folder/text")"
done
grep -q 'would be used: cpu:0' "$folder/text" || fail "without drivers the CPU is not taken"
grep -q '"chosen"' "$folder/json" || fail "probe --json does not say what is chosen"

# flags are stronger than the environment, the environment than the choice
plan() { "$program" plan --model "$model" --batch 1 --seq 16 "$@"; }
LORIKEET_DEVICE=reference plan >"$folder/text" || fail "LORIKEET_DEVICE=reference failed"
grep -q '^device reference:0 ' "$folder/text" || fail "LORIKEET_DEVICE is not heard"
LORIKEET_DEVICE=reference plan --device cpu >"$folder/text" || fail "--device cpu failed"
grep -q '^device cpu:0 .*asked for by name' "$folder/text" || fail "--device is weaker than LORIKEET_DEVICE"
plan --device cpu >"$folder/text"
other=$(sed -n 's/^ *not \(cpu_[a-z0-9_]*\): estimated.*/\1/p' "$folder/text" | head -1)
[ -n "$other" ] || fail "no operation has two kernels that fit"
LORIKEET_KERNELS=$other plan --device cpu >"$folder/text"
grep -q "$other .*chosen by override" "$folder/text" || fail "LORIKEET_KERNELS=$other is not heard"
LORIKEET_KERNELS=none plan --device cpu --kernels "$other" >"$folder/text"
grep -q "$other .*chosen by override" "$folder/text" || fail "--kernels $other is not heard"
