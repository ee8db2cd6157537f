#!/usr/bin/env python3
"""Makes the small models and the golden LoRA runs of tests/data with PyTorch + PEFT (fp32, CPU, deterministic).

    make_golden.py                 writes tests/data/models (all but stories260k) and tests/data/golden
    make_golden.py --check         makes them again in a temporary folder and compares with what is there

Every random number comes from numpy's PCG64 with fixed seeds, so only the arithmetic depends on the versions, which
each run records. tests/data/golden/README.md says what the files hold. The models stand in models.py, the runs in
runs.py, their data in sequences.py, first values and files of adapters in adapters.py; training is here.
"""

import argparse
import json
import math
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import peft
import torch
import transformers
from adapters import adapter_key, initialise, move_weights, save_adapter, updates
from models import CONFIGS, generator, make_model, model_class
from peft import AdaLoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_lorafa_optimizer, lorafa
from runs import DEFAULTS, NOT_SETTINGS, RUNS
from safetensors.numpy import load_file, save_file
from sequences import make_sequences, target_count, tensors_of, write_ids

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"


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
    if run["adapter"].get("coft"):  # it shortens Q where it is next used
        with torch.no_grad():
            model(**steps[0][0])
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
