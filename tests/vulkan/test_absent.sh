# Machines without a Vulkan driver: the probe says what to install and succeeds, --device vulkan fails with one line.
set -eu
program=$LK_BUILD_DIR/lorikeet
if [ ! -x "$program" ]; then
    echo "SKIP: the program was not built"
    exit 77
fi
if ldd "$program" | grep -i vulkan; then
    echo "the program is linked with Vulkan"
    exit 1
fi
VK_ICD_FILENAMES=/nonexistent.json
VK_DRIVER_FILES=/nonexistent.json
export VK_ICD_FILENAMES VK_DRIVER_FILES
output=$("$program" probe 2>&1) || { echo "probe failed: $output"; exit 1; }
case $output in
*mesa-vulkan-drivers* | *libvulkan-dev* | *glslang-tools*) ;;
*)
    echo "the probe does not say what to install: $output"
    exit 1
    ;;
esac
status=0
output=$("$program" train --device vulkan --model /nonexistent --data /nonexistent --out /nonexistent 2>&1) || status=$?
if [ "$status" -ne 1 ] || [ "$(printf '%s\n' "$output" | wc -l)" -ne 1 ]; then
    echo "status $status: $output"
    exit 1
fi
case $output in
*install*) ;;
*)
    echo "$output"
    exit 1
    ;;
esac
