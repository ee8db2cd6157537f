#!/bin/sh
# Each public header compiles by itself as strict C11, without a warning.
set -eu
for header in "$LK_SOURCE_DIR"/include/*.h; do
    name=$(basename "$header")
    echo "$name"
    printf '#include "%s"\nint main(void) { return 0; }\n' "$name" |
        "$CC" -std=c11 -pedantic -Wall -Wextra -Wshadow -Wstrict-prototypes -Werror -fsyntax-only \
            -I"$LK_SOURCE_DIR/include" -x c -
done
