#!/bin/sh
# Each public header compiles by itself as C++17, without a warning.
set -eu
if [ -z "$CXX" ]; then
    echo "SKIP: no C++ compiler"
    exit 77
fi
for header in "$LK_SOURCE_DIR"/include/*.h; do
    name=$(basename "$header")
    echo "$name"
    printf '#include "%s"\nint main() { return 0; }\n' "$name" |
        "$CXX" -std=c++17 -pedantic -Wall -Wextra -Werror -fsyntax-only -I"$LK_SOURCE_DIR/include" -x c++ -
done
