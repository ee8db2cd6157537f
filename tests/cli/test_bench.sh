#!/bin/sh
# Every part of `lorikeet bench` at toy sizes: tables, the fields of the JSON, CSV, the page. No times are judged.
set -u
# shellcheck source=tests/cli/shell.sh
. "$LK_SOURCE_DIR/tests/cli/shell.sh"
enter bench

# whole FILE: a page that is complete and needs nothing from elsewhere
whole() {
    tail -n 1 "$1" | grep -q '</html>' || fail "$what: $1 is not complete"
    grep -q -E 'src=|href=|@import|url\(' "$1" && fail "$what: $1 needs other files"
    [ "$(grep -o '<svg' "$1" | wc -l)" -eq "$(grep -o '</svg>' "$1" | wc -l)" ] || fail "$what: $1 has an open picture"
    grep -q -i -E '[" ,](nan|-nan|inf|-inf)[" ,<]' "$1" && fail "$what: $1 has a number that is none"
}

for part in kernels train attention-grid scaling compare report; do
    run 0 bench --help
    has "^  $part "
    run 0 bench $part --help
    has '^Usage: lorikeet bench'
    has '^Examples:'
done
run 2 bench
run 2 bench kernel
has "did you mean 'kernels'" err

run 0 bench kernels --device cpu --threads 2 --size toy --tokens 32 --rank 4 --seconds 0 --json k.json --csv k.csv --html k.html
has '^linear '
has 'best product'
grep -q WRONG out && fail "$what: a kernel is wrong"
for key in flops_f32 bandwidth error tolerance seconds checked_tokens; do
    has "\"$key\": " k.json
done
for op in attention_backward lora_linear_backward linear_cross_entropy rms_norm adamw; do
    has "\"op\": \"$op\"" k.json
done
head -n 1 k.csv | grep -q '^table,.*op,shape,kernel' || fail "$what: the CSV has no header"
[ "$(grep -c '^kernels,' k.csv)" -eq "$(grep -c '"op":' k.json)" ] || fail "$what: CSV and JSON have not as many rows"
whole k.html
run 0 bench kernels --device cpu --size toy --tokens 8 --seconds 0 --op swiglu --dtype bf16 --no-check
has 'not checked'
grep -q '^linear ' out && fail "$what: not only --op"
run 1 bench kernels --device cpu --size toy --seconds 0 --op swig
has 'no measurement of an op swig' err

run 0 bench train --device cpu --threads 2 --size toy --seq 16 --steps 1 --ranks 1,4 --methods lora,dora --rank 2 \
    --json t.json --csv t.csv --html t.html
has '^dora '
has 'where the time of a micro-batch goes'
for key in tokens_per_second total_bytes activations_bytes parameters share saved loss_command; do
    has "\"$key\": " t.json
done
[ "$(grep -c '^ranks,' t.csv)" -eq 2 ] || fail "$what: not two ranks"
[ "$(grep -c '^methods,' t.csv)" -eq 2 ] || fail "$what: not two methods"
has 'Memory over a micro-batch' t.html
whole t.html
run 2 bench train --size toy --ranks 1,zero
has 'separated by commas' err

run 0 bench scaling --device cpu --size toy --seqs 8,16,32 --batches 1,2 --thread-counts 1,2 --ranks none --seq 8 \
    --steps 1 --json s.json --csv s.csv --html s.html
[ "$(grep -c '^runs,' s.csv)" -eq 7 ] || fail "$what: not seven runs"
[ "$(grep -c '^exponents,' s.csv)" -eq 3 ] || fail "$what: not three exponents"
whole s.html

run 0 bench attention-grid --device cpu --threads 2 --b 2,5 --e 16 --h 24 --r 1,3 --seconds 0 --json g1.json --html g.html
has 'of 4 points'
whole g.html
run 0 bench attention-grid --device cpu --threads 2 --b 64 --e 16 --h 24 --r 1,3 --seconds 0 --json g2.json --csv g.csv
[ "$(grep -c '^points,' g.csv)" -eq 2 ] || fail "$what: not two points"

# A stand-in for the other programs: what is said to them, and what comes of their answers.
cat >peer.py <<'END'
#!/bin/sh
echo "jax 0, cpu, $1 threads"
while read -r b e h r seconds; do
    [ "$b" -lt 60 ] && echo "2.0 1.0" || echo nonsense
done
END
run 0 bench attention-grid --device cpu --threads 2 --b 2 --e 16 --h 24 --r 1 --seconds 0 --jax sh --script peer.py --json j.json
has "JAX's LoRA on 1, geometric mean 2.00"
has '"jax": "jax 0, cpu, 2 threads"' j.json
run 1 bench attention-grid --device cpu --b 64 --e 16 --h 24 --r 1 --seconds 0 --jax sh --script peer.py
has "JAX answered 'nonsense'" err
run 1 bench attention-grid --device cpu --b 2 --e 16 --h 24 --r 1 --jax ./no-such-python --script peer.py
has 'the other program ended' err
cat >compare.py <<'END'
while [ $# -gt 0 ]; do
    [ "$1" = --json ] && json=$2
    shift
done
echo 'its table'
cat >"$json" <<'JSON'
{"settings": {"batch": 4}, "results": {
 "lorikeet": {"tokens_per_second": 300, "spread": 0.01, "peak_bytes": 1000, "wall_seconds": 2, "losses": [2.0, 1.5]},
 "pytorch fp32": {"tokens_per_second": 150, "spread": 0.02, "peak_bytes": 4000, "wall_seconds": 3, "losses": [2.0, 1.25]}}}
JSON
END
run 0 bench compare --python sh --script compare.py --model m --threads 2 --text t --json c.json --html c.html
has 'its table'
close "$(number lorikeet_speed c.json)" 2 || fail "$what: not twice as fast"
close "$(number lorikeet_memory c.json)" 0.25 || fail "$what: not a quarter of the memory"
close "$(number loss_difference c.json)" 0.25 || fail "$what: the losses' difference"
whole c.html
run 1 bench compare --python ./no-such-python --script compare.py --model m
has 'cannot run ./no-such-python' err

# Parts and pieces of one machine are joined; another machine stands beside it.
run 0 bench train --device reference --size toy --seq 8 --steps 1 --ranks 1,2 --methods lora --label 'other <machine>' --json o.json
run 0 bench report k.json t.json s.json g1.json g2.json o.json --html all.html
has 'of 6' all.html
has 'other &#60;machine&#62;' all.html
[ "$(grep -o '<polyline' all.html | wc -l)" -ge 8 ] || fail "$what: too few lines"
whole all.html
echo '{}' >empty.json
run 1 bench report empty.json --html x.html
has 'not a result of' err
[ ! -e x.html ] || fail "$what: wrote a page"
run 2 bench report --html x.html
finish
