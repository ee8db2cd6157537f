"""Adapters: their first values, what Delta-LoRA does to the weights, and their files."""

import json
import math

import numpy as np
import torch
from peft import get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.numpy import save_file


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
