"""Lines of every launcher, written by us in the format that its source documents: steps of ``SECONDS``."""

# ruff: noqa: E501  lines of a log are as long as its launcher writes them

SECONDS = (5.0, 1.25, 1.0, 1.0, 1.02, 1.0)

MEGATRON_ARGUMENTS = """\
------------------------ arguments ------------------------
  data_parallel_size .............................. 2
  global_batch_size ............................... 64
  hidden_size ..................................... 1024
  micro_batch_size ................................ 4
  num_attention_heads ............................. 16
  num_layers ...................................... 24
  pipeline_model_parallel_size .................... 4
  seq_length ...................................... 2048
  virtual_pipeline_model_parallel_size ............ None
  world_size ...................................... 8
-------------------- end of arguments ---------------------
"""


def megatron(loss: str = "1.084000E+01") -> str:
    lines = [MEGATRON_ARGUMENTS]
    for number, seconds in enumerate(SECONDS, start=1):
        lines.append(
            f" [2026-08-22 15:22:2{number}.123456] iteration {number:8d}/     500 | consumed samples: {64 * number:12d} |"
            f" elapsed time per iteration (ms): {seconds * 1e3:.1f} | throughput per GPU (TFLOP/s/GPU): 180.3 |"
            f" learning rate: 1.500000E-05 | global batch size:    64 | lm loss: {loss} | loss scale: 1.0 |"
            " grad norm: 2.345 | number of skipped iterations:   0 | number of nan iterations:   0 |\n"
        )
    for rank in (0, 2, 4, 6):
        lines.append(
            f"[Rank {rank}] (after 2 iterations) memory (MB) | allocated: 12012.35 | max allocated: {15120 - 100 * rank}.00"
            f" | reserved: 16000.00 | max reserved: {16000 - 100 * rank}.00\n"
        )
    return "".join(lines)


def bridge() -> str:
    steps = "".join(
        f" [2026-08-22 15:22:2{number}] iteration {number:8d}/     500 | consumed samples: {64 * number:12d} | elapsed"
        f" time per iteration (ms): {seconds * 1e3:.1f} | global batch size:    64 | lm loss: 1.084000E+01 |"
        " number of skipped iterations:   0 | number of nan iterations:   0 |\n"
        f"Step Time : {seconds:.2f}s GPU utilization: 180.3MODEL_TFLOP/s/GPU\n"
        for number, seconds in enumerate(SECONDS, start=1)
    )
    memory = (
        "[Rank 0] (after 2 iterations) memory (GB) | mem-allocated-gigabytes: 10.1 | mem-max-allocated-gigabytes: 12.345"
        " | mem-max-reserved-gigabytes: 13.5\n"
    )
    return steps + memory


def neox() -> str:
    return "".join(
        f" samples/sec: 12.345 | iteration {number:8d}/  320000 | elapsed time per iteration (ms): {seconds * 1e3:.1f} |"
        " learning rate: 1.0E-05 | approx flops per GPU: 100.0TFLOPS | lm_loss: 1.084E+01 | number of skipped"
        " iterations:   0 | number of nan iterations:   0 |\n"
        for number, seconds in enumerate(SECONDS, start=1)
    )


def megatron_deepspeed() -> str:
    return "".join(
        f" iteration {number:8d}/   95000 | consumed samples: {64 * number:12d} | elapsed time per iteration (s):"
        f" {seconds:.2f} | global batch size:    64 | lm loss: 1.084E+01 | grad norm: 2.345 | number of skipped"
        " iterations:   0 | number of nan iterations:   0 | samples per second: 5.186 | TFLOPs: 150.12 |\n"
        for number, seconds in enumerate(SECONDS, start=1)
    )


def deepspeed_pipeline() -> str:
    head = (
        "[2026-08-22 15:22:20,123] [INFO] [engine.py:93:__init__] CONFIG: micro_batches=8 micro_batch_size=4\n"
        "[2026-08-22 15:22:20,124] [INFO] [config.py:1001:print]   train_batch_size ............. 64\n"
        "RANK=3 STAGE=3 LAYERS=12 [36, 48) STAGE_PARAMS=1000\n"
    )
    return head + "".join(
        f"steps: {number} loss: 10.8400 iter time (s): {seconds:.3f} samples/sec: {64 / seconds:.3f}\n"
        for number, seconds in enumerate(SECONDS, start=1)
    )


