"""Adapters and merged models passed between the program and PEFT."""

import numpy as np
import pytest
import torch
from conftest import (
    GOLDEN,
    MODELS,
    assert_close,
    golden,
    golden_runs,
    load_adapted,
    load_base,
    logits_of,
    loss_of,
    read_ids,
    task_of,
)
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    VeraConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from safetensors.numpy import load_file

STORIES = MODELS / "stories260k"
STORIES_IDS = GOLDEN / "stories260k-lora-qv" / "batches.ids"
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# What PEFT can write in different ways: name -> (model, config).
MADE = {
    "lora": ("stories260k", LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])),
    "all-linear": ("tiny-qwen2", LoraConfig(r=3, lora_alpha=8, target_modules="all-linear")),
    "target-pattern": ("stories260k", LoraConfig(r=4, target_modules=r".*layers\.[0-2]\.self_attn\.(q|v)_proj")),
    "some-layers": ("stories260k", LoraConfig(r=4, target_modules=["o_proj"], layers_to_transform=[1, 3])),
    "excluded": ("stories260k", LoraConfig(r=4, target_modules=["q_proj", "k_proj"], exclude_modules=["k_proj"])),
    "rslora": ("tiny-qwen3", LoraConfig(r=8, lora_alpha=8, use_rslora=True, target_modules=ALL_LINEAR)),
    "dora": ("tiny-llama-rope3", LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=ALL_LINEAR)),
    "pissa": ("stories260k", LoraConfig(r=4, init_lora_weights="pissa", target_modules=["q_proj", "down_proj"])),
    "olora": ("stories260k", LoraConfig(r=4, init_lora_weights="olora", target_modules=["q_proj", "down_proj"])),
    "embeddings": ("tiny-llama-rope3", LoraConfig(r=4, target_modules=["embed_tokens", "lm_head", "q_proj"])),
    "ia3": (
        "stories260k",
        IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    ),
    "loha": ("tiny-qwen2", LoHaConfig(r=4, alpha=8, target_modules="all-linear", rank_pattern={"up_proj": 7})),
    "lokr": ("tiny-qwen2", LoKrConfig(r=4, alpha=8, target_modules="all-linear")),
    "lokr-factor": (
        "stories260k",
        LoKrConfig(r=2, alpha=3, target_modules=ALL_LINEAR, decompose_factor=4, decompose_both=True),
    ),
    "adalora": ("tiny-qwen2", AdaLoraConfig(init_r=5, target_r=3, total_step=10, target_modules="all-linear")),
    "oft": ("tiny-qwen2", OFTConfig(oft_block_size=12, target_modules="all-linear", num_cayley_neumann_terms=7)),
    "oft-exact": (
        "stories260k",
        OFTConfig(r=4, oft_block_size=0, target_modules=["q_proj", "down_proj"], use_cayley_neumann=False),
    ),
    "vera": ("stories260k", VeraConfig(r=8, target_modules=["q_proj"], save_projection=True)),
}


