#!/bin/sh
# The shared library exports the functions the public headers declare and nothing else; whatever else the static library
# defines globally begins with lk_ too, so that it cannot clash with a program's own names.
set -eu
if ! command -v nm >/dev/null 2>&1; then
    echo "SKIP: no nm"
    exit 77
fi
work=$LK_BUILD_DIR/tests-symbols
mkdir -p "$work"

nm -D --defined-only "$LK_BUILD_DIR/liblorikeet.so" | awk '$2 ~ /[TDBRVW]/ { print $3 }' |
    sed 's/@.*//' | grep -v -e '^__asan' -e '^__odr_asan' -e '^_init$' -e '^_fini$' | sort -u >"$work/exported"
sed "/^#/d" "$LK_SOURCE_DIR"/include/*.h | tr '\n' ' ' | sed 's/LK_API/\n&/g' |
    sed -n 's/^LK_API [^(;]*[ *]\(lk_[a-z0-9_]*\)[(;].*/\1/p' | sort -u >"$work/declared"
[ -s "$work/declared" ] || { echo "found no declarations"; exit 1; }
if ! diff "$work/declared" "$work/exported"; then
    echo "declared with LK_API (<) and exported by the shared library (>) differ"
    exit 1
fi

foreign=$(nm -g --defined-only "$LK_BUILD_DIR/liblorikeet.a" 2>/dev/null | awk 'NF == 3 { print $3 }' |
    grep -v -e '^lk_' -e '^__asan' -e '^__odr_asan' -e '^__tsan' -e '^DW.ref' || true)
if [ -n "$foreign" ]; then
    echo "the static library defines names that do not begin with lk_:"
    echo "$foreign"
    exit 1
fi
