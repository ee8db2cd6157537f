#!/bin/sh
# Adapters through every format and back, and sums of adapters: the model computes the same with each.
set -u
data=$LK_SOURCE_DIR/tests/data
# shellcheck source=tests/cli/shell.sh
. "$LK_SOURCE_DIR/tests/cli/shell.sh"
enter convert

# loss MODEL DATA [ADAPTER]: into $found
loss() {
    if [ $# -gt 2 ]; then
        run 0 eval --device cpu --model "$1" --data "$2" --seq 64 --adapter "$3" --json
    else
        run 0 eval --device cpu --model "$1" --data "$2" --seq 64 --json
    fi
    found=$(number loss out)
}

# round MODEL RUN FORMATS...: through the formats in turn and back to PEFT
round() {
    model=$data/models/$1
    ids=$data/golden/$2/batches.ids
    adapter=$data/golden/$2/final_adapter
    loss "$model" "$ids"
    base=$found
    loss "$model" "$ids" "$adapter"
    wanted=$found
    close "$base" "$wanted" && fail "$2: its adapter changes nothing"
    shift 2
    rm -rf step-* back
    for format in "$@"; do
        run 0 convert --adapter "$adapter" --to "$format" --model "$model" --out "step-$format"
        adapter=step-$format
    done
    run 0 convert --adapter "$adapter" --to peft --model "$model" --out back
    loss "$model" "$ids" back
    close "$found" "$wanted" || fail "$model by way of $*: loss $found instead of $wanted"
}

# q and k of llama are permuted in GGUF; rsLoRA; patterns of rank and alpha; DoRA
round stories260k stories260k-lora-qv gguf mlx
cmp back/adapter_model.safetensors "$data/golden/stories260k-lora-qv/final_adapter/adapter_model.safetensors" ||
    fail 'the matrices are not the same bytes after two formats'
round tiny-llama-rope3 llama-rope3-rslora-masked gguf
grep -q '"use_rslora": true' back/adapter_config.json || fail 'rsLoRA was forgotten'
grep -q '"lora_alpha": 9' back/adapter_config.json || fail 'alpha is not what it was'
round tiny-llama-rope3 llama-rope3-rslora-masked mlx gguf
round tiny-qwen3 qwen3-patterns gguf
round tiny-qwen3 qwen3-patterns mlx
round tiny-qwen3 qwen3-patterns mlx gguf
round tiny-qwen2 qwen2-dora mlx

# Sums: an adapter with 0.25 and 0.75 of itself is itself; cat is exact; svd of a sum of two that lie in one rank too.
model=$data/models/tiny-qwen2
ids=$data/golden/qwen2-all-linear/batches.ids
one=$data/golden/qwen2-all-linear/final_adapter
two=$data/golden/qwen2-all-linear/init_adapter
loss "$model" "$ids" "$one"
wanted=$found
for how in svd cat linear; do
    run 0 convert --adapter "$one=0.25" --adapter "$one=0.75" --how $how --to peft --out "itself-$how"
    loss "$model" "$ids" "itself-$how"
    close "$found" "$wanted" || [ $how = linear ] || fail "$how: loss $found instead of $wanted"
done
run 0 convert --adapter "$one=1.5" --adapter "$two=-0.5" --how cat --to peft --out sum-cat
run 0 convert --adapter "$one=1.5" --adapter "$two=-0.5" --how svd --rank 8 --to peft --out sum-svd
loss "$model" "$ids" sum-cat
wanted=$found
loss "$model" "$ids" sum-svd
close "$found" "$wanted" || fail "svd of full rank: loss $found instead of $wanted"
grep -q '"r": 8' sum-svd/adapter_config.json || fail 'the rank of the sum is not 8'

dora=$data/golden/qwen2-dora/final_adapter
fails 'no DoRA' convert --adapter "$dora" --to gguf --model "$model" --out x.gguf
fails 'DoRA cannot be combined' convert --adapter "$dora" --adapter "$one" --to peft --out x
fails 'needs its base model' convert --adapter "$one" --to gguf --out x.gguf
fails 'no adapter there' convert --adapter no-such --to mlx --out x
fails 'peft_type is not LORA' convert --adapter "$data/golden/qwen2-ia3/final_adapter" --to mlx --out x
fails 'written over itself' convert --adapter itself-cat --to mlx --out ./itself-cat
run 0 convert --adapter "$one" --to gguf --model "$model" --out one.gguf
fails 'expected "llama"' convert --adapter one.gguf --to peft --model "$data/models/stories260k" --out x
head -c 3000 one.gguf >cut.gguf
fails 'cut.gguf' convert --adapter cut.gguf --to peft --model "$model" --out x
# Whole models as GGUF: the same loss, tokens and generated text; q8_0 nearly so.
model=$data/models/stories260k
adapter=$data/golden/stories260k-lora-qv/final_adapter
ids=$data/golden/stories260k-lora-qv/batches.ids
loss "$model" "$ids" "$adapter"
wanted=$found
for dtype in fp32 fp16 q8_0; do
    run 0 merge --device cpu --model "$model" --adapter "$adapter" --out "merged-$dtype.gguf" --dtype $dtype
    loss "merged-$dtype.gguf" "$ids"
    awk -v a="$found" -v b="$wanted" 'BEGIN { d = a - b; exit !(d < 1e-2 && d > -1e-2) }' ||
        fail "$dtype: loss $found instead of $wanted"
done
loss merged-fp32.gguf "$ids"
close "$found" "$wanted" || fail "fp32: loss $found instead of $wanted"
for text in 'Once upon a time' 'Lily & Tom, 123 \o/' ' two  spaces'; do
    run 0 tokenize --model "$model" --text "$text"
    cp out tokens
    run 0 tokenize --model merged-fp32.gguf --text "$text"
    cmp out tokens || fail "$text: other tokens"
done
run 0 generate --device cpu --model merged-fp32.gguf --prompt 'Once upon a time' -n 12
cp out text
run 0 generate --device cpu --model "$model" --adapter "$adapter" --prompt 'Once upon a time' -n 12
cmp out text || fail 'the merged file generates another text'
run 0 merge --device cpu --model merged-fp32.gguf --out unmerged
loss unmerged "$ids"
close "$found" "$wanted" || fail "from GGUF to a folder: loss $found instead of $wanted"
for name in tiny-llama-rope3:llama-rope3-rslora-masked tiny-qwen2:qwen2-all-linear tiny-qwen3:qwen3-patterns; do
    loss "$data/models/${name%:*}" "$data/golden/${name#*:}/batches.ids"
    wanted=$found
    run 0 merge --device cpu --model "$data/models/${name%:*}" --out "${name%:*}.gguf"
    loss "${name%:*}.gguf" "$data/golden/${name#*:}/batches.ids"
    close "$found" "$wanted" || fail "$name: loss $found instead of $wanted"
done
fails 'gpt2 models are not written as GGUF' merge --device cpu --model "$data/models/tiny-gpt2" --out x.gguf
fails 'GGUF files also in q8_0' merge --device cpu --model "$model" --out x --dtype q8_0
fails 'general.type' eval --device cpu --model one.gguf --data "$ids" --seq 64
finish
