#!/bin/sh
# Help texts, and what happens with wrong usage: one clear line on stderr, exit status 2, nothing on stdout.
set -u
lorikeet=$LK_BUILD_DIR/lorikeet
work=$LK_BUILD_DIR/tests-cli-usage
rm -rf "$work"
mkdir -p "$work"
failures=0

report() {
    echo "FAILED: $1"
    echo "--- stdout"
    cat "$work/out"
    echo "--- stderr"
    cat "$work/err"
    failures=$((failures + 1))
}

# run STATUS ARGUMENTS...: leaves the output in out and err.
run() {
    expected=$1
    shift
    what="lorikeet $*"
    "$lorikeet" "$@" >"$work/out" 2>"$work/err" </dev/null
    status=$?
    [ "$status" -eq "$expected" ] || report "$what: exit status $status instead of $expected"
}

# wrong TEXT ARGUMENTS...: usage is wrong, and the message has TEXT.
wrong() {
    text=$1
    shift
    run 2 "$@"
    head -n 1 "$work/err" | grep -q -F -e "$text" || report "$what: the first line does not say: $text"
    [ ! -s "$work/out" ] || report "$what: wrote to stdout"
    grep -q -e '--help' "$work/err" || report "$what: does not point at --help"
}

# One line with single spaces: where popt breaks a help's lines depends on what stands before.
on_one_line() {
    tr -s ' \n' ' '
}

# helps TEXT ARGUMENTS...: prints a help on stdout that has TEXT.
helps() {
    text=$1
    shift
    run 0 "$@"
    on_one_line <"$work/out" | grep -q -F -e "$(printf '%s' "$text" | on_one_line)" ||
        report "$what: the help lacks: $text"
    [ ! -s "$work/err" ] || report "$what: wrote to stderr"
}

helps 'Usage: lorikeet COMMAND' --help
helps 'Usage: lorikeet COMMAND' -h
helps 'Usage: lorikeet COMMAND' help
helps 'Usage: lorikeet train --model PATH --data FILE --out DIR' help train
# shellcheck disable=SC2013 # names have no spaces
for command in $(sed -n 's/^LK_COMMAND(\([a-z]*\),.*/\1/p' "$LK_SOURCE_DIR/cli/commands.def"); do
    helps "  $command " --help
    helps "Usage: lorikeet $command " "$command" --help
    grep -q '^Examples:$' "$work/out" || report "$command --help has no examples"
    wrong "lorikeet $command: unknown option --no-such-option" "$command" --no-such-option
done
helps 'rank=N' train -h
helps '(default 8)' train --help
helps '(default constant)' train --help
helps '(default all-linear)' train --help

run 0 --version
grep -q -x 'lorikeet [0-9]*\.[0-9]*\.[0-9]*' "$work/out" || report 'the version is not on one line'

run 2
grep -q '^Usage: lorikeet COMMAND' "$work/err" || report 'no arguments: no help'

wrong "unknown command 'trian'; did you mean 'train'?" trian
wrong "unknown command 'tokenise'; did you mean 'tokenize'?" tokenise
wrong "unknown command 'xyzzy'" xyzzy
wrong 'unknown option --model before the command' --model x
wrong 'did you mean --rank?' train --rnak 8
wrong 'did you mean --weight-decay?' train --weight_decay=0.1
wrong 'unknown option -Z' train -Z
wrong '--lr needs a value' train --lr
wrong '--pack=1 takes no value' train --pack=1
wrong "unexpected argument 'data.txt'" train data.txt
wrong '--model PATH is missing' train --data x --out y
wrong '--data FILE is missing' train --model x --out y
wrong '--out DIR is missing' train --model x --data y
wrong '--mix and --data exclude each other' train --model x --data y --out z --mix a=b
wrong 'expected NAME=FILE' train --model x --out z --mix a
wrong 'the name a is taken' train --model x --out z --mix a=b --mix a=c
wrong 'the name checkpoint is taken' train --model x --out z --mix checkpoint=b
wrong 'with the name of a --mix' train --model x --out z --mix a=b --val c=d
wrong '--early-stopping needs --val a=FILE' train --model x --out z --mix a=b --mix c=d --val c=d --val-every 1 --early-stopping 1
wrong '--val was given 2 times' train --model x --data y --out z --val a --val b
wrong '--out PATH is missing' merge --model x
wrong '--rank 0: must be from 1 to 65536' train --rank 0
wrong '--rank 99999999999999999999: must be from 1 to 65536' train --rank 99999999999999999999
wrong '--rank eight: not a whole number' train --rank eight
wrong '--rank 8x: not a whole number' train --rank=8x
wrong '--rank : not a whole number' train --rank=
wrong '--steps 0: must be at least 1' train --steps 0
wrong '--steps 99999999999999999999: must be from 1 to 1000000000000000' train --steps 99999999999999999999
wrong '--lr nan: not a number' train --lr nan
wrong '--lr -1: must be from 0 to' train --lr -1
wrong '--dropout 1.5: must be from 0 to 0.99' train --dropout 1.5
wrong '--seed -3: not a whole number from 0 to' train --seed -3
wrong '--schedule sine: must be one of constant, linear, cosine' train --schedule sine
wrong '--method lota: must be one of' train --method lota
wrong '--steps and --epochs exclude each other' train --model x --data y --out z --steps 1 --epochs 1
wrong '--val-every needs --val FILE' train --model x --data y --out z --val-every 5
wrong '--early-stopping needs --val-every N' train --model x --data y --out z --early-stopping 2
wrong 'there is no device foo' train --model x --data y --out z --device foo
wrong 'give one of --file and --text' classify --model x
wrong 'give one of --prompt and --prompts' generate --model x
wrong '--use needs --adapter' generate --model x --prompt y --use z
wrong '--beams and --temperature exclude' generate --model x --prompt y --beams 2 --temperature 1
wrong '--system needs --chat' generate --model x --prompt y --system z
wrong 'give one of --text, --file and --ids' tokenize --model x
wrong 'give one of --text, --file and --ids' tokenize --model x --text y --ids 1
wrong "--ids: '2x' is not a token id" tokenize --model x --ids '1 2x'
wrong "--ids: '-2' is not a token id" tokenize --model x --ids '1,-2'
wrong "--ids: '3000000000' is not a token id" tokenize --model x --ids 3000000000

[ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
