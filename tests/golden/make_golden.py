#!/usr/bin/env python3
"""Makes the small models and the golden LoRA runs of tests/data with PyTorch + PEFT (fp32, CPU, deterministic).

    make_golden.py                 writes tests/data/models (all but stories260k) and tests/data/golden
    make_golden.py --check         makes them again in a temporary folder and compares with what is there

Every random number comes from numpy's PCG64 with the seeds below, so only the arithmetic depends on the versions, which
each run records. tests/data/golden/README.md says what the files hold.
"""

import argparse
import json
import math
import os
import pathlib
import sys
import tempfile
import zlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import peft
import torch
import transformers
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftModel,
    VeraConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from peft.optimizers import create_lorafa_optimizer, lorafa
from peft.tuners.lora import LoraLayer
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "tests" / "data"
TEXT = ROOT / "data" / "tinyshakespeare.txt"
SEED = 20260
IGNORED = -100
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

COMMON = {
    "hidden_act": "silu",
    "num_hidden_layers": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.02,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "dtype": "float32",
}
# The last two keep the spelling of older transformers (rope_theta and rope_scaling at the top level): both are met.
MODELS = {
    "tiny-qwen2": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": 256,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    "tiny-qwen3": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": 300,
        "hidden_size": 40,
        "intermediate_size": 72,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "tie_word_embeddings": True,
        "attention_bias": False,
        "use_sliding_window": False,
    },
    "tiny-llama-rope3": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 256,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "tiny-llama-linear": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 256,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "linear", "factor": 4.0},
    },
    "tiny-mistral": {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "vocab_size": 256,
        "hidden_size": 48,
        "intermediate_size": 100,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "sliding_window": 16,
    },
}
ENCODER = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "id2label": {"0": "a", "1": "b", "2": "c"},
    "label2id": {"a": 0, "b": 1, "c": 2},
    "dtype": "float32",
}
# With all their keys: these spell them in other ways.
COMPLETE_MODELS = {
    "tiny-gpt2": {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": 256,
        "n_embd": 32,
        "n_inner": None,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 64,
        "activation_function": "gelu_new",
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "float32",
    },
    "tiny-bert": ENCODER
    | {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "type_vocab_size": 2,
    },
    "tiny-roberta": ENCODER
    | {
        "architectures": ["RobertaForSequenceClassification"],
        "model_type": "roberta",
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "type_vocab_size": 1,
    },
    "tiny-distilbert": {
        "architectures": ["DistilBertForSequenceClassification"],
        "model_type": "distilbert",
        "vocab_size": 256,
        "dim": 32,
        "hidden_dim": 48,
        "n_layers": 2,
        "n_heads": 4,
        "max_position_embeddings": 48,
        "activation": "gelu",
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "seq_classif_dropout": 0.0,
        "pad_token_id": 0,
        "id2label": ENCODER["id2label"],
        "label2id": ENCODER["label2id"],
        "dtype": "float32",
    },
}
CONFIGS = {name: config | COMMON for name, config in MODELS.items()} | COMPLETE_MODELS
CLASSIFY = {"task": "classify", "ragged": True, "batch": 4, "seq": 40, "steps": 12, "lr": 3e-3}

