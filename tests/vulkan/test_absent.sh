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
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# check WHAT: with the environment as it is
check() {
    output=$("$program" probe 2>&1) || { echo "$1: the probe failed: $output"; exit 1; }
    case $output in
    *mesa-vulkan-drivers* | *libvulkan-dev* | *glslang-tools*) ;;
    *)
        echo "$1: the probe does not say what to install: $output"
        exit 1
        ;;
    esac
    status=0
    output=$("$program" train --device vulkan --model /nonexistent --data /nonexistent --out /nonexistent 2>&1) ||
        status=$?
    case $status:$output in
    *'
'*)
        echo "$1: more than one line: $output"
        exit 1
        ;;
    1:*install*) ;;
    *)
        echo "$1: status $status: $output"
        exit 1
        ;;
    esac
}

VK_ICD_FILENAMES=/nonexistent.json VK_DRIVER_FILES=/nonexistent.json
export VK_ICD_FILENAMES VK_DRIVER_FILES
check 'no driver'
# a loader that cannot be loaded stands before the real one
for name in libvulkan.so.1 libvulkan.so; do
    echo 'not a library' >"$folder/$name"
done
LD_LIBRARY_PATH=$folder
export LD_LIBRARY_PATH
check 'no loader'
