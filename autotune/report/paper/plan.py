"""``autotune plan``: the table, and the layouts, for devices that are not here. Everything is estimated."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from autotune.config import Config, load_config
from autotune.errors import UsageError
from autotune.plan.devices import DeviceSpec, read_device
from autotune.plan.estimate import Job, paper_profile, utilisation
from autotune.plan.layouts import Space, best_layouts
from autotune.plan.network import read_network
from autotune.plan.roofline import Machine
from autotune.plan.shape import Shape, of_workload, read_shape
from autotune.predict.predict import candidates_for, predict
from autotune.records.job.layout import Attention, Layout, PlannedLayout, Runtime
from autotune.records.job.recompute import Recompute
from autotune.records.prediction import Candidate, Prediction
from autotune.records.profile import Profile
from autotune.records.report import Report
from autotune.report.paper.predicted import predicted_report

TOKENS = 4 * 2**20  # of a global batch where none is given
NOT_INCLUDED = (
    "not included: data loading, checkpoints, dropout, gradients that are summed while backwards still run, and devices"
    " that are slower than their data sheet"
)


W = TypeVar("W", bound=StrEnum)


class Flags(NamedTuple):
    """As the user gave them; None: not given. ``settings``: those of a config."""

    device_spec: Path
    settings: dict[str, Any]
    config: Path | None = None
    model: Path | None = None
    network: Path | None = None
    devices: int | None = None
    global_batch_size: int | None = None
    tensor_parallel: int | None = None
    data_parallel: int | None = None
    sequence_parallel: bool = False
    recompute: str | None = None
    attention: str = Attention.FLASH.value
    runtime: str = Runtime.TORCH.value
    replicated_optimizer: bool = False


def plan_report(flags: Flags, command: str | None = None) -> Report:
    """Return what the flags ask for; raise UsageError, InputError, and MemoryLimitError where no layout fits."""
    device = read_device(flags.device_spec)
    config = load_config(flags.config, flags.settings)
    shape = shape_of(flags, config)
    machine = Machine(device, config.precision or "bf16")
    limit = min(config.memory_limit or device.memory_bytes, device.memory_bytes)
    job = Job(
        machine,
        shape,
        Layout(pipeline_parallel=1),
        config.batch,
        config.optimizer,
        read_network(flags.network) if flags.network else None,
    )
    if flags.devices is not None:
        return best_report(flags, job, config, limit, command)
    replicas = 1 if flags.data_parallel is None else flags.data_parallel
    shards = 1 if flags.tensor_parallel is None else flags.tensor_parallel
    if min(replicas, shards) < 1:
        raise UsageError("--tensor-parallel, --data-parallel: give numbers of 1 or more")
    layout = Layout(
        pipeline_parallel=config.stages,
        tensor_parallel=shards,
        data_parallel=replicas,
        sequence_parallel=flags.sequence_parallel,
        recompute=recompute_of(flags) or Recompute.NONE,
        attention=word_of(Attention, "attention", flags.attention),
        runtime=word_of(Runtime, "runtime", flags.runtime),
        shared_optimizer=replicas > 1 and not flags.replicated_optimizer,
    )
    check(layout, shape, device)
    batch = config.batch
    if flags.global_batch_size is not None:
        batch = shared(flags.global_batch_size, replicas)
        config = config.model_copy(update={"batch": batch})
    return layout_report(job._replace(layout=layout, batch=batch), config, limit, (), command)


def shape_of(flags: Flags, config: Config) -> Shape:
    """Return the model's sizes: a model's own, with what flags change of them, or else the built-in GPT's."""
    if flags.model is None:
        found = of_workload(config.workload("cuda"))
        assert found is not None, "a config's workload has every size"
        return found
    names = ("layers", "hidden", "heads", "vocab", "seq_len")
    return read_shape(flags.model, {name: flags.settings.get(name) for name in names})


def shared(sequences: int, replicas: int) -> int:
    """Return the sequences of one replica; raise UsageError where they cannot be shared evenly."""
    if sequences < 1 or sequences % replicas:
        raise UsageError(f"--global-batch-size: {replicas} replicas must divide it (given: {sequences})")
    return sequences // replicas