# What a run does not say: batch (sequences of a micro-batch), accumulation, seq (longest sequence), steps, adapter, ...
DEFAULTS = {
    "batch": 2,
    "accumulation": 1,
    "seq": 48,
    "steps": 16,
    "lr": 1e-3,
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "weight_decay": 0.0,
    "max_grad_norm": None,
    "schedule": "constant",
    "warmup_steps": 0,
    "ragged": False,
    "masked": False,
    "nonzero_b": True,
    "merged": False,
    "config": LoraConfig,
    "method": "peft",
    "task": "causal-lm",
}
NOT_SETTINGS = ("merged", "nonzero_b", "config", "method", "delta_ratio", "delta_warmup")
RUNS = {
    "stories260k-lora-qv": {
        "model": "stories260k",
        "adapter": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
        "nonzero_b": False,
        "steps": 20,
        "merged": True,
    },
    "qwen2-all-linear": {
        "model": "tiny-qwen2",
        "adapter": {"r": 4, "lora_alpha": 8, "target_modules": ALL_LINEAR},
        "merged": True,
    },
    "qwen3-patterns": {
        "model": "tiny-qwen3",
        "adapter": {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"],
            "rank_pattern": {"q_proj": 6, "model.layers.1.mlp.down_proj": 2},
            "alpha_pattern": {"v_proj": 20, r"layers\.0\.self_attn\.(k|o)_proj": 3},
        },
    },
    "llama-rope3-rslora-masked": {
        "model": "tiny-llama-rope3",
        "adapter": {
            "r": 6,
            "lora_alpha": 9,
            "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
            "use_rslora": True,
        },
        "masked": True,
        "weight_decay": 0.1,
        "seq": 64,
        "lr": 5e-3,
    },
    "llama-linear-ragged": {
        "model": "tiny-llama-linear",
        "adapter": {"r": 4, "lora_alpha": 4, "target_modules": ["q_proj", "k_proj", "up_proj"]},
        "ragged": True,
        "batch": 4,
        "steps": 12,
    },
    "mistral-window": {
        "model": "tiny-mistral",
        "adapter": {"r": 4, "lora_alpha": 8, "target_modules": ALL_LINEAR},
        "seq": 96,
        "steps": 12,
    },
    "qwen2-dora": {
        "model": "tiny-qwen2",
        "adapter": {"r": 2, "lora_alpha": 4, "target_modules": ALL_LINEAR, "use_dora": True},
        "weight_decay": 0.05,
        "steps": 12,
        "merged": True,
    },
    "llama-rope3-dora-rslora": {
        "model": "tiny-llama-rope3",
        "adapter": {
            "r": 3,
            "lora_alpha": 4,
            "target_modules": ALL_LINEAR,
            "rank_pattern": {"q_proj": 1},
            "use_dora": True,
            "use_rslora": True,
        },
        "steps": 12,
    },
    "qwen2-lora-fa": {
        "model": "tiny-qwen2",
        "adapter": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "up_proj"]},
        "method": "lora-fa",
        "steps": 12,
    },
    "qwen2-bias-lora-only": {
        "model": "tiny-qwen2",
        "adapter": {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "o_proj"], "bias": "lora_only"},
        "steps": 8,
    },
    "qwen2-bias-all": {
        "model": "tiny-qwen2",
        "adapter": {
            "r": 2,
            "lora_alpha": 4,
            "target_modules": ["v_proj"],
            "bias": "all",
            "layers_to_transform": [1],
        },
        "steps": 8,
    },
    "qwen2-vera": {
        "model": "tiny-qwen2",
        "config": VeraConfig,
        "adapter": {"r": 16, "target_modules": ALL_LINEAR, "projection_prng_key": 4711, "save_projection": False},
        "lr": 1e-2,
        "steps": 12,
        "merged": True,
    },
    "llama-linear-vera-projection": {
        "model": "tiny-llama-linear",
        "config": VeraConfig,
        "adapter": {"r": 6, "target_modules": ["q_proj", "down_proj"], "d_initial": 0.5},
        "lr": 1e-2,
        "steps": 8,
    },
    "qwen2-ia3": {
        "model": "tiny-qwen2",
        "config": IA3Config,
        "adapter": {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
        "lr": 1e-2,
        "steps": 12,
        "merged": True,
    },
    "llama-linear-loha": {
        "model": "tiny-llama-linear",
        "config": LoHaConfig,
        "adapter": {
            "r": 3,
            "alpha": 6,
            "target_modules": ["q_proj", "down_proj", "gate_proj"],
            "rank_pattern": {"gate_proj": 5},
            "alpha_pattern": {"down_proj": 2},
        },
        "seq": 24,
        "steps": 8,
        "merged": True,
    },
    "llama-linear-lokr": {
        "model": "tiny-llama-linear",
        "config": LoKrConfig,
        "adapter": {
            "r": 2,
            "alpha": 4,
            "target_modules": ["q_proj", "down_proj", "gate_proj"],
            "rank_pattern": {"gate_proj": 5},
            "decompose_both": True,
        },
        "seq": 24,
        "steps": 8,
        "merged": True,
    },
    "llama-linear-oft": {
        "model": "tiny-llama-linear",
        "config": OFTConfig,
        "adapter": {"oft_block_size": 10, "target_modules": ["q_proj", "down_proj"]},
        "seq": 24,
        "steps": 8,
        "merged": True,
    },
    "qwen2-oft-shared": {
        "model": "tiny-qwen2",
        "config": OFTConfig,
        "adapter": {
            "r": 4,
            "oft_block_size": 0,
            "target_modules": ["q_proj", "down_proj"],
            "block_share": True,
            "use_cayley_neumann": False,
            "bias": "oft_only",
        },
        "seq": 24,
        "steps": 8,
    },
    "llama-linear-adalora": {
        "model": "tiny-llama-linear",
        "config": AdaLoraConfig,
        "adapter": {
            "init_r": 6,
            "target_r": 3,
            "lora_alpha": 12,
            "tinit": 2,
            "tfinal": 3,
            "deltaT": 2,
            "total_step": 12,
            "orth_reg_weight": 0.1,
            "target_modules": ["q_proj", "down_proj", "gate_proj"],
        },
        "seq": 24,
        "steps": 12,
        "max_grad_norm": 1.5,
        "lr": 3e-3,
        "merged": True,
    },
    "llama-linear-delta-lora": {
        "model": "tiny-llama-linear",
        "adapter": {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"]},
        "method": "delta-lora",
        "delta_ratio": 1.5,
        "delta_warmup": 3,
        "seq": 24,
        "steps": 10,
        "lr": 5e-3,
        "merged": True,
    },
    "gpt2-conv1d": {
        "model": "tiny-gpt2",
        "adapter": {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["c_attn", "c_proj", "c_fc"],
            "fan_in_fan_out": True,
        },
        "ragged": True,
        "batch": 3,
        "steps": 12,
        "merged": True,
    },
    "llama-linear-pissa": {
        "model": "tiny-llama-linear",
        "adapter": {
            "r": 4,
            "lora_alpha": 8,
            "init_lora_weights": "pissa",
            "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"],
        },
        "steps": 12,
        "merged": True,
    },
    "qwen2-olora-rslora": {
        "model": "tiny-qwen2",
        "adapter": {
            "r": 3,
            "lora_alpha": 3,
            "use_rslora": True,
            "init_lora_weights": "olora",
            "target_modules": ["k_proj", "o_proj", "down_proj"],
        },
        "steps": 12,
        "merged": True,
    },
    "llama-linear-embeddings": {  # one weight under two adapters
        "model": "tiny-llama-linear",
        "adapter": {"r": 4, "lora_alpha": 8, "target_modules": ["embed_tokens", "lm_head", "q_proj"]},
        "steps": 12,
        "merged": True,
    },
    "gpt2-embeddings": {
        "model": "tiny-gpt2",
        "adapter": {"r": 3, "lora_alpha": 6, "target_modules": ["wte", "wpe", "c_attn"], "fan_in_fan_out": True},
        "ragged": True,
        "steps": 12,
    },
    "bert-classify": CLASSIFY
    | {
        "model": "tiny-bert",
        "adapter": {"r": 4, "lora_alpha": 8, "target_modules": ["query", "key", "value", "dense"]},
        "merged": True,
    },
    "roberta-classify": CLASSIFY
    | {
        "model": "tiny-roberta",
        "adapter": {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]},
        "merged": True,
    },
    "distilbert-classify": CLASSIFY
    | {
        "model": "tiny-distilbert",
        "adapter": {"r": 4, "lora_alpha": 8, "target_modules": ["q_lin", "v_lin", "lin1"]},
        "merged": True,
    },
    "stories260k-accumulate-clip-cosine": {
        "model": "stories260k",
        "adapter": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
        "accumulation": 2,
        "masked": True,
        "max_grad_norm": 0.5,
        "lr": 3e-3,
        "schedule": "cosine",
        "warmup_steps": 4,
        "steps": 18,
    },
}


