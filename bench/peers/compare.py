#!/usr/bin/env python3
"""Times Lorikeet against PyTorch + PEFT on the same token batches, alternately: A B A B ...

    bench/peers/compare.py --lorikeet build/release/lorikeet --model MODEL.gguf --batch 4 --seq 256 --rank 8 \\
        --targets all-linear --dtype fp32 --threads 2 --repeats 3

Both sides start from one adapter, read one .ids file in order and use one optimizer, so their losses are compared too:
a difference means they did not do the same work. Every run is its own process. Of each run the first step (warm-up,
compilation) is dropped and the median of the others taken; of the runs, the median and the spread (max-min over
median). Memory is the peak resident size of the process. Timings mean something on an otherwise idle machine only:
the load average is recorded.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TEXT = HERE.parent.parent / "data" / "tinyshakespeare.txt"
VARIANTS = ("fp32", "bf16", "autocast", "fp32-compile", "bf16-compile", "autocast-compile")


def processor():
    try:
        for line in open("/proc/cpuinfo"):
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def run_child(command, environment=None):
    """Runs a command to its end; returns stdout, wall seconds and its own peak resident bytes."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        begin = time.perf_counter()
        child = subprocess.Popen([str(c) for c in command], stdout=output, stderr=errors, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0), errors.seek(0)
        if child.returncode:
            tail = errors.read()[-2000:]
            raise SystemExit(f"{' '.join(map(str, command))}\nended with {child.returncode}:\n{tail}")
        scale = 1 if sys.platform == "darwin" else 1024
        return output.read(), wall, usage.ru_maxrss * scale


def torch_environment(threads):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    environment.update(
        OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1"
    )
    return environment


def write_ids(folder, text, path, count, seq):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(text.read_text(encoding="utf-8"), add_special_tokens=False).ids
    if len(ids) < count * seq:
        raise SystemExit(f"{text}: {len(ids)} tokens, {count * seq} are needed")
    rows = (ids[i * seq : (i + 1) * seq] for i in range(count))
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))


def make_ids(*arguments):
    """The first count*seq tokens of the text, one sequence a line. In a process of its own: Linux counts the peak of
    the parent's memory as a child's, so this one stays small."""
    child = multiprocessing.Process(target=write_ids, args=arguments)
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit("no ids were made")


def run_torch(arguments, variant, folder, work):
    output, wall, peak = run_child(
        [
            sys.executable,
            HERE / "torch_lora.py",
            "--model",
            folder,
            "--adapter",
            work / "adapter",
            "--ids",
            work / "batches.ids",
            "--variant",
            variant,
            "--batch",
            arguments.batch,
            "--seq",
            arguments.seq,
            "--steps",
            arguments.steps,
            "--lr",
            arguments.lr,
            "--threads",
            arguments.threads,
        ],
        torch_environment(arguments.threads),
    )
    result = json.loads(output.splitlines()[-1])
    return {
        "losses": result["losses"],
        "step_seconds": result["step_seconds"],
        "wall_seconds": wall,
        "peak_bytes": peak,
        "torch": result["torch"],
        "capability": result["capability"],
    }


def run_lorikeet(arguments, _, folder, work):
    log = work / "log.jsonl"
    log.unlink(missing_ok=True)
    _, wall, peak = run_child(
        [
            arguments.lorikeet,
            "train",
            "--model",
            arguments.model,
            "--data",
            work / "batches.ids",
            "--no-shuffle",
            "--init-adapter",
            work / "adapter",
            "--batch",
            arguments.batch,
            "--seq",
            arguments.seq,
            "--steps",
            arguments.steps,
            "--lr",
            arguments.lr,
            "--schedule",
            "constant",
            "--dtype",
            arguments.dtype,
            "--device",
            arguments.device,
            "--threads",
            arguments.threads,
            "--log",
            log,
            "--out",
            work / "out",
            *arguments.extra.split(),
        ]
    )
    lines = [line for line in map(json.loads, log.read_text().splitlines()) if "step_seconds" in line]
    if len(lines) != arguments.steps:
        raise SystemExit(f"{log}: {len(lines)} steps logged, expected {arguments.steps}")
    return {
        "losses": [line["loss"] for line in lines],
        "step_seconds": [line["step_seconds"] + line["data_seconds"] for line in lines],
        "wall_seconds": wall,
        "peak_bytes": peak,
    }


