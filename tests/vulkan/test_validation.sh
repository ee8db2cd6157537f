# The Khronos validation layers, with synchronization validation, over every kernel and a training run: no message at
# all. First a control: without barriers they must complain, or the test fails. (Accesses out of bounds: vulkan/bounds.)
set -eu
if ! find /usr/share/vulkan /usr/local/share/vulkan /etc/vulkan -name 'VkLayer_khronos_validation.json' 2>/dev/null | grep -q .; then
    echo "SKIP: the validation layers are not installed (Debian: vulkan-validationlayers)"
    exit 77
fi
case $CFLAGS in
*-fsanitize*)
    echo "SKIP: the validation layers are not run in a program built with sanitizers"
    exit 77
    ;;
esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation LORIKEET_CACHE_DIR="$folder/cache" CK_FORK=no
export VK_LAYER_ENABLES=VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT:VALIDATION_CHECK_ENABLE_SYNCHRONIZATION_VALIDATION_QUEUE_SUBMIT

status=0
"$LK_BUILD_DIR/test_vulkan_device" --unsynchronised >"$folder/control" 2>&1 || status=$?
if [ "$status" -eq 77 ]; then
    cat "$folder/control"
    exit 77
fi
if ! grep -q 'SYNC-HAZARD' "$folder/control"; then
    echo "the validation layers do not notice missing barriers: they are not at work"
    head -c 3000 "$folder/control"
    exit 1
fi

# check NAME COMMAND...: succeeds, and the layers say nothing
check() {
    name=$1
    shift
    status=0
    "$@" >"$folder/log" 2>&1 || status=$?
    if [ "$status" -ne 0 ] || grep -q 'VUID\|SYNC-HAZARD\|Validation ' "$folder/log"; then
        echo "$name: status $status"
        grep -m 5 'VUID\|SYNC-HAZARD\|Validation ' "$folder/log" | cut -c 1-1500
        tail -n 5 "$folder/log" | cut -c 1-500
        exit 1
    fi
    grep 'kernel runs\|Checks:' "$folder/log" || true
}

check kernels env LK_TEST_BACKEND=vulkan LK_TEST_MAX_ELEMENTS=2000 "$LK_BUILD_DIR/test_ops_conformance"
check device "$LK_BUILD_DIR/test_vulkan_device"
check training "$LK_BUILD_DIR/lorikeet" train --device vulkan --model "$LK_SOURCE_DIR/tests/data/models/stories260k" \
    --data "$LK_SOURCE_DIR/data/tinyshakespeare.txt" --out "$folder/adapter" --steps 2 --batch 2 --seq 16 --rank 4
