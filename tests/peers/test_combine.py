"""Weighted sums of adapters are those of PEFT's add_weighted_adapter."""

import pytest
import torch
from conftest import GOLDEN, MODELS, assert_close, load_adapted, load_base, logits_of, loss_of, read_ids
from peft import LoraConfig, get_peft_model

STORIES = MODELS / "stories260k"
TARGETS = ["q_proj", "v_proj", "down_proj"]


def make(folder, seed, **config):
    torch.manual_seed(seed)
    model = get_peft_model(load_base(STORIES), LoraConfig(target_modules=TARGETS, task_type="CAUSAL_LM", **config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)


# combination, the two ranks, the rank of svd, the weights
CASES = {
    "linear": ("linear", (4, 4), 0, (0.7, 0.4)),
    "linear-negative": ("linear", (4, 4), 0, (1.5, -0.5)),
    "cat": ("cat", (2, 5), 0, (0.7, 0.4)),
    "cat-negative": ("cat", (2, 5), 0, (1.5, -0.5)),
    "svd": ("svd", (2, 5), 3, (0.7, 0.4)),
    "svd-negative": ("svd", (2, 5), 0, (1.5, -0.5)),
}


@pytest.mark.parametrize("name", CASES)
def test_sums_are_pefts(lorikeet, tmp_path, name):
    how, ranks, rank, weights = CASES[name]
    folders = [tmp_path / "one", tmp_path / "two"]
    make(folders[0], 1, r=ranks[0], lora_alpha=8)
    make(folders[1], 2, r=ranks[1], lora_alpha=3, use_rslora=True)
    model = load_adapted(STORIES, folders[0])
    model.load_adapter(folders[1], "two")
    model.add_weighted_adapter(["default", "two"], list(weights), "sum", combination_type=how, svd_rank=rank or None)
    model.set_adapter("sum")
    given = [argument for pair in zip(folders, weights) for argument in ("--adapter", f"{pair[0]}={pair[1]}")]
    lorikeet("convert", *given, "--how", how, "--rank", rank, "--to", "peft", "--out", tmp_path / "sum")
    rows = read_ids(GOLDEN / "stories260k-lora-qv" / "batches.ids")[:4]
    ours = load_adapted(STORIES, tmp_path / "sum")
    assert abs(loss_of(model, rows) - loss_of(load_base(STORIES), rows)) > 1e-2, "the sum must change something"
    for ids, _ in rows[:2]:
        assert_close(logits_of(ours, ids), logits_of(model, ids), absolute=2e-4)