def deepspeed_engine() -> str:
    head = '  "train_micro_batch_size_per_gpu": 4,\n  "gradient_accumulation_steps": 8,\n  "train_batch_size": 64,\n'
    return head + "".join(
        f"[2026-08-22 15:22:2{number},123] [INFO] [timer.py:264:stop] epoch=0/micro_step={8 * number}/global_step={number},"
        f" RunningAvgSamplesPerSec=50.0, CurrSamplesPerSec={64 / seconds:.6f}, MemAllocated=3.21GB, MaxMemAllocated=10.5GB\n"
        for number, seconds in enumerate(SECONDS, start=1)
    )


def torchtitan() -> str:
    lines, tokens = [], 64 * 2048
    for number, seconds in enumerate(SECONDS, start=1):
        tps = f"{round(tokens / seconds / 8):,}"
        lines.append(
            f"[rank0]:[titan] 2026-08-21 21:30:2{number},123 - root - INFO - \x1b[31mstep: {number:2}  \x1b[32mloss:"
            f"  8.11210  \x1b[38;2;180;60;0mgrad_norm:  1.2345  \x1b[33mmemory:  2.66GiB(2.80%)  \x1b[34mtps: {tps}  "
            "\x1b[36mtflops: 12.59  \x1b[35mmfu: 1.27%\x1b[39m\n"
        )
    return "".join(lines)


def nanotron() -> str:
    return (
        "".join(
            f"\x1b[1;33m08/22 15:22:2{number} [INFO|DP=0|PP=1|TP=0]\x1b[0m: iteration: {number} / 100 | consumed_tokens: 1.31M"
            f" | time_per_iteration_ms: {seconds:.3g}K | tokens_per_sec: 131K | tokens_per_sec_per_gpu: 16.4K |"
            " global_batch_size: 131K | lm_loss: 10.9 | lr: 0.0003 | model_tflops_per_gpu: 1.2 | grad_norm: 1.2 | eta: 0:02:00\n"
            for number, seconds in enumerate(SECONDS, start=1)
        )
        + "08/22 15:22:30 [INFO|DP=0|PP=0|TP=0]:  Memory usage: 100.00MiB. Peak allocated 123.45MiB. Peak reserved: 456.00MiB\n"
    )


def automodel() -> str:
    tokens = 64 * 2048
    return "".join(
        f"2026-08-21 21:30:2{number} | INFO | root | step {number} | epoch 0 | loss 1.2345 | grad_norm 2.3456 | lr 1.00e-05"
        f" | mem 12.34 GiB | tps {tokens / seconds:.2f}({tokens / seconds / 8:.2f}/gpu) | num_label_tokens 4096\n"
        for number, seconds in enumerate(SECONDS, start=1)
    )


def nemo() -> str:
    return "".join(
        f"Training epoch 0, iteration {number}/249 | lr: 3.922e-06 | global_batch_size: 8 | global_step: {number} |"
        f" reduced_train_loss: 1.653 | train_step_timing in s: {seconds:.3f} | consumed_samples: 16\n"
        for number, seconds in enumerate(SECONDS, start=1)
    )


def paddle() -> str:
    return "".join(
        f"loss: 10.9, learning_rate: 1e-05, global_step: {number}, interval_runtime: {seconds:.4f},"
        f" interval_samples_per_second: {64 / seconds:.3f}, interval_steps_per_second: {1 / seconds:.3f},"
        " max_memory_allocated: 12.5, max_memory_reserved: 13.5, epoch: 0.1\n"
        for number, seconds in enumerate(SECONDS, start=1)
    )


def hf_lines() -> list[str]:
    """As they arrive: a progress bar on stderr, a dict of losses on stdout."""
    found = []
    for number in range(1, len(SECONDS) + 1):
        found.append(f"  {number}%|{number}         | {number}/100 [00:0{number}<00:40,  2.35it/s]")
        found.append("{'loss': '10.9', 'grad_norm': '1.2', 'learning_rate': '5e-05', 'epoch': '0.01'}")
    return [*found, "{'train_runtime': '12.3', 'train_samples_per_second': '65.04', 'train_loss': '10.2'}"]


def lightning_lines() -> list[str]:
    return [
        f"Epoch 0:  3%|3         | {number}/100 [00:0{number}<00:40,  2.35it/s, v_num=0]"
        for number in range(1, len(SECONDS) + 1)
    ]


def json_lines() -> str:
    return "".join(
        f'{{"step": {number}, "step_time_s": {seconds}, "loss": 10.84, "max_memory_allocated": 1073741824}}\n'
        for number, seconds in enumerate(SECONDS, start=1)
    )
