#!/bin/sh
# The whole way with a small model: tokenize, plan, train with log and validation, stop and resume, eval, generate, merge.
set -u
model=$LK_SOURCE_DIR/tests/data/models/stories260k
# shellcheck source=tests/cli/shell.sh
. "$LK_SOURCE_DIR/tests/cli/shell.sh"
enter workflow

# The device is left to the program here, and drivers keep threads to the end, on which GCC 12's leak checker crashes. It
# looks at the same commands in the tests that name a device.
ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0
export ASAN_OPTIONS

head -n 100 "$LK_SOURCE_DIR/data/tinyshakespeare.txt" >train.txt
tail -n 12 "$LK_SOURCE_DIR/data/tinyshakespeare.txt" >held-out.txt

run 0 probe
has '^reference: '
has '^would be used: [a-z]*:0 '
run 0 probe --json
has '"backends": \['
has '"reason": '

run 0 tokenize --model "$model" --text 'Once upon a time'
has '^[0-9 ]*$'
ids=$(cat out)
run 0 tokenize --model "$model" --ids "$ids" --skip-special
has '^ \{0,1\}Once upon a time$'
run 0 tokenize --model "$model" --text 'Once upon a time' --json
has '"ids": \['

run 0 plan --model "$model" --batch 2 --seq 64
has '^trained: [0-9]* parameters, [0-9.]* % of the model'
has '^saved: [0-9.]* MiB of gradients and moments'
run 0 plan --model "$model" --batch 2 --seq 64 --json
has '^{'

run 0 eval --model "$model" --data held-out.txt --seq 32 --json
before=$(number loss out)
options="--model $model --data train.txt --batch 2 --seq 32 --lr 2e-3 --seed 3"
# shellcheck disable=SC2086 # words
run 0 train $options --out adapter --steps 16 --val held-out.txt --log log.jsonl --json
has '"validation_loss":'
has 'train 16/16' err
[ "$(grep -c '"loss":' log.jsonl)" -eq 16 ] || fail 'the log has not one line per step'
for key in step loss learning_rate tokens step_seconds data_seconds tokens_per_second grad_norm; do
    has "\"$key\":" log.jsonl
done
close "$(number validation_loss_before out)" "$before" || fail "eval's loss $before is not that before training"
run 0 eval --model "$model" --adapter adapter --data held-out.txt --seq 32 --json
after=$(number loss out)
less "$after" "$before" || fail "the held-out loss did not fall: $before, then $after"

# Adapters trained side by side are what each is alone, clipped, validated and resumed, too.
options="--model $model --batch 2 --seq 32 --lr 2e-3 --seed 3 --device cpu --max-grad-norm 0.5"
mixed="--mix first=train.txt --mix second=held-out.txt --val second=train.txt --out pair --log pair.jsonl"
# shellcheck disable=SC2086
run 0 train $options $mixed --steps 2 --save-every 2
has '"adapters":{"first":{"loss":[0-9.]*,"grad_norm":[0-9.]*,' pair.jsonl
has '"adapter":"second","validation_loss":' pair.jsonl
# shellcheck disable=SC2086
run 0 train $options $mixed --steps 4 --resume --val-every 1 --early-stopping 9 --val first=train.txt
has '^second  *loss [0-9.]* at last$'
has '^adapter  *pair/second$'
has 'resumed after step 2' err
[ "$(grep -c '"grad_norm":.*"learning_rate"' pair.jsonl)" -eq 4 ] || fail 'the log has not one line per step'
# shellcheck disable=SC2086
run 0 train $options --data held-out.txt --out alone --steps 4
run 0 eval --model "$model" --adapter alone --data held-out.txt --seq 32 --json
alone=$(number loss out)
run 0 eval --model "$model" --adapter pair/second --data held-out.txt --seq 32 --json
close "$(number loss out)" "$alone" || fail "the second adapter's loss is $(number loss out), alone $alone"

# The same run, stopped by a signal and resumed, makes the same adapter. The log is a pipe: the program waits there for
# a reader, and then has all its steps before it.
options="--model $model --data train.txt --batch 1 --seq 16 --lr 2e-3 --seed 3 --steps 60 --schedule linear"
mkfifo pipe
# shellcheck disable=SC2086
"$lorikeet" train $options --out stopped --log pipe >out 2>err </dev/null &
process=$!
exec 3<pipe
read -r first_line <&3
kill -TERM "$process"
wait "$process"
status=$?
exec 3<&-
what='a stopped run'
[ "$status" -eq 143 ] || fail "$what: exit status $status instead of 143"
has 'stopped after step [0-9]* of 60' err
case $first_line in
'{"step":1,'*) ;;
*) fail "$what: the log begins with $first_line" ;;
esac
[ -s stopped/adapter_model.safetensors ] || fail "$what: no adapter was saved"
# shellcheck disable=SC2086
run 0 train $options --out stopped --resume
has 'resumed after step' err
# shellcheck disable=SC2086
run 0 train $options --out straight --quiet
[ ! -s err ] || fail '--quiet is not quiet'
cmp stopped/adapter_model.safetensors straight/adapter_model.safetensors || fail 'resuming changed the result'

run 0 generate --model "$model" --adapter adapter --prompt 'Once upon a time' --max-tokens 16
[ -s out ] || fail 'nothing was generated'
cp out first
run 0 generate --model "$model" --adapter adapter --prompt 'Once upon a time' --max-tokens 16
cmp first out || fail 'greedy generation differs between runs'
run 0 generate --model "$model" --prompt 'Once upon a time' --max-tokens 16 --temperature 1 --seed 5 --json
has '"new_tokens": '

run 0 merge --model "$model" --adapter adapter --out merged
run 0 eval --model merged --data held-out.txt --seq 32 --json
merged=$(number loss out)
close "$merged" "$after" ||
    fail "the merged model's loss is $merged, with the adapter it is $after"

fails 'no-such-model' eval --model no-such-model --data held-out.txt
fails 'no-such-file.txt' eval --model "$model" --data no-such-file.txt
fails 'no-such-adapter' eval --model "$model" --adapter no-such-adapter --data held-out.txt
fails 'no_such_proj' train --model "$model" --data train.txt --out unused --targets no_such_proj
fails 'no-such-folder/log.jsonl' train --model "$model" --data train.txt --out unused --log no-such-folder/log.jsonl

# The folder of the base model is not written over, however it is spelt. (A copy: a failure must not harm the sources.)
cp -R merged base && cp base/model.safetensors base-weights
fails 'the base model lies there' merge --model base --adapter adapter --out ./base/../base/
cmp base-weights base/model.safetensors || fail 'the base model was overwritten'
printf '1 2 3\t-100 -100 -100\n' >no-targets.ids
fails 'no token with a loss' train --model "$model" --data no-targets.ids --out unused

finish
