"""Adapters for other programs: llama.cpp (llama-cpp-python) computes with an exported one what we compute."""

import ctypes
import os
import pathlib

import numpy as np
import pytest

llama_cpp = pytest.importorskip("llama_cpp")

GGUF_BASE = os.environ.get("LK_GGUF_BASE")  # a llama model in GGUF that llama.cpp can run


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def ours(lorikeet, model, adapter, ids, vocabulary):
    """Of the last id, by the library."""
    library = ctypes.CDLL(str(pathlib.Path(lorikeet.path).parent / "liblorikeet.so"))
    library.lk_error_message.restype = ctypes.c_char_p
    context, session, base, lora = (ctypes.c_void_p() for _ in range(4))
    logits = np.zeros((len(ids), vocabulary), dtype=np.float32)

    def call(name, *arguments):
        status = getattr(library, name)(*arguments)
        assert status == 0, library.lk_error_message(context)

    call("lk_context_create", None, ctypes.byref(context))
    call("lk_session_create", context, None, ctypes.byref(session))
    call("lk_model_load", session, str(model).encode(), None, ctypes.byref(base))
    if adapter:
        call("lk_adapter_load", base, str(adapter).encode(), ctypes.byref(lora))
    given = (ctypes.c_int32 * len(ids))(*ids)
    call("lk_logits", base, lora, given, ctypes.c_size_t(len(ids)), logits.ctypes.data_as(ctypes.c_void_p))
    library.lk_adapter_destroy(lora)
    library.lk_model_destroy(base)
    library.lk_session_destroy(session)
    library.lk_context_destroy(context)
    return softmax(logits[-1].astype(np.float64))


def theirs(model, adapter, prompt):
    runner = llama_cpp.Llama(
        model_path=str(model),
        lora_path=str(adapter) if adapter else None,
        n_ctx=64,
        logits_all=True,
        verbose=False,
        n_threads=2,
    )
    ids = runner.tokenize(prompt.encode(), add_bos=False, special=True)
    runner.eval(ids)
    logits = np.array(runner.scores[len(ids) - 1], dtype=np.float64)
    runner.close()
    return softmax(logits), ids


@pytest.mark.skipif(not GGUF_BASE, reason="LK_GGUF_BASE does not name a model")
@pytest.mark.parametrize("rslora", [False, True], ids=["lora", "rslora"])
def test_llama_cpp_computes_the_same(lorikeet, tmp_path, rslora):
    text = tmp_path / "train.txt"
    text.write_text("Now is the winter of our discontent made glorious summer by this sun of York. " * 20)
    lorikeet(
        "train", "--model", GGUF_BASE, "--data", text, "--out", tmp_path / "adapter", "--rank", 6, "--alpha", 9, "--lr",
        2e-3, "--steps", 12, "--batch", 1, "--seq", 32, *(["--rslora"] if rslora else []),
    )
    lorikeet("convert", "--adapter", tmp_path / "adapter", "--to", "gguf", "--model", GGUF_BASE, "--out",
             tmp_path / "adapter.gguf")
    prompt = "Now is the winter of our"
    base, ids = theirs(GGUF_BASE, None, prompt)
    found, _ = theirs(GGUF_BASE, tmp_path / "adapter.gguf", prompt)
    expected = ours(lorikeet, GGUF_BASE, tmp_path / "adapter", ids, len(found))
    assert np.abs(expected - base).max() > 0.05, "the adapter must change the distribution"
    assert np.abs(found - expected).max() < 1e-2


@pytest.mark.skipif(not GGUF_BASE, reason="LK_GGUF_BASE does not name a model")
@pytest.mark.parametrize("way", ["from-gguf", "by-folder"])
def test_llama_cpp_runs_a_model_that_we_wrote(lorikeet, tmp_path, way):
    """From the GGUF itself its keys are copied; by way of a folder the tokenizer is made anew."""
    source = GGUF_BASE
    if way == "by-folder":
        lorikeet("merge", "--model", GGUF_BASE, "--out", tmp_path / "folder")
        source = tmp_path / "folder"
    lorikeet("merge", "--model", source, "--out", tmp_path / "model.gguf", "--dtype", "fp16")
    for prompt in ["Now is the winter of our", "x = 1234; // <|im_start|>user\n  it's"]:
        _, ids = theirs(GGUF_BASE, None, prompt)  # its numbers have the rounding of llama.cpp's 8-bit activations
        found, found_ids = theirs(tmp_path / "model.gguf", None, prompt)
        expected = ours(lorikeet, source, None, ids, len(found))
        assert found_ids == ids
        assert np.abs(found - expected).max() < 1e-2
