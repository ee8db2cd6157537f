"""Whole training runs, repeated by the program."""

import json
import os
import pathlib

import pytest
from conftest import MODELS, assert_close, golden, golden_runs, load_adapted, logged, loss_of, read_ids, task_of, train_arguments
from safetensors.numpy import load_file

LOSS = 1e-4  # another order of summation stays near 1e-6, any left-out feature is above 1e-3


@pytest.mark.parametrize("name", golden_runs())
def test_shipped_adapters_mean_the_same_to_peft(name):
    """The golden files against this PEFT: a failure here is not the program's."""
    if "adalora" in name:
        pytest.skip("the run's losses contain AdaLoRA's penalty")
    folder, result = golden(name)
    first = read_ids(folder / "batches.ids")[: result["settings"]["batch"] * result["settings"]["accumulation"]]
    for adapter, loss in (("init_adapter", result["losses"][0]), ("final_adapter", result["final_on_batch0"]["loss"])):
        model = load_adapted(MODELS / result["model"], folder / adapter, task_of(result))
        assert_close(loss_of(model, first), loss, relative=1e-5)


@pytest.mark.parametrize("name", golden_runs())
def test_training_repeats_the_golden_run(lorikeet, tmp_path, name):
    folder, result = golden(name)
    lorikeet(*train_arguments(folder, result, MODELS / result["model"], tmp_path))
    lines = logged(tmp_path / "log.jsonl")
    assert_close([line["loss"] for line in lines], result["losses"], absolute=LOSS)
    assert_close([line["learning_rate"] for line in lines], result["learning_rates"], relative=1e-6, absolute=1e-12)
    found = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    expected = load_file(folder / "final_adapter" / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        trained = found[key][tuple(slice(size) for size in value.shape)]  # PiSSA and OLoRA: the start follows
        assert_close(trained, value, absolute=2e-4)


def test_training_repeats_the_smollm2_run(lorikeet, tmp_path):
    where, model = os.environ.get("LK_GOLDEN_DIR"), os.environ.get("LK_GOLDEN_MODEL")
    if not where or not model:
        pytest.skip("LK_GOLDEN_DIR and LK_GOLDEN_MODEL do not name a run and its model")
    folder = pathlib.Path(where) / "smollm2-lora-qv"
    result = json.loads((folder / "losses.json").read_text())
    data = tmp_path / "batches.ids"
    data.write_text((folder / "batches.txt").read_text())
    lorikeet(
        "train",
        "--model",
        model,
        "--data",
        data,
        "--no-shuffle",
        "--init-adapter",
        folder / "init_adapter",
        "--batch",
        result["batch"],
        "--seq",
        result["seq"],
        "--steps",
        result["steps"],
        "--lr",
        result["lr"],
        "--weight-decay",
        result["weight_decay"],
        "--schedule",
        "constant",
        "--log",
        tmp_path / "log.jsonl",
        "--out",
        tmp_path / "adapter",
    )
    assert_close([line["loss"] for line in logged(tmp_path / "log.jsonl")], result["losses"], absolute=LOSS)
    found = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for key, value in load_file(folder / "final_adapter" / "adapter_model.safetensors").items():
        assert_close(found[key], value, absolute=2e-4)
