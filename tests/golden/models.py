"""The small models of tests/data/models: their configurations, and their weights."""

import json
import math
import zlib

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM

SEED = 20260

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