def make_adapter(name, folder):
    """A PEFT adapter every trainable number of which differs from its initial value."""
    model_name, config = MADE[name]
    config.task_type = "CAUSAL_LM"
    torch.manual_seed(7)
    model = get_peft_model(load_base(MODELS / model_name), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.15 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model_name, model.eval()


def write_batch(path, run):
    """The first lines of a run's data."""
    lines = (GOLDEN / run / "batches.ids").read_text().splitlines(keepends=True)[:6]
    path.write_text("".join(lines))
    return path


def run_of(model_name):
    return next(name for name in golden_runs() if golden(name)[1]["model"] == model_name)


# A tensor of the method that starts at zero.
STARTS_AT_ZERO = {
    "adalora": "lora_E",
    "dora": "lora_B",
    "dynamic-lora": "lora_B",
    "loha": "hada_w2_b",
    "lokr": "lokr_w1",
    "lora": "lora_B",
    "oft": "oft_R",
    "rslora": "lora_B",
}


@pytest.mark.parametrize("method", sorted(STARTS_AT_ZERO))
def test_peft_loads_what_training_writes(lorikeet, tmp_path, method):
    out = tmp_path / "out"
    lorikeet(
        "train",
        "--model",
        STORIES,
        "--data",
        STORIES_IDS,
        "--no-shuffle",
        "--method",
        method,
        "--rank",
        4,
        "--alpha",
        8,
        "--targets",
        "q_proj,v_proj",
        "--batch",
        2,
        "--seq",
        48,
        "--steps",
        5,
        "--lr",
        1e-3,
        "--seed",
        3,
        "--log",
        tmp_path / "log.jsonl",
        "--out",
        out,
    )
    model = load_adapted(STORIES, out)
    saved = load_file(out / "adapter_model.safetensors")
    state = get_peft_model_state_dict(model)
    assert state.keys() == saved.keys()
    for key, value in state.items():
        assert np.array_equal(value.numpy(), saved[key]), key
    assert any(np.abs(value).max() > 0 for key, value in saved.items() if STARTS_AT_ZERO[method] in key)
    assert_close(lorikeet.loss(STORIES, STORIES_IDS, out), loss_of(model, read_ids(STORIES_IDS)), relative=1e-5)


@pytest.mark.parametrize("init", ["orthogonal", "olora", "pissa"])
def test_peft_loads_what_starts_from_the_weight(lorikeet, tmp_path, init):
    out = tmp_path / "out"
    options = "--no-shuffle --rank 4 --batch 2 --seq 48 --steps 5 --lr 1e-3 --rslora".split()
    lorikeet("train", "--model", STORIES, "--data", STORIES_IDS, *options, "--init", init, "--out", out)
    assert_close(
        lorikeet.loss(STORIES, STORIES_IDS, out), loss_of(load_adapted(STORIES, out), read_ids(STORIES_IDS)), relative=1e-5
    )


@pytest.mark.parametrize("name", sorted(MADE))
def test_adapters_made_by_peft_have_the_same_loss(lorikeet, tmp_path, name):
    model_name, model = make_adapter(name, tmp_path / "adapter")
    data = write_batch(tmp_path / "some.ids", run_of(model_name))
    expected, without = loss_of(model, read_ids(data)), loss_of(load_base(MODELS / model_name), read_ids(data))
    assert abs(expected - without) > 1e-3, "the adapter must change the loss, or this test could not fail"
    assert_close(lorikeet.loss(MODELS / model_name, data, tmp_path / "adapter"), expected, relative=1e-5)


@pytest.mark.parametrize("name", golden_runs())
def test_golden_adapters_have_the_same_loss(lorikeet, tmp_path, name):
    folder, result = golden(name)
    data = write_batch(tmp_path / "some.ids", name)
    base = MODELS / result["model"]
    for adapter in ("init_adapter", "final_adapter"):
        expected = loss_of(load_adapted(base, folder / adapter, task_of(result)), read_ids(data))
        assert_close(lorikeet.loss(base, data, folder / adapter, task_of(result)), expected, relative=1e-5)


@pytest.mark.parametrize("name", golden_runs())
def test_a_merged_model_gives_the_adapters_logits(lorikeet, tmp_path, name):
    folder, result = golden(name)
    base, out = MODELS / result["model"], tmp_path / "merged"
    task = task_of(result)
    lorikeet("merge", "--model", base, "--task", task, "--adapter", folder / "final_adapter", "--out", out)
    adapted, merged = load_adapted(base, folder / "final_adapter", task), load_base(out, task)
    assert merged.state_dict().keys() == load_base(base, task).state_dict().keys()
    for ids, _ in read_ids(folder / "batches.ids")[:3]:
        # of PiSSA and OLoRA, PEFT's base is rounded once more
        assert_close(logits_of(merged, ids), logits_of(adapted, ids), absolute=3e-4)


@pytest.mark.parametrize("name", ["adalora", "dora", "ia3", "loha", "lokr-factor", "oft", "vera"])
def test_other_methods_merge_too(lorikeet, tmp_path, name):
    model_name, model = make_adapter(name, tmp_path / "adapter")
    lorikeet("merge", "--model", MODELS / model_name, "--adapter", tmp_path / "adapter", "--out", tmp_path / "merged")
    ids = read_ids(GOLDEN / run_of(model_name) / "batches.ids")[0][0]
    assert_close(logits_of(load_base(tmp_path / "merged"), ids), logits_of(model, ids), absolute=1e-4)