def generator(name):
    """A stream of its own for every name, so that adding a model or run changes no other."""
    return np.random.Generator(np.random.PCG64([SEED, zlib.crc32(name.encode())]))


def model_class(name):
    return getattr(transformers, CONFIGS[name]["architectures"][0]) if name in CONFIGS else AutoModelForCausalLM


def make_model(name, folder):
    """Random weights that a wrong norm, bias, head or rotation shows on: no ones, no zeros, attention far from flat."""
    config = CONFIGS[name]
    random = generator(name)
    model = model_class(name)._from_config(transformers.AutoConfig.for_model(**config), dtype=torch.float32)
    tied = config.get("tie_word_embeddings", False)
    tensors = {}
    for key, tensor in sorted(model.state_dict().items()):
        if tied and key == "lm_head.weight":
            continue
        noise = random.standard_normal(tuple(tensor.shape)).astype(np.float32)
        if key.endswith(("norm.weight", "LayerNorm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")):
            value = 1 + np.float32(0.25) * noise
        elif key.endswith("bias"):
            value = np.float32(0.3) * noise
        elif "embed" in key or "lm_head" in key or ".wte." in key or ".wpe." in key:
            value = np.float32(0.3) * noise
        else:
            sharp = ("q_proj", "k_proj", "c_attn", ".query.", ".key.", "q_lin", "k_lin")
            gain = 1.5 if any(part in key for part in sharp) else 1.0
            fan_in = tensor.shape[0 if config["model_type"] == "gpt2" else 1]
            value = np.float32(gain / math.sqrt(fan_in)) * noise
        tensors[key] = value
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


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


