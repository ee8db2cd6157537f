#!/usr/bin/env python3
"""A sentiment classifier, LoRA r = 8 on query and value plus the head, by Lorikeet and by PyTorch + PEFT, one after
the other: accuracy on held-out texts and wall time of the whole process.

    bench/peers/sentiment.py --lorikeet build/release/lorikeet --model MINILM --train train.tsv --dev dev.tsv --threads 2

Lines of the files are: class, TAB, text. Both take the data in an order of their own, AdamW with a constant rate, no
dropout, and 16 texts a step: PyTorch pads each batch to its longest text, Lorikeet packs as many whole texts as fit into
--budget times --seq tokens (of SST-2, whose sentences have 25 tokens on average, 17 by default).
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

TEXTS = 16  # a step


def read(path, limit):
    rows = [line.rstrip("\n").split("\t", 1) for line in open(path, encoding="utf-8") if "\t" in line]
    rows = rows[: limit or None]
    return [text for _, text in rows], [int(label) for label, _ in rows]


def train_torch(arguments):
    import torch
    from peft import LoraConfig, get_peft_model
    from tokenizers import Tokenizer
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    tokenizer = Tokenizer.from_file(str(pathlib.Path(arguments.model) / "tokenizer.json"))
    tokenizer.enable_truncation(arguments.seq)
    tokenizer.no_padding()
    model = AutoModelForSequenceClassification.from_pretrained(
        arguments.model, num_labels=2, dtype=torch.float32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], task_type="SEQ_CLS")
    model = get_peft_model(model, config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)

    def batch_of(ids):
        width = max(map(len, ids))
        return {
            "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in ids]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
        }

    texts, labels = read(arguments.train, arguments.limit)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    steps, begin = 0, time.perf_counter()
    for _ in range(arguments.epochs):
        model.train()
        for chosen in torch.randperm(len(ids)).split(TEXTS):
            inputs = batch_of([ids[i] for i in chosen])
            loss = model(**inputs, labels=torch.tensor([labels[i] for i in chosen])).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            steps += 1
    seconds = time.perf_counter() - begin
    model.eval()
    texts, labels = read(arguments.dev, arguments.limit)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    right = 0
    with torch.no_grad():
        for at in range(0, len(ids), 64):
            found = model(**batch_of(ids[at : at + 64])).logits.argmax(1)
            right += int((found == torch.tensor(labels[at : at + 64])).sum())
    print(json.dumps({"accuracy": right / len(ids), "train_seconds": seconds, "steps": steps}))


def copy_lines(source, limit, path):
    texts, labels = read(source, limit)
    path.write_text("".join(f"{label}\t{text}\n" for label, text in zip(labels, texts)), encoding="utf-8")
    return path


def run_lorikeet(arguments, common, work):
    from compare import run_child

    train = copy_lines(arguments.train, arguments.limit, work / "train.tsv")
    dev = copy_lines(arguments.dev, arguments.limit, work / "dev.tsv")
    log = work / "log.jsonl"
    command = [arguments.lorikeet, "train", "--task", "classify", "--labels", 2, *common]
    command += ["--data", train, "--val", dev, "--targets", "query,value", "--rank", 8, "--alpha", 16]
    command += ["--batch", arguments.budget, "--pack", "--lr", 1e-3, "--device", "cpu"]
    _, wall, peak = run_child([*command, "--log", log, "--out", work / "out", "-q"])
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [line for line in lines if "step_seconds" in line]
    return {
        "accuracy": [line["validation_accuracy"] for line in lines if "validation_accuracy" in line][-1],
        "train_seconds": sum(line["step_seconds"] + line["data_seconds"] for line in steps),
        "steps": len(steps),
    }, wall, peak


def run_torch(arguments, common):
    from compare import run_child, torch_environment

    command = [sys.executable, __file__, "--torch", *common, "--train", arguments.train, "--dev", arguments.dev]
    output, wall, peak = run_child([*command, "--limit", arguments.limit], torch_environment(arguments.threads))
    return json.loads(output.splitlines()[-1]), wall, peak


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--model", "--train", "--dev"):
        parser.add_argument(name, required=True)
    parser.add_argument("--lorikeet")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seq", type=int, default=64, help="longer texts are cut, by both")
    parser.add_argument("--budget", type=int, default=7, help="Lorikeet's micro-batch in sequences of --seq tokens")
    parser.add_argument("--limit", type=int, default=0, help="take so many texts of each file, for a rehearsal; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch", action="store_true", help=argparse.SUPPRESS)  # the process of that side
    arguments = parser.parse_args()
    if arguments.torch:
        return train_torch(arguments)
    common = ["--model", arguments.model, "--epochs", arguments.epochs, "--seq", arguments.seq]
    common += ["--seed", arguments.seed, "--threads", arguments.threads]
    print(f"load average {os.getloadavg()[0]:.1f}; {arguments.epochs} epochs, texts of at most {arguments.seq} tokens")
    with tempfile.TemporaryDirectory() as work:
        for name, (result, wall, peak) in (
            ("lorikeet", run_lorikeet(arguments, common, pathlib.Path(work))),
            ("PyTorch", run_torch(arguments, common)),
        ):
            print(
                f"{name:9} accuracy {result['accuracy']:.4f}  wall {wall:.1f} s  training {result['train_seconds']:.1f} s "
                f"in {result['steps']} steps  peak {peak / 2**20:.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
