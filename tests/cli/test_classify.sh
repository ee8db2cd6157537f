#!/bin/sh
# Training a classifier, early stopping, classifying texts, merging with a head of another number of classes.
set -u
# shellcheck source=tests/cli/shell.sh
. "$LK_SOURCE_DIR/tests/cli/shell.sh"
enter classify

# A tiny encoder, with a tokenizer whose letters come first.
cp -R "$LK_SOURCE_DIR/tests/data/models/tiny-bert" model
chmod -R u+w model
cp "$LK_SOURCE_DIR/tests/data/tokenizers/words/tokenizer.json" model/
for word in a b c d; do
    for other in a b c d e f; do
        case $word in a | b) class=0 ;; *) class=1 ;; esac
        printf '%s\t%s %s\n' "$class" "$word" "$other"
    done
done >train.tsv

run 0 train --device cpu --model model --task classify --labels 2 --data train.tsv --val train.tsv --out adapter \
    --rank 4 --lr 2e-2 --batch 8 --seq 16 --pack --steps 40 --val-every 10 --seed 1 --log log.jsonl
has 'samples/s'
has 'classes   accuracy 1.0000, F1 1.0000, macro F1 1.0000, 24 texts'
has 'class   0      12       0'
has '"validation_accuracy":' log.jsonl
run 0 eval --device cpu --model model --task classify --labels 2 --adapter adapter --data train.tsv --seq 16 --json
has '"confusion": \['
has '"samples_per_second":'
loss=$(number loss out)

# Every text gets its class, in whatever form it comes.
cut -f2 train.tsv >texts.txt
options='--device cpu --model model --labels 2 --adapter adapter --names bad,good --quiet'
# shellcheck disable=SC2086 # words
run 0 classify $options --file texts.txt
cut -f1 out >found
sed 's/^0.*/bad/;s/^1.*/good/' train.tsv | cmp - found || fail "$what: other classes than trained"
# shellcheck disable=SC2086
run 0 classify $options --file train.tsv --batch 1 --seq 16
cut -f1 out | cmp - found || fail "$what: a .tsv's texts have other classes"
sed 's/.*/{"text": "&"}/' texts.txt >texts.jsonl
# shellcheck disable=SC2086
run 0 classify $options --file texts.jsonl --json
[ "$(grep -c '"probabilities":{"bad":' out)" -eq 24 ] || fail "$what: not 24 objects"
# shellcheck disable=SC2086
run 0 classify $options --text 'a c' --all
has '^bad	bad=[01]\.[0-9]* good=0\.[0-9]*	a c$'

# The model as loaded has three classes a, b, c; two were trained: the merged model says so in its config.json.
run 0 merge --device cpu --model model --task classify --labels 2 --adapter adapter --out merged
has '"LABEL_1"' merged/config.json
grep -q '"2":' merged/config.json && fail 'the merged model has a third label'
has 'BertForSequenceClassification' merged/config.json
run 0 eval --device cpu --model merged --task classify --data train.tsv --seq 16 --json
close "$(number loss out)" "$loss" || fail "the merged model's loss is $(number loss out), with the adapter it is $loss"
run 0 classify --device cpu --model merged --text 'd c' --quiet
has '^LABEL_1	'
run 0 classify --device cpu --model model --text 'd c' --quiet
has '^[abc]	0'

# Early stopping: with this rate the loss of unseen labels rises, so the run ends before its last step.
sed 's/^0/2/;s/^1/0/;s/^2/1/' train.tsv >other.tsv
run 0 train --device cpu --model model --task classify --labels 2 --data train.tsv --val other.tsv --out stopped \
    --rank 4 --lr 1e-2 --batch 8 --seq 16 --pack --steps 200 --val-every 5 --early-stopping 2 --seed 1 --json
has '"stopped_early": true'
best=$(number best_validation_loss out)
less "$(number steps out)" 200 || fail "$what: went on to the end"
run 0 eval --device cpu --model model --task classify --labels 2 --adapter stopped --data other.tsv --seq 16 --json
close "$(number loss out)" "$best" || fail "the kept adapter has the loss $(number loss out), the best was $best"

fails 'no-such.txt' classify --device cpu --model model --file no-such.txt
printf '{"words": 1}\n' >wrong.jsonl
fails 'wrong.jsonl: line 1: there is no "text"' classify --device cpu --model model --file wrong.jsonl
printf 'no tab\n' >wrong.tsv
fails 'wrong.tsv: line 1: expected a class, a TAB' classify --device cpu --model model --file wrong.tsv
fails '--names gives 2 names, the model has 3' classify --device cpu --model model --text a --names x,y
finish