def initialise(model, run, random):
    """A as PEFT's default would (uniform, kaiming with a = sqrt 5), B zero or small, both from our own numbers. What is
    made of the base's weights stays as PEFT made it."""
    if run["adapter"].get("init_lora_weights") in ("pissa", "olora"):
        return
    for key, parameter in sorted(model.named_parameters()):
        if "lora_A" in key:
            bound = 1 / math.sqrt(parameter.shape[1])
            value = random.uniform(-bound, bound, tuple(parameter.shape))
        elif "lora_B" in key:
            value = random.standard_normal(tuple(parameter.shape)) * (0.08 if run["nonzero_b"] else 0)
        elif "lora_embedding" in key:
            value = random.standard_normal(tuple(parameter.shape)) * (0.1 if "lora_embedding_A" in key else 1)
        elif "lora_magnitude" in key:
            value = parameter.detach().numpy() * (1 + 0.1 * random.standard_normal(tuple(parameter.shape)))
        elif "hada_" in key or "lokr_" in key:
            bound = 1 / math.sqrt(parameter.shape[1])
            value = random.uniform(-bound, bound, tuple(parameter.shape))
        elif "oft_R" in key:
            value = 0.05 * random.standard_normal(tuple(parameter.shape))
        elif "lora_E" in key:
            value = 0.5 * random.standard_normal(tuple(parameter.shape))
        elif "vera_lambda" in key or "ia3_l" in key:
            value = parameter.detach().numpy() + 0.2 * random.standard_normal(tuple(parameter.shape))
        else:
            continue
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(value.astype(np.float32)))


def adapter_key(name):
    """The name in the file of a parameter of the adapter called default."""
    name = name.replace(".modules_to_save.default.", ".").replace(".default.", ".").removesuffix(".default")
    return name.removesuffix(".weight") if "magnitude" in name else name


START = {}  # Delta-LoRA: A and B when the weights began to move


def updates(model):
    """B A of every LoRA layer."""
    layers = [m for m in model.modules() if isinstance(m, LoraLayer)]
    return [(m, (m.lora_B["default"].weight @ m.lora_A["default"].weight).detach() * m.scaling["default"]) for m in layers]


def move_weights(model, run, step, before):
    """Delta-LoRA as its paper has it: the weights themselves move by what the updates moved."""
    if step >= run["delta_warmup"]:
        for (layer, now), (_, then) in zip(updates(model), before, strict=True):
            layer.get_base_layer().weight.data += run["delta_ratio"] * (now - then)
    if step + 1 == run["delta_warmup"]:
        START.update({k: v.detach().numpy().copy() for k, v in get_peft_model_state_dict(model).items()})


