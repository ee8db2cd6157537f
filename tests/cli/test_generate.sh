#!/bin/sh
# Generation: many prompts, beams, stop strings, speeds.
set -u
model=$LK_SOURCE_DIR/tests/data/models/stories260k
adapter=$LK_SOURCE_DIR/tests/data/golden/stories260k-lora-qv/final_adapter
# shellcheck source=tests/cli/shell.sh
. "$LK_SOURCE_DIR/tests/cli/shell.sh"
enter generate

printf 'Once upon a time\n\nThe dog\nLily\n' >prompts.txt
run 0 generate --device cpu --model "$model" --prompts prompts.txt --batch 2 -n 16
[ "$(wc -l <out)" -eq 3 ] || fail "$what: not three lines"
has '^{"prompt":"The dog","text":"'
has '3 prompts: 48 new tokens' err
cp out plain
printf '{"prompt": "The dog", "id": 7}\n' >prompts.jsonl
run 0 generate --device cpu --model "$model" --prompts prompts.jsonl -n 16
has '^{"prompt":"The dog","id":7,"text":"'
text=$(sed 's/.*"text":"\([^"]*\)".*/\1/' out)
grep -q -F "\"text\":\"$text\"" plain || fail "$what: another text alone than in a batch"

run 0 generate --device cpu --model "$model" --prompt 'Once upon a time' -n 30 --beams 3 --no-repeat-ngram 2
[ -s out ] || fail "$what: no text"
run 0 generate --device cpu --model "$model" --prompt 'Once upon a time' -n 30 --stop zzz --stop girl --json
has '"stopped": true'
has '"text": ", there was a little "'
run 0 generate --device cpu --model "$model" --adapter "$adapter" --prompt 'Once upon a time' -n 8 --stats
for name in base adapter merged; do
    has "generate: $name *[0-9.]* new tokens/s" err
done

# Several adapters: each prompt is continued as with its own alone.
init=$LK_SOURCE_DIR/tests/data/golden/stories260k-lora-qv/init_adapter
printf '{"prompt": "The dog", "adapter": "trained"}\n{"prompt": "The dog", "adapter": "none"}\n{"prompt": "The dog"}\n' \
    >mixed.jsonl
text_of() {
    sed -n "$1s/.*\"text\":\"\([^\"]*\)\".*/\1/p" out
}
run 0 generate --device cpu --model "$model" --adapter start="$init" --adapter trained="$adapter" --prompts mixed.jsonl -n 16
trained=$(text_of 1)
base=$(text_of 2)
[ "$(text_of 3)" = "$base" ] || fail "$what: the untrained adapter changes the text"
run 0 generate --device cpu --model "$model" --adapter "$adapter" --prompt 'The dog' -n 16 --quiet
[ "$(sed 's/"/\\&/g' out)" = "$trained" ] || fail "$what: another text than among others: $trained"
run 0 generate --device cpu --model "$model" --prompt 'The dog' -n 16 --quiet
[ "$(cat out)" = "$base" ] || fail "$what: another text than among others: $base"
[ "$base" != "$trained" ] || fail 'the adapter changes nothing'
run 0 generate --device cpu --model "$model" --adapter x="$init" --adapter y="$adapter" --use y --prompt 'The dog' -n 16 --quiet
[ "$(sed 's/"/\\&/g' out)" = "$trained" ] || fail "$what: another text than with y alone"
fails "no adapter 'z'" generate --device cpu --model "$model" --adapter x="$init" --use z --prompt 'The dog'
fails 'the name x is taken' generate --device cpu --model "$model" --adapter x="$init" --adapter x="$adapter" --prompt a

fails 'no-such.txt' generate --device cpu --model "$model" --prompts no-such.txt
printf '{"text": 1}\n' >wrong.jsonl
fails 'wrong.jsonl: line 1: expected {"prompt"' generate --device cpu --model "$model" --prompts wrong.jsonl
printf '\n' >empty.txt
fails 'empty.txt: no prompts' generate --device cpu --model "$model" --prompts empty.txt
finish
