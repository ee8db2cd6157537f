"""The data of a run: sequences of ids with their labels, the file of them, and micro-batches."""

import pathlib

import torch
from models import CONFIGS, generator
from tokenizers import Tokenizer

TEXT = pathlib.Path(__file__).resolve().parent.parent.parent / "data" / "tinyshakespeare.txt"
IGNORED = -100


def token_stream(model, models):
    """Tokens of the play for a model with a tokenizer; for the random models, its bytes."""
    text = TEXT.read_text(encoding="utf-8")[:60000]
    tokenizer = models / model / "tokenizer.json"
    if tokenizer.exists():
        return Tokenizer.from_file(str(tokenizer)).encode(text, add_special_tokens=False).ids
    return list(text.encode("utf-8"))


def make_sequences(name, run, models):
    """(ids, labels) of every sequence in order. Labels are aligned with the ids: position t is scored by t-1."""
    stream, random, start = token_stream(run["model"], models), generator(name + " data"), 0
    rows = []
    for _ in range(run["steps"] * run["accumulation"] * run["batch"]):
        length = int(random.integers(3, run["seq"] + 1)) if run["ragged"] else run["seq"]
        ids = stream[start : start + length]
        start += length
        labels = [int(random.integers(3))] if run["task"] == "classify" else list(ids)
        if run["masked"]:  # a prompt without loss, of a different length each time, and a hole
            prompt = int(random.integers(1, length * 3 // 4))
            labels[:prompt] = [IGNORED] * prompt
            labels[length - 4] = IGNORED
        rows.append((ids, labels))
    return rows


def write_ids(path, rows):
    """One sequence a line: ids, and after a tab the labels where they differ from the ids, or the class."""
    with open(path, "w") as file:
        for ids, labels in rows:
            line = " ".join(map(str, ids))
            if labels != ids:
                line += "\t" + " ".join(map(str, labels))
            file.write(line + "\n")


def tensors_of(rows, run):
    """Padded on the right, padding masked from attention and loss."""
    width = max(len(ids) for ids, _ in rows)
    pad = lambda values, fill: values + [fill] * (width - len(values))
    classify = run["task"] == "classify"
    padding = CONFIGS.get(run["model"], {}).get("pad_token_id", 0)  # RoBERTa counts positions without it
    return {
        "input_ids": torch.tensor([pad(ids, padding) for ids, _ in rows]),
        "labels": torch.tensor([labels[0] if classify else pad(labels, IGNORED) for _, labels in rows]),
        "attention_mask": torch.tensor([pad([1] * len(ids), 0) for ids, _ in rows]),
    }


def target_count(batch):
    labels = batch["labels"]
    return len(labels) if labels.dim() == 1 else int((labels[:, 1:] != IGNORED).sum())
