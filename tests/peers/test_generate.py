"""Greedy and beam search against transformers, with the rules on repetition."""

import json

import pytest
import torch
from conftest import MODELS, load_adapted, load_base, GOLDEN
from tokenizers import Tokenizer

STORIES = MODELS / "stories260k"
ADAPTER = GOLDEN / "stories260k-lora-qv" / "final_adapter"
PROMPTS = ["Once upon a time", "The dog", "Lily and Tom", "One day, a big bear", "It was"]
NEW = 48
CASES = {
    "greedy": {},
    "repetition": {"repetition_penalty": 1.3},
    "ngrams": {"no_repeat_ngram_size": 2},
    "both": {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3},
    "beams": {"num_beams": 4},
    "beams-short": {"num_beams": 3, "length_penalty": -1.0},
    "beams-long": {"num_beams": 3, "length_penalty": 2.0},
    "beams-early": {"num_beams": 4, "early_stopping": True},
    "beams-ngrams": {"num_beams": 5, "no_repeat_ngram_size": 2, "repetition_penalty": 1.1},
}
OPTIONS = {
    "repetition_penalty": "--repetition-penalty",
    "no_repeat_ngram_size": "--no-repeat-ngram",
    "num_beams": "--beams",
    "length_penalty": "--length-penalty",
}


def arguments_of(case):
    arguments = []
    for key, value in case.items():
        arguments += ["--early-stopping"] if key == "early_stopping" else [f"{OPTIONS[key]}={value}"]
    return arguments


@torch.no_grad()
def expected_texts(model, case):
    tokenizer = Tokenizer.from_file(str(STORIES / "tokenizer.json"))
    texts = []
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt).ids
        settings = dict(case, max_new_tokens=NEW, do_sample=False, pad_token_id=0)
        given = torch.tensor([ids])
        made = model.generate(input_ids=given, attention_mask=torch.ones_like(given), **settings)[0].tolist()
        whole, before = tokenizer.decode(made), tokenizer.decode(ids)
        assert whole.startswith(before)
        texts.append(whole[len(before) :])
    return texts


@pytest.mark.parametrize("adapter", [None, ADAPTER], ids=["base", "adapter"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_text(lorikeet, tmp_path, name, adapter):
    case = CASES[name]
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    options = ["--adapter", adapter] if adapter else []
    out = lorikeet(
        "generate", "--model", STORIES, "--prompts", tmp_path / "prompts.txt", "--batch", 2, "-n", NEW, "--quiet",
        *options, *arguments_of(case),
    )
    found = [json.loads(line)["text"] for line in out.splitlines()]
    model = load_adapted(STORIES, adapter) if adapter else load_base(STORIES)
    assert found == expected_texts(model, case)
