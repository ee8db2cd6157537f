# What the tests of whole commands share; sourced. work: an empty folder, where they run.
# shellcheck shell=sh disable=SC2034 # used by those that source it
lorikeet=$LK_BUILD_DIR/lorikeet
failures=0

fail() {
    echo "FAILED: $1"
    echo "--- stdout"
    head -n 40 out
    echo "--- stderr"
    head -n 40 err
    failures=$((failures + 1))
}

# enter NAME: makes the folder and goes there.
enter() {
    work=$LK_BUILD_DIR/tests-cli-$1
    rm -rf "$work"
    mkdir -p "$work"
    cd "$work" || exit 1
}

# run STATUS ARGUMENTS...
run() {
    expected=$1
    shift
    what="lorikeet $*"
    "$lorikeet" "$@" >out 2>err </dev/null
    status=$?
    # GCC 12's leak checker, which runs last, may crash on threads that drivers keep: that says nothing of the program
    if grep -q 'LeakSanitizer has encountered a fatal error' err; then
        status=$expected
        sed -i '/^Tracer caught signal/,$d' err
    fi
    [ "$status" -eq "$expected" ] || fail "$what: exit status $status instead of $expected"
}

# has TEXT [FILE]: the last run's stdout, or the file, has it.
has() {
    grep -q -e "$1" "${2:-out}" || fail "$what: no '$1' in ${2:-stdout}"
}

# fails TEXT ARGUMENTS...: status 1, one line that names what is at fault, nothing on stdout.
fails() {
    text=$1
    shift
    run 1 "$@"
    grep -q -F -e "$text" err || fail "$what: the message does not say: $text"
    [ ! -s out ] || fail "$what: wrote to stdout"
}

# number KEY FILE: the first value of a key in JSON.
number() {
    sed -n "s/.*\"$1\": *\(-\{0,1\}[0-9.eE+-]*\).*/\1/p" "$2" | head -n 1
}

less() {
    awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && b != "" && a + 0 < b + 0) }'
}

# close A B: but for the order of summation
close() {
    awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; exit !(a != "" && b != "" && d < 1e-4 && d > -1e-4) }'
}

finish() {
    [ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
}
