# A mistake in a kernel is reported at its line of the .lk file, as GLSL and as CUDA C++ (OpenCL C: opencl/cache).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
sed 's/int row = LK_GROUP_INDEX;/int row = no_such_name;/' "$LK_SOURCE_DIR/shaders/rms_norm.lk" >"$folder/planted.lk"
line=$(grep -n no_such_name "$folder/planted.lk" | cut -d: -f1)
[ -n "$line" ]
tried=

# check LANGUAGE WHERE COMMAND...: fails, and names the place
check() {
    language=$1
    where=$2
    shift 2
    if "$@" >"$folder/log" 2>&1; then
        echo "$language: the mistake was not noticed"
        exit 1
    fi
    if ! grep -F "$where" "$folder/log" | grep -q error -i || ! grep -q no_such_name "$folder/log"; then
        echo "$language: the message is not at $where:"
        cat "$folder/log"
        exit 1
    fi
    tried="$tried $language"
}

if command -v glslangValidator >/dev/null; then
    check GLSL "planted.lk:$line:" "$CMAKE" -DCC="$CC" -DGLSLANG=glslangValidator -DSHADER="$folder/planted.lk" \
        -DENTRY=rms_norm -DOUTPUT="$folder/planted.spv" -P "$LK_SOURCE_DIR/cmake/compile_spirv.cmake"
fi
PATH=$PATH:/usr/local/cuda/bin
if command -v nvcc >/dev/null; then
    cat >"$folder/planted.cu" <<'END'
#include "lk_cuda.h"
#define LK_SET_GROUP 64
#define LK_SET_LANES 1
#define LK_ENTRY_rms_norm 1
#define LK_VARIANT planted
#include "lk_common.h"
#include "planted.lk"
END
    check CUDA "planted.lk($line)" nvcc -std=c++17 -I"$LK_SOURCE_DIR/shaders" -I"$folder" -ptx -o "$folder/planted.ptx" \
        "$folder/planted.cu"
fi
if [ -z "$tried" ]; then
    echo "SKIP: there is neither glslangValidator nor nvcc"
    exit 77
fi
echo "tried:$tried"
