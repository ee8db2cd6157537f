#!/usr/bin/env python3
"""A sentiment classifier, LoRA r = 8 on query and value plus the head, by Lorikeet and by PyTorch + PEFT, one after
the other: accuracy on held-out texts and wall time of the whole process.

    bench/peers/sentiment.py --lorikeet build/release/lorikeet --model MINILM --train train.tsv --dev dev.tsv --threads 2

Lines of the files are: class, TAB, text. Both take the data in an order of their own, batches of 16 texts, AdamW with a
constant rate and no dropout. PyTorch pads each batch to its longest text; Lorikeet packs.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent


def read(path):
    rows = [line.rstrip("\n").split("\t", 1) for line in open(path, encoding="utf-8") if "\t" in line]
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

    texts, labels = read(arguments.train)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    begin = time.perf_counter()
    for _ in range(arguments.epochs):
        model.train()
        for chosen in torch.randperm(len(ids)).split(16):
            inputs = batch_of([ids[i] for i in chosen])
            loss = model(**inputs, labels=torch.tensor([labels[i] for i in chosen])).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - begin
    model.eval()
    texts, labels = read(arguments.dev)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    right = 0
    with torch.no_grad():
        for at in range(0, len(ids), 64):
            found = model(**batch_of(ids[at : at + 64])).logits.argmax(1)
            right += int((found == torch.tensor(labels[at : at + 64])).sum())
    print(json.dumps({"accuracy": right / len(ids), "train_seconds": seconds}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--model", "--train", "--dev"):
        parser.add_argument(name, required=True)
    parser.add_argument("--lorikeet")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch", action="store_true", help=argparse.SUPPRESS)  # the process of that side
    arguments = parser.parse_args()
    if arguments.torch:
        return train_torch(arguments)
    from compare import run_child, torch_environment

    common = ["--model", arguments.model, "--epochs", arguments.epochs, "--seq", arguments.seq]
    common += ["--seed", arguments.seed, "--threads", arguments.threads]
    with tempfile.TemporaryDirectory() as work:
        log = pathlib.Path(work) / "log.jsonl"
        command = [arguments.lorikeet, "train", "--task", "classify", "--labels", 2, *common]
        command += ["--data", arguments.train, "--val", arguments.dev, "--targets", "query,value", "--rank", 8]
        command += ["--batch", 16, "--lr", 1e-3, "--device", "cpu", "--log", log, "--out", pathlib.Path(work) / "out", "-q"]
        _, wall, peak = run_child(command)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        accuracy = [line["validation_accuracy"] for line in lines if "validation_accuracy" in line][-1]
        seconds = sum(line["step_seconds"] for line in lines if "step_seconds" in line)
        print(f"lorikeet  accuracy {accuracy:.4f}  wall {wall:.1f} s  steps {seconds:.1f} s  peak {peak / 2**20:.0f} MiB", flush=True)
    command = [sys.executable, __file__, "--torch", *common, "--train", arguments.train, "--dev", arguments.dev]
    output, wall, peak = run_child(command, torch_environment(arguments.threads))
    result = json.loads(output.splitlines()[-1])
    print(
        f"PyTorch   accuracy {result['accuracy']:.4f}  wall {wall:.1f} s  steps {result['train_seconds']:.1f} s  "
        f"peak {peak / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    main()
