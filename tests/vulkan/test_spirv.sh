# The kernels' SPIR-V is valid Vulkan 1.1. The argument, of test_spirv_matrix.sh, is which files; else all that need no
# cooperative matrices.
set -eu
pattern=${1:-}
validator=$LK_SOURCE_DIR/build/tools/spirv-val
[ -x "$validator" ] || validator=$(command -v spirv-val || true)
if [ -z "$validator" ]; then
    echo "SKIP: there is no spirv-val (Debian: spirv-tools)"
    exit 77
fi
count=0
for file in "$LK_BUILD_DIR"/spirv/*.spv; do
    case $file in
    *-cooperative*) [ -n "$pattern" ] || continue ;;
    *) [ -z "$pattern" ] || continue ;;
    esac
    [ -e "$file" ] || continue
    if ! "$validator" --target-env vulkan1.1 "$file" >"$LK_BUILD_DIR/spirv-val.log" 2>&1; then
        if grep -q 'Invalid capability operand' "$LK_BUILD_DIR/spirv-val.log"; then
            echo "SKIP: $validator is older than cooperative matrices"
            exit 77
        fi
        echo "$file:"
        cat "$LK_BUILD_DIR/spirv-val.log"
        exit 1
    fi
    count=$((count + 1))
done
if [ "$count" -eq 0 ]; then
    echo "SKIP: the build made none (it needs a glslangValidator${pattern:+ that knows GL_KHR_cooperative_matrix})"
    exit 77
fi
echo "$count modules are valid"
