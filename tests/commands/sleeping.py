"""A command whose truth is known: it prints, as Megatron-LM does, how long a pipeline of p stages takes."""

import os
import random
import sys
import time


def step_s(m: int, b: int, p: int = 4) -> float:
    return (m + p - 1) * 0.004 * (b + 0.6) + 0.02


def main() -> None:
    m, b = int(os.environ["AUTOTUNE_MICRO_BATCHES"]), int(os.environ["AUTOTUNE_MICRO_BATCH_SIZE"])
    noise, seconds = random.Random(m), step_s(m, b)
    time.sleep(float(sys.argv[1]))
    for step in range(1, 60):
        taken = seconds * noise.lognormvariate(0, 0.003) * (3 if step == 1 else 1)
        time.sleep(taken / 10)
        elapsed = f"elapsed time per iteration (ms): {1e3 * taken:.1f}"
        print(f" iteration {step:8d}/      60 | {elapsed} | lm loss: 1.084E+01 |", flush=True)


if __name__ == "__main__":
    main()
