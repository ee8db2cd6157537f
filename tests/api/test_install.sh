#!/bin/sh
# Installs into the build folder and builds the examples against what was installed, as a user would: with the flags
# of pkg-config (shared and static), and with find_package.
set -eu
work=$LK_BUILD_DIR/tests-install
prefix=$work/prefix
rm -rf "$work"
mkdir -p "$work"
"$CMAKE" --install "$LK_BUILD_DIR" --prefix "$prefix" >"$work/install.log"

for file in include/lorikeet.h include/lorikeet/status.def "$LK_LIBDIR/liblorikeet.so" "$LK_LIBDIR/liblorikeet.a" \
    "$LK_LIBDIR/pkgconfig/lorikeet.pc"; do
    [ -e "$prefix/$file" ] || { echo "$file was not installed"; exit 1; }
done
if grep -rl -F -e "$LK_SOURCE_DIR/" "$prefix/include" "$prefix/$LK_LIBDIR/pkgconfig" "$prefix/$LK_LIBDIR/cmake"; then
    echo "installed files name the source folder"
    exit 1
fi

export PKG_CONFIG_PATH="$prefix/$LK_LIBDIR/pkgconfig"
version=$(pkg-config --modversion lorikeet)
for source in "$LK_SOURCE_DIR"/examples/*.c; do
    name=$(basename "$source" .c)
    echo "pkg-config: $name"
    # shellcheck disable=SC2046,SC2086 # flags are lists of words
    "$CC" $CFLAGS -std=c11 -o "$work/$name-shared" "$source" $(pkg-config --cflags --libs lorikeet)
    # shellcheck disable=SC2046,SC2086
    "$CC" $CFLAGS -std=c11 -o "$work/$name-static" "$source" $(pkg-config --cflags lorikeet) \
        "$prefix/$LK_LIBDIR/liblorikeet.a" $(pkg-config --libs --static lorikeet | sed 's/-llorikeet//')
done
shared=$(LD_LIBRARY_PATH="$prefix/$LK_LIBDIR" "$work/version-shared")
[ "$shared" = "lorikeet $version" ] || { echo "the example printed '$shared'"; exit 1; }
[ "$("$work/version-static")" = "lorikeet $version" ] || { echo "the static example printed something else"; exit 1; }

echo "find_package"
"$CMAKE" -G Ninja -S "$LK_SOURCE_DIR/examples" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$CC" \
    -DCMAKE_C_FLAGS="$CFLAGS" -DCMAKE_BUILD_TYPE=Release >"$work/configure.log" 2>&1 ||
    { cat "$work/configure.log"; exit 1; }
"$CMAKE" --build "$work/cmake" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
[ "$("$work/cmake/version")" = "lorikeet $version" ] || { echo "built with find_package, it printed something else"; exit 1; }
[ "$("$work/cmake/version_static")" = "lorikeet $version" ] || { echo "the static target's example failed"; exit 1; }

# The example that trains, on a small model.
head -n 100 "$LK_SOURCE_DIR/data/tinyshakespeare.txt" >"$work/text.txt"
"$work/cmake/train" "$LK_SOURCE_DIR/tests/data/models/stories260k" "$work/text.txt" "$work/adapter" 2 \
    >"$work/train.log" 2>&1 || { cat "$work/train.log"; exit 1; }
[ -s "$work/adapter/adapter_model.safetensors" ] || { echo "no adapter was written"; exit 1; }
