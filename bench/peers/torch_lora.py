#!/usr/bin/env python3
"""Fine-tunes with PyTorch + PEFT on the CPU and prints one JSON object: the peer that compare.py times.

It reads the same .ids file and the same initial adapter as Lorikeet, so both do the same work and their losses agree.
With --make-adapter DIR it only writes an initial adapter and stops.
"""

import argparse
import json
import pathlib
import time

import numpy as np
import torch
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
)
from peft.optimizers import create_lorafa_optimizer
from transformers import AutoModelForCausalLM

VARIANTS = ("fp32", "bf16", "autocast", "fp32-compile", "bf16-compile", "autocast-compile")


def batches_of(path, batch, seq):
    """Consecutive batches, in the file's order, every sequence of exactly seq ids."""
    with open(path) as file:
        rows = [np.array(line.split("\t")[0].split(), dtype=np.int64) for line in file if line.strip()]
    if any(len(row) != seq for row in rows):
        raise SystemExit(f"{path}: every sequence must have {seq} ids")
    rows = np.stack(rows)
    whole = len(rows) // batch
    return torch.from_numpy(rows[: whole * batch].reshape(whole, batch, seq))


def load_model(folder, dtype):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")


def config_of(method, targets, rank, alpha, steps):
    shared = {"target_modules": targets, "task_type": "CAUSAL_LM"}
    lora = {"r": rank, "lora_alpha": alpha}
    return {
        "lora": lambda: LoraConfig(**lora, **shared),
        "rslora": lambda: LoraConfig(**lora, **shared, use_rslora=True),
        "dora": lambda: LoraConfig(**lora, **shared, use_dora=True),
        "lora-fa": lambda: LoraConfig(**lora, **shared),
        "vera": lambda: VeraConfig(r=rank, **shared, save_projection=False),
        "ia3": lambda: IA3Config(**shared, feedforward_modules=[t for t in targets if t == "down_proj"]),
        "loha": lambda: LoHaConfig(r=rank, alpha=alpha, **shared),
        "lokr": lambda: LoKrConfig(r=rank, alpha=alpha, **shared),
        "oft": lambda: OFTConfig(oft_block_size=32, **shared),
        "adalora": lambda: AdaLoraConfig(
            init_r=rank * 3 // 2, target_r=rank, lora_alpha=alpha, total_step=max(steps, 2), **shared
        ),
    }[method]()


def make_adapter(arguments):
    torch.manual_seed(arguments.seed)
    targets = arguments.targets if arguments.targets == "all-linear" else arguments.targets.split(",")
    config = config_of(arguments.method, targets, arguments.rank, arguments.alpha, arguments.steps)
    get_peft_model(load_model(arguments.model, torch.float32), config).save_pretrained(arguments.make_adapter)
    if arguments.method == "lora-fa":  # of which PEFT keeps no trace
        path = pathlib.Path(arguments.make_adapter) / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"lorikeet_method": "lora-fa"}))


def train(arguments):
    precision, _, compiled = arguments.variant.partition("-")
    model = load_model(arguments.model, torch.bfloat16 if precision == "bf16" else torch.float32)
    model.config.use_cache = False
    # PEFT keeps the adapter in fp32 beside a 16-bit base.
    model = PeftModel.from_pretrained(model, arguments.adapter, is_trainable=True)
    model.train()
    run = torch.compile(model) if compiled else model
    if arguments.method == "lora-fa":  # freezes A
        optimizer = create_lorafa_optimizer(model, arguments.rank, arguments.alpha, arguments.lr)
        parameters = [p for p in model.parameters() if p.requires_grad]
    else:
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=arguments.lr, weight_decay=0.0)
    batches = batches_of(arguments.ids, arguments.batch, arguments.seq)
    losses, seconds = [], []
    for step in range(arguments.steps):
        begin = time.perf_counter()
        ids = batches[step % len(batches)]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            loss = run(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        if arguments.method == "adalora":
            model.base_model.update_and_allocate(step)
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - begin)
    print(
        json.dumps(
            {
                "variant": arguments.variant,
                "torch": torch.__version__,
                "capability": torch.backends.cpu.get_cpu_capability(),
                "threads": torch.get_num_threads(),
                "trainable": sum(p.numel() for p in parameters),
                "losses": losses,
                "step_seconds": seconds,
            }
        )
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="Hugging Face folder")
    parser.add_argument("--make-adapter", metavar="DIR")
    parser.add_argument("--adapter", metavar="DIR")
    parser.add_argument("--ids")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--variant", choices=VARIANTS, default="fp32")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--targets", default="all-linear")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.make_adapter:
        make_adapter(arguments)
    elif arguments.adapter and arguments.ids:
        train(arguments)
    else:
        parser.error("give --make-adapter, or --adapter and --ids")


if __name__ == "__main__":
    main()
