#!/bin/sh
# Search: the journal, halving, stopping and resuming, the picture.
set -u
model=$LK_SOURCE_DIR/tests/data/models/stories260k
# shellcheck source=tests/cli/shell.sh
. "$LK_SOURCE_DIR/tests/cli/shell.sh"
enter search
head -n 60 "$LK_SOURCE_DIR/data/tinyshakespeare.txt" >train.txt
tail -n 12 "$LK_SOURCE_DIR/data/tinyshakespeare.txt" >held-out.txt

options="--device cpu --model $model --data train.txt --val held-out.txt --batch 1 --seq 32 --trials 6 --steps 8
    --min-steps 2 --eta 2 --ranks 2,4 --alphas 4,8 --targets q_proj,v_proj;all-linear --dropouts 0,0.1 --lr-min 1e-4
    --lr-max 1e-2 --seed 3"
# shellcheck disable=SC2086 # words
run 0 search $options --out whole
# 6 trials of 2 steps, 3 of 4, 1 of 8
[ "$(grep -c '"rung":0,"steps":2,' whole/journal.jsonl)" -eq 6 ] || fail 'not six trials at first'
[ "$(grep -c '"rung":1,"steps":4,' whole/journal.jsonl)" -eq 3 ] || fail 'not three trials go on'
[ "$(grep -c '"rung":2,"steps":8,' whole/journal.jsonl)" -eq 1 ] || fail 'not one trial comes through'
[ "$(wc -l <whole/journal.jsonl)" -eq 10 ] || fail 'the journal has not ten lines'
[ "$(grep -c '^ *[0-9]' out)" -eq 6 ] || fail 'the table has not six rows'
cp out table
best=$(sed -n '2s/^ *\([0-9]*\) .*/\1/p' out)
has "best: trial $best" err
loss=$(sed -n '2p' out | awk '{ print $7 }')
run 0 eval --device cpu --model "$model" --adapter "whole/trial-$best" --data held-out.txt --batch 1 --seq 32 --json
close "$(number loss out | cut -c1-6)" "$loss" || fail "the best adapter's loss is $(number loss out), the table says $loss"
[ "$(grep -c '<circle' whole/search.svg)" -eq 8 ] || fail 'the picture has not six trials and two ranks'
tail -n 1 whole/search.svg | grep -q '</svg>' || fail 'the picture is not complete'

# shellcheck disable=SC2086
fails 'journal.jsonl is there already' search $options --out whole
# shellcheck disable=SC2086
run 0 search $options --out whole --resume
cmp out table || fail "$what: another table"
[ "$(wc -l <whole/journal.jsonl)" -eq 10 ] || fail "$what: what was there was done again"
sed 's/--seed 3/--seed 4/' <<END >other
$options
END
# shellcheck disable=SC2046
run 1 search $(cat other) --out whole --resume
has 'line 1 is not of this search' err

# Stopped by a signal in its first trials, it goes on to the same end; a line that was cut short is done again.
mkfifo pipe
# shellcheck disable=SC2086
"$lorikeet" search $options --out stopped 2>pipe >out </dev/null &
process=$!
exec 3<pipe
read -r first_line <&3
kill -TERM "$process"
cat <&3 >err
wait "$process"
status=$?
exec 3<&-
what="a stopped search ($first_line)"
[ "$status" -eq 143 ] || [ "$status" -eq 0 ] || fail "$what: exit status $status"
if [ "$status" -eq 143 ]; then
    printf '{"trial":1,"ru' >>stopped/journal.jsonl
    # shellcheck disable=SC2086
    run 0 search $options --out stopped --resume
fi
sed 's/,"seconds":.*//' whole/journal.jsonl >expected-journal
sed 's/,"seconds":.*//' stopped/journal.jsonl | cmp - expected-journal || fail 'stopping changed the result'

# shellcheck disable=SC2086
run 2 search $options --out x --ranks 4,zero
has '--ranks zero: must be from 1' err
# shellcheck disable=SC2086
run 2 search $options --out x --lr-min 1 --lr-max 0.1
has 'expected 0 < lr-min <= lr-max' err
finish