def summary(arguments, runs):
    tokens = arguments.batch * arguments.seq
    rates = [tokens / statistics.median(run["step_seconds"][1:]) for run in runs]
    middle = statistics.median(rates)
    return {
        "tokens_per_second": middle,
        "tokens_per_second_runs": rates,
        "spread": (max(rates) - min(rates)) / middle,
        "peak_bytes": statistics.median(run["peak_bytes"] for run in runs),
        "wall_seconds": statistics.median(run["wall_seconds"] for run in runs),
        "losses": runs[0]["losses"],
    }


def print_table(order, results):
    reference = results.get("lorikeet")
    print(
        f"{'program':<24} {'tokens/s':>10} {'spread':>8} {'peak MiB':>9} {'run s':>7} {'Lorikeet is':>12} {'memory':>8}"
        f" {'loss differs by':>16}"
    )
    for name in order:
        row = results[name]
        ratio = memory = loss = ""
        if reference and row is not reference:
            ratio = f"{reference['tokens_per_second'] / row['tokens_per_second']:.2f}x"
            memory = f"{reference['peak_bytes'] / row['peak_bytes']:.2f}x"
            loss = f"{max(abs(a - b) for a, b in zip(reference['losses'], row['losses'])):.1e}"
        print(
            f"{name:<24} {row['tokens_per_second']:>10.1f} {row['spread']:>8.1%} {row['peak_bytes'] / 2**20:>9.0f}"
            f" {row['wall_seconds']:>7.1f} {ratio:>12} {memory:>8} {loss:>16}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lorikeet", help="the program; without it only PyTorch is timed")
    parser.add_argument("--model", required=True, type=pathlib.Path, help="a .gguf file or a Hugging Face folder")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--targets", default="all-linear")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="Lorikeet's storage type")
    parser.add_argument("--device", default="cpu", help="Lorikeet's device")
    parser.add_argument("--extra", default="", help="further options for lorikeet train, in one string")
    parser.add_argument("--variants", help=f"PyTorch's, comma-separated, of {', '.join(VARIANTS)}; default: --dtype")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=6, help="of a run, the first of which is dropped")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--text", type=pathlib.Path, default=TEXT)
    parser.add_argument(
        "--work", type=pathlib.Path, default=pathlib.Path("build/peers"), help="converted model, batches"
    )
    parser.add_argument("--json", type=pathlib.Path, help="results; default WORK/compare.json")
    arguments = parser.parse_args()
    if arguments.steps < 3:
        parser.error("--steps: at least 3")
    variants = (arguments.variants or arguments.dtype).split(",")
    for variant in variants:
        if variant not in VARIANTS:
            parser.error(f"--variants: {variant} is not one of {', '.join(VARIANTS)}")

    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    folder = arguments.model
    if folder.is_file():
        folder = work / folder.stem
        if not (folder / "config.json").exists():  # it is written last
            run_child([sys.executable, HERE / "gguf_to_hf.py", arguments.model, folder])
    make_ids(folder, arguments.text, work / "batches.ids", arguments.batch * arguments.steps, arguments.seq)
    run_child(
        [
            sys.executable,
            HERE / "torch_lora.py",
            "--model",
            folder,
            "--make-adapter",
            work / "adapter",
            "--rank",
            arguments.rank,
            "--alpha",
            arguments.alpha,
            "--targets",
            arguments.targets,
        ]
    )

    contenders = [("lorikeet", run_lorikeet, arguments.dtype)] if arguments.lorikeet else []
    contenders += [(f"pytorch {variant}", run_torch, variant) for variant in variants]
    runs = {name: [] for name, _, _ in contenders}
    load_before = os.getloadavg()
    for repeat in range(arguments.repeats):
        for name, function, variant in contenders:
            runs[name].append(function(arguments, variant, folder, work))
            rate = summary(arguments, runs[name][-1:])["tokens_per_second"]
            print(
                f"run {repeat + 1}/{arguments.repeats} {name}: {rate:.1f} tokens/s",
                file=sys.stderr,
            )
    results = {name: summary(arguments, runs[name]) for name in runs}
    print_table(list(runs), results)
    settings = {k: str(v) if isinstance(v, pathlib.Path) else v for k, v in vars(arguments).items()}
    settings["model"], settings["lorikeet"] = arguments.model.name, bool(arguments.lorikeet)
    for key in ("work", "json", "text"):
        del settings[key]
    report = {
        "settings": settings,
        "machine": {
            "processor": processor(),
            "cpus": os.cpu_count(),
            "load_before": load_before,
            "load_after": os.getloadavg(),
        },
        "results": results,
        "runs": runs,
    }
    path = arguments.json or work / "compare.json"
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
