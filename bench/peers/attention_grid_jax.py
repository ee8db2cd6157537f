#!/usr/bin/env python3
"""The points of `lorikeet bench attention-grid` in JAX: X[b,e], Wq/Wk/Wv[e,h], sum(softmax(Q K' / sqrt(h)) V).

Reads lines "b e h r seconds" and answers each with "full_seconds lora_seconds", medians of jit-compiled runs of
value and gradient, taken in turn for about that long. Started by

    lorikeet bench attention-grid --jax PYTHON

which alternates the two programs point by point. Threads are limited by the processors that this process may use.
"""

import os
import statistics
import sys
import time

THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else len(os.sched_getaffinity(0))
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402


def attend(q, k, v):
    return jnp.sum(jax.nn.softmax(q @ k.T / jnp.sqrt(jnp.float32(q.shape[1])), axis=-1) @ v)


def full(trained, x):
    wq, wk, wv = trained
    return attend(x @ wq, x @ wk, x @ wv)


def lora(trained, frozen, x):
    aq, bq, ak, bk = trained
    wq, wk, wv = frozen
    return attend(x @ wq + (x @ aq) @ bq, x @ wk + (x @ ak) @ bk, x @ wv)


def measure(b, e, h, r, seconds):
    keys = jax.random.split(jax.random.PRNGKey(0), 8)

    def normal(index, *shape):
        return jax.random.normal(keys[index], shape, jnp.float32) / shape[0] ** 0.5

    x = jax.random.normal(keys[7], (b, e), jnp.float32)
    weights = tuple(normal(i, e, h) for i in range(3))
    factors = (normal(3, e, r), normal(4, r, h), normal(5, e, r), normal(6, r, h))
    run_full = jax.jit(jax.value_and_grad(full))
    run_lora = jax.jit(jax.value_and_grad(lora))
    calls = (lambda: run_full(weights, x), lambda: run_lora(factors, weights, x))
    times = ([], [])
    for call in calls:  # compilation, and one more
        jax.block_until_ready(call())
        jax.block_until_ready(call())
    begin = time.perf_counter()
    while len(times[0]) < 3 or (time.perf_counter() - begin < seconds and len(times[0]) < 2000):
        for which in (0, 1) if len(times[0]) % 2 == 0 else (1, 0):
            start = time.perf_counter()
            jax.block_until_ready(calls[which]())
            times[which].append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def main():
    print(f"jax {jax.__version__}, {jax.devices()[0].platform}, {THREADS} threads", flush=True)
    for line in sys.stdin:
        b, e, h, r, seconds = line.split()
        times = measure(int(b), int(e), int(h), int(r), float(seconds))
        print(f"{times[0]:.9f} {times[1]:.9f}", flush=True)


if __name__ == "__main__":
    main()
