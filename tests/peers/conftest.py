"""What the peers' tests share: running the program, and the same computations with PyTorch and PEFT."""

import json
import os
import pathlib
import subprocess
import warnings

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
MODELS = DATA / "models"
GOLDEN = DATA / "golden"
TEXT = DATA.parent.parent / "data" / "tinyshakespeare.txt"
IGNORED = -100

transformers.utils.logging.disable_progress_bar()


class Program:
    """The program under test; a status other than 0 fails the test with what it wrote."""

    def __init__(self, path):
        self.path = path

    def __call__(self, *arguments):
        command = [self.path, *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, f"{' '.join(command)}\nstatus {result.returncode}\n{result.stderr[-4000:]}"
        return result.stdout

    def loss(self, model, data, adapter=None, task="causal-lm"):
        options = ["--adapter", adapter] if adapter else []
        options += ["--task", task] if task != "causal-lm" else []
        return json.loads(self("eval", "--model", model, "--data", data, *options, "--json"))["loss"]


@pytest.fixture(scope="session")
def lorikeet():
    path = os.environ.get("LORIKEET")
    if not path:
        pytest.skip("LORIKEET does not name the program")
    return Program(path)


def read_ids(path):
    """(ids, labels) of every line of an .ids file; labels has one element, the class, where texts are classified."""
    rows = []
    for line in pathlib.Path(path).read_text().splitlines():
        ids, _, labels = line.partition("\t")
        ids = [int(i) for i in ids.split()]
        rows.append((ids, [int(i) for i in labels.split()] if labels else ids))
    return rows


def load_base(folder, task="causal-lm"):
    kind = AutoModelForSequenceClassification if task == "classify" else AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def load_adapted(folder, adapter, task="causal-lm", trainable=False):
    """PEFT only warns about adapter tensors that are missing or have no place: here that is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(missing|unexpected) adapter keys.*")
        return PeftModel.from_pretrained(load_base(folder, task), adapter, is_trainable=trainable).eval()


@torch.no_grad()
def logits_of(model, ids):
    """[tokens, vocabulary], or [classes]."""
    return model(input_ids=torch.tensor([ids])).logits[0]


@torch.no_grad()
def loss_of(model, rows):
    """Mean over all targets, one sequence at a time, summed in double precision."""
    total, targets = 0.0, 0
    for ids, labels in rows:
        scores = logits_of(model, ids).double()
        classify = scores.dim() == 1
        scores = scores[None] if classify else scores[:-1]
        wanted = torch.tensor(labels if classify else labels[1:])
        total += torch.nn.functional.cross_entropy(scores, wanted, ignore_index=IGNORED, reduction="sum").item()
        targets += int((wanted != IGNORED).sum())
    return total / targets


def golden_runs():
    """All but those that PEFT cannot read."""
    return sorted(path.name for path in GOLDEN.iterdir() if path.is_dir() and not path.name.endswith("delta-lora"))


def golden(name):
    folder = GOLDEN / name
    return folder, json.loads((folder / "losses.json").read_text())


def task_of(result):
    return result["settings"].get("task", "causal-lm")


def train_arguments(folder, result, model, out):
    """The command line that repeats a golden run."""
    settings = result["settings"]
    arguments = [
        "train",
        "--model",
        model,
        "--data",
        folder / "batches.ids",
        "--no-shuffle",
        "--init-adapter",
        folder / "init_adapter",
        "--task",
        task_of(result),
        "--batch",
        settings["batch"],
        "--accum",
        settings["accumulation"],
        "--seq",
        settings["seq"],
        "--steps",
        settings["steps"],
        "--lr",
        settings["lr"],
        "--weight-decay",
        settings["weight_decay"],
        "--schedule",
        settings["schedule"],
        "--warmup",
        settings["warmup_steps"],
        "--log",
        out / "log.jsonl",
        "--out",
        out / "adapter",
    ]
    if settings["max_grad_norm"] is not None:
        arguments += ["--max-grad-norm", settings["max_grad_norm"]]
    return arguments


def logged(path):
    return [
        line for line in map(json.loads, path.read_text().splitlines()) if "loss" in line and "step_seconds" in line
    ]


def assert_close(found, expected, absolute=0.0, relative=0.0):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=relative, atol=absolute)
