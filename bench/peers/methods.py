#!/usr/bin/env python3
"""Every method on one model, by Lorikeet and by PyTorch + PEFT, alternately: trainable parameters, peak memory of the
process, tokens per second, and each relative to LoRA of the same program.

    bench/peers/methods.py --lorikeet build/release/lorikeet --model MODEL.gguf --batch 4 --seq 128 --threads 2

Both start from one adapter that PEFT made and read the same ids, so their losses must agree: the last column. The first
step of a run is dropped and the fastest of the others taken, over all repeats, as other load only makes steps slower.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from compare import TEXT, make_ids, run_child, torch_environment

HERE = pathlib.Path(__file__).resolve().parent
METHODS = ("lora", "rslora", "dora", "lora-fa", "vera", "ia3", "loha", "lokr", "oft", "adalora")
TARGETS = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"


def run_lorikeet(arguments, method, work):
    log = work / "log.jsonl"
    log.unlink(missing_ok=True)
    options = ["--model", arguments.model, "--data", work / "batches.ids", "--no-shuffle", "--device", "cpu", "-q"]
    options += ["--init-adapter", work / method, "--batch", arguments.batch, "--seq", arguments.seq]
    options += ["--steps", arguments.steps, "--lr", arguments.lr, "--threads", arguments.threads]
    _, _, peak = run_child([arguments.lorikeet, "train", *options, "--log", log, "--out", work / "out"])
    lines = [line for line in map(json.loads, log.read_text().splitlines()) if "step_seconds" in line]
    size = (work / "out" / "adapter_model.safetensors").stat().st_size
    return [line["step_seconds"] for line in lines], [line["loss"] for line in lines], peak, size


def run_torch(arguments, method, folder, work):
    options = ["--model", folder, "--adapter", work / method, "--ids", work / "batches.ids", "--method", method]
    options += ["--batch", arguments.batch, "--seq", arguments.seq, "--steps", arguments.steps, "--lr", arguments.lr]
    options += ["--threads", arguments.threads, "--rank", arguments.rank]
    command = [sys.executable, HERE / "torch_lora.py", *options]
    output, _, peak = run_child(command, torch_environment(arguments.threads))
    result = json.loads(output.splitlines()[-1])
    return result["step_seconds"], result["losses"], peak, result["trainable"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lorikeet", required=True)
    parser.add_argument("--model", required=True, help="a .gguf file or a Hugging Face folder")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--work", help="a folder that keeps what is made once: the model in fp32, adapters, ids")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(arguments.work or temporary)
        work.mkdir(parents=True, exist_ok=True)
        folder = pathlib.Path(arguments.model)
        if not folder.is_dir():
            folder = work / "model"
            if not folder.exists():
                subprocess.run([sys.executable, HERE / "gguf_to_hf.py", arguments.model, folder], check=True)
        methods = arguments.methods.split(",")
        if not (work / "batches.ids").exists():
            make_ids(folder, TEXT, work / "batches.ids", arguments.batch * arguments.steps, arguments.seq)
        for method in methods:
            if not (work / method).exists():
                command = [sys.executable, HERE / "torch_lora.py", "--model", folder, "--make-adapter", work / method]
                command += ["--method", method, "--rank", arguments.rank, "--targets", TARGETS]
                run_child(command + ["--steps", arguments.steps])
        if arguments.work and not arguments.repeats:
            return  # everything is ready
        best, rows = {}, {}
        for _ in range(arguments.repeats):
            for method in methods:
                steps, losses, peak, size = run_lorikeet(arguments, method, work)
                torch_steps, torch_losses, torch_peak, trainable = run_torch(arguments, method, folder, work)
                ours, theirs = best.get(method, (1e9, 1e9))
                best[method] = (min(ours, *steps[1:]), min(theirs, *torch_steps[1:]))
                difference = max(abs(a - b) for a, b in zip(losses, torch_losses, strict=True))
                rows[method] = (trainable, size, peak, torch_peak, difference)
        tokens = arguments.batch * arguments.seq
        print(f"load average {os.getloadavg()[0]:.1f}; batch {arguments.batch}, seq {arguments.seq}, r = {arguments.rank}")
        print("| method | trained | file, KB | peak MiB, PEFT | tokens/s, PEFT | step / LoRA's, PEFT | losses differ by |")
        print("|---|---|---|---|---|---|---|")
        for method in methods:
            trainable, size, peak, torch_peak, difference = rows[method]
            ours, theirs = best[method]
            print(
                f"| {method} | {trainable} | {size / 1000:.0f} | {peak / 2**20:.0f}, {torch_peak / 2**20:.0f} | "
                f"{tokens / ours:.0f}, {tokens / theirs:.0f} | {ours / best[methods[0]][0]:.2f}, "
                f"{theirs / best[methods[0]][1]:.2f} | {difference:.0e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