def check(layout: Layout, shape: Shape, device: DeviceSpec) -> None:
    """Raise UsageError for a layout by which the model cannot be cut."""
    t = layout.tensor_parallel
    if shape.heads % t or shape.ffn % t:
        raise UsageError(f"--tensor-parallel: {t} must divide the {shape.heads} heads; give another number")
    if t > device.per_host and t % device.per_host:
        raise UsageError(f"--tensor-parallel: {t} does not fill hosts of {device.per_host} devices")
    if layout.pipeline_parallel > shape.layers:
        raise UsageError(f"--stages: {layout.pipeline_parallel} stages need as many layers (given: {shape.layers})")


def recompute_of(flags: Flags) -> Recompute | None:
    """Return what is computed again; None where it was not said."""
    return word_of(Recompute, "recompute", flags.recompute) if flags.recompute is not None else None


def word_of(words: type[W], flag: str, given: str) -> W:
    """Return the word that was given; raise UsageError for one that there is not."""
    if given not in list(words):
        raise UsageError(f"--{flag}: {given!r} is not known; use {', '.join(words)}")
    return words(given)


def layout_report(job: Job, config: Config, limit: int, others: Sequence[PlannedLayout], command: str | None) -> Report:
    """Return every micro-batch size and schedule of one layout. ``others``: the layouts that it was chosen from."""
    p, given = job.layout.pipeline_parallel, config.model_fields_set
    wanted = config.virtual_stages if "virtual_stages" in given else (job.layout.virtual_stages,)
    names = config.schedule
    if "schedule" not in given and max(wanted) > 1:
        names = ("Interleaved1F1B",)
    counts = config.counts()
    found, notes = candidates_for(counts, names, wanted, p, job.shape.layers, job.batch, config.micro_batch_size)
    sizes = tuple(sorted({candidate.micro_batch_size for candidate in found}))
    profiles = {v: paper_profile(job.laid(virtual_stages=v), sizes) for v in {one.virtual_stages for one in found}}
    pairs = [(one, estimated(job, profiles[one.virtual_stages], one, limit)) for one in found]
    first, *rest = [profiles[v] for v in sorted(profiles)]
    report = predicted_report(first, pairs, limit, [*notes, NOT_INCLUDED], command)
    return report.model_copy(update={"layout": job.layout, "layouts": tuple(others), "virtual_profiles": tuple(rest)})


def estimated(job: Job, profile: Profile, candidate: Candidate, limit: int) -> Prediction:
    """Return a candidate run on paper, with the share of the devices' peak that its model comes to."""
    one = predict(profile, candidate, limit)
    share = utilisation(job._replace(batch=candidate.sequences), one.step_time_s)
    return one.model_copy(update={"model_flops_utilisation": share})


def best_report(flags: Flags, job: Job, config: Config, limit: int, command: str | None) -> Report:
    """Return the table of the best layout of a number of devices, with the others beside it."""
    if flags.devices is None or flags.devices < 1:
        raise UsageError(f"--devices: give 1 or more (given: {flags.devices})")
    sequences = flags.global_batch_size or max(1, TOKENS // job.shape.seq_len)
    given = config.model_fields_set
    space = Space(
        devices=flags.devices,
        sequences=sequences,
        memory_limit=limit,
        tensor_parallel=flags.tensor_parallel,
        data_parallel=flags.data_parallel,
        pipeline_parallel=config.stages if "stages" in given else None,
        virtual_stages=config.virtual_stages if "virtual_stages" in given else None,
        recompute=recompute_of(flags),
        sequence_parallel=True if flags.sequence_parallel else None,
        attention=word_of(Attention, "attention", flags.attention),
        runtime=word_of(Runtime, "runtime", flags.runtime),
        shared_optimizer=not flags.replicated_optimizer,
    )
    found = best_layouts(job, space)
    best = found[0]
    mine = job._replace(layout=best.layout, batch=sequences // best.layout.data_parallel)
    known: dict[str, Any] = {
        "batch": mine.batch,
        "stages": best.layout.pipeline_parallel,
        "layers": job.shape.layers,
        "virtual_stages": (best.layout.virtual_stages,),
    }
    if config.micro_batches is None and config.micro_batch_size is None:
        known["micro_batches"] = tuple(m for m in config.model_copy(update=known).counts() if mine.batch // m <= 16)
    settled = load_config(None, config.model_dump(exclude_unset=True) | known)
    return layout_report(mine, settled, limit, found, command)