def save_adapter(model, run, folder):
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().numpy().copy() for k, v in get_peft_model_state_dict(model, save_embedding_layers=False).items()}
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict()
    config["base_model_name_or_path"] = run["model"]
    for key in ("target_modules", "feedforward_modules"):
        if key in config:
            config[key] = run["adapter"][key]
    config["inference_mode"] = True
    if run["method"] == "delta-lora":
        for key in [k for k in state if ".lora_" in k]:
            name, start = key.replace(".lora_", ".delta_lora_"), START.get(key)
            state[name] = np.zeros_like(state[key]) if start is None else start
        save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config |= {"peft_type": "DELTA_LORA", "delta_ratio": run["delta_ratio"], "delta_warmup": run["delta_warmup"]}
    elif run["method"] != "peft":  # ours: PEFT keeps in its file no trace of how an adapter was trained
        config["lorikeet_method"] = run["method"]
    # Values that are enums of PEFT are saved by their text.
    text = json.dumps(config, indent=2, sort_keys=True, default=lambda value: getattr(value, "value", str(value)))
    (folder / "adapter_config.json").write_text(text + "\n")


def gradients(model):
    return {adapter_key(k): p.grad.detach().numpy().copy() for k, p in model.named_parameters() if p.requires_grad}


def norm(tensors):
    return math.sqrt(sum(float((t.astype(np.float64) ** 2).sum()) for t in tensors.values()))


def backward(model, micro_batches):
    """Mean over all targets of the micro-batches together; gradients are left in the parameters."""
    targets = sum(target_count(b) for b in micro_batches)
    model.zero_grad()
    total, logits = 0.0, None
    for batch in micro_batches:
        shared = {} if batch["labels"].dim() == 1 else {"num_items_in_batch": torch.tensor(targets)}
        output = model(**batch, **shared)
        output.loss.backward()
        total += output.loss.item()
        logits = output.logits.detach() if logits is None else logits
    return total, targets, logits


def make_optimizer(model, run):
    if run["method"] == "lora-fa":  # freezes A
        lorafa.is_bf16_available = lambda: False  # the projection in fp32
        adapter = run["adapter"]
        optimizer = create_lorafa_optimizer(model, adapter["r"], adapter["lora_alpha"], run["lr"])
        for group in optimizer.param_groups:
            group["eps"] = run["eps"]
        return optimizer
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        parameters, lr=run["lr"], betas=run["betas"], eps=run["eps"], weight_decay=run["weight_decay"]
    )


def make_base(run, models):
    base = model_class(run["model"]).from_pretrained(
        models / run["model"], dtype=torch.float32, attn_implementation="eager"
    )
    base.config.use_cache = False
    return base


def make_run(name, models, folder):
    run = DEFAULTS | RUNS[name]
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_sequences(name, run, models)
    write_ids(folder / "batches.ids", rows)
    batch, accumulation = run["batch"], run["accumulation"]
    micro = [tensors_of(rows[i : i + batch], run) for i in range(0, len(rows), batch)]
    steps = [micro[i : i + accumulation] for i in range(0, len(micro), accumulation)]

    base = make_base(run, models)
    task = "SEQ_CLS" if run["task"] == "classify" else "CAUSAL_LM"
    model = get_peft_model(base, run["config"](task_type=task, **run["adapter"]))
    model.train()
    initialise(model, run, generator(name + " adapter"))
    save_adapter(model, run, folder / "init_adapter")

    optimizer = make_optimizer(model, run)
    parameters = [p for p in model.parameters() if p.requires_grad]
    trainable = sum(p.numel() for p in parameters)
    if run["schedule"] == "cosine":
        schedule = transformers.get_cosine_schedule_with_warmup(optimizer, run["warmup_steps"], run["steps"])
    else:
        schedule = transformers.get_constant_schedule(optimizer)

    losses, norms, rates, targets, logits = [], [], [], [], {}
    for step, micro_batches in enumerate(steps):
        loss, count, first_logits = backward(model, micro_batches)
        found = gradients(model)
        if step == 0:
            logits["step0"] = first_logits.numpy().copy()
            if run["nonzero_b"]:  # with B = 0 half of them are zero and the final ones say more
                save_file(found, folder / "step0_grads.safetensors")
        losses.append(loss)
        norms.append(norm(found))
        targets.append(count)
        rates.append(optimizer.param_groups[0]["lr"])
        if run["max_grad_norm"] is not None:
            torch.nn.utils.clip_grad_norm_(parameters, run["max_grad_norm"])
        before = updates(model) if run["method"] == "delta-lora" else None
        optimizer.step()
        if run["method"] == "delta-lora":
            move_weights(model, run, step, before)
        if run["config"] is AdaLoraConfig:
            model.base_model.update_and_allocate(step)
        schedule.step()
    save_adapter(model, run, folder / "final_adapter")
    if run["config"] is AdaLoraConfig:  # without the ranks that were given up, as its file
        model = PeftModel.from_pretrained(make_base(run, models), folder / "final_adapter", is_trainable=True).train()
        parameters = [p for p in model.parameters() if p.requires_grad]

    final_loss, _, final_logits = backward(model, steps[0])
    final = gradients(model)
    save_file(final, folder / "final_batch0_grads.safetensors")
    result = {
        "model": run["model"],
        "trainable": trainable,
        "settings": {k: run[k] for k in DEFAULTS if k not in NOT_SETTINGS} | {"dropout": 0.0},
        "loss": "mean over the unmasked shifted targets of all micro-batches of an optimizer step",
        "losses": losses,
        "targets": targets,
        "learning_rates": rates,
        "grad_norms": norms,
        "final_on_batch0": {"loss": final_loss, "grad_norm": norm(final)},
        "versions": {
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
            "peft": peft.__version__,
            "numpy": np.__version__,
        },
    }
    if run["merged"]:
        merged = model.merge_and_unload().eval()
        with torch.no_grad():
            output = merged(**steps[0][0])
        logits["merged"] = output.logits.numpy().copy()
        result["merged_batch0_loss"] = output.loss.item()
        result["merged_logits_differ_by"] = float((output.logits - final_logits).abs().max())
    if run["accumulation"] == 1:
        save_file(logits, folder / "logits.safetensors")
    (folder / "losses.json").write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"{name}: loss {losses[0]:.4f} .. {losses[-1]:.4f}, gradient norm {min(norms):.3f} .. {max(norms):.3f}, "
        f"batch 0 {losses[0]:.4f} -> {final_loss:.4f}"
    )


def make_all(output, stories, runs):
    models = output / "models"
    if not (models / "stories260k").exists():
        models.mkdir(parents=True, exist_ok=True)
        (models / "stories260k").symlink_to(stories)
    for name in CONFIGS:
        make_model(name, models / name)
    for name in runs:
        make_run(name, models, output / "golden" / name)


def compare(found, expected):
    """Worst difference of every kind of file; models and data must be the same bytes."""
    worst = {}
    for path in sorted(p for p in found.rglob("*") if p.is_file() and "models/stories260k" not in p.as_posix()):
        other = expected / path.relative_to(found)
        kind = path.name
        if path.read_bytes() == other.read_bytes():
            difference = 0.0
        elif kind.endswith(".safetensors"):
            a, b = load_file(path), load_file(other)
            difference = max(float(np.abs(a[k] - b[k]).max()) for k in a) if a.keys() == b.keys() else math.inf
        elif kind == "losses.json":
            a, b = json.loads(path.read_text()), json.loads(other.read_text())
            difference = max(abs(x - y) for x, y in zip(a["losses"], b["losses"], strict=True))
        else:
            difference = math.inf
        worst[kind] = max(worst.get(kind, 0.0), difference)
    print("\n".join(f"{kind}: worst difference {value:.3g}" for kind, value in worst.items()))
    return max(worst.values()) < 1e-3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", nargs="+", default=list(RUNS), metavar="RUN", help="make only these runs")
    arguments = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(2)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    stories = DATA / "models" / "stories260k"
    if not arguments.check:
        make_all(DATA, stories, arguments.only)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        make_all(pathlib.Path(folder), stories, arguments.only)
        return 0 if compare(pathlib.Path(folder), DATA) else 1


if __name__ == "__main__":
    sys.exit(main())
