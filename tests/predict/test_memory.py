"""Peak memory over the actions of a rank, added up by hand: what is held when each begins, and at its fullest.

Every stage holds 100 bytes of activations per micro-batch (60 between the halves of a split backward); while they run
a forward takes those and 30 more, a backward 30, its halves 20 and 5. A message is 10 bytes, a batch of m micro-batches
16 m. Under the drawings stands what is held before each action, of activations and of messages.
"""

import pytest
from pydantic import ValidationError

from autotune.predict.memory import LOSS_BYTES, device_bytes, peak_memory
from autotune.predict.schedules import build_schedule
from autotune.records.prediction import Candidate, MemorySplit
from autotune.records.profile import Profile
from autotune.schedule_spec import SCHEDULES

SPLIT = {"split_held_bytes": 60, "input_transient_bytes": 20, "weight_transient_bytes": 5}
MEMORY = {"activation_bytes": 100, "transient_bytes": 30}


def profile(stages, virtual_stages=1, message=10, optimizer=7, memory=MEMORY | SPLIT, **more):
    """Stages that differ only in their ``static_bytes``: 1000, 1001, ..."""
    time = {"micro_batch_size": 1, "t_f": 1.0, "t_b": 1.0, "t_w": 1.0}
    made = [
        {
            "static_bytes": 1000 + index,
            "time_s": [time],
            "memory": [{"micro_batch_size": 1} | memory],
            "optimizer_transient_bytes": optimizer,
        }
        for index in range(stages)
    ]
    facts = {"virtual_stages": virtual_stages, "workload": {"seq_len": 1}}
    messages = [{"micro_batch_size": 1, "bytes": message}]
    return Profile.model_validate({"stages": made, "message_bytes": messages, **facts, **more})


def peaks(name, made, m):
    """The MemorySplit of every rank for micro-batches of one sequence."""
    v = made.virtual_stages
    candidate = Candidate(micro_batches=m, micro_batch_size=1, sequences=m, schedule=name, virtual_stages=v)
    return peak_memory(made, candidate, build_schedule(name, made.ranks, m, v))


def test_gpipe_is_fullest_at_the_last_forward():
    """Of rank 1, the last; it keeps every gradient that it sends until all are sent, and every loss ::

    F0   F1   F2   B0   B1   B2
    0    100  200  300  200  100     activations
    0    0    0    0    10   20      kept gradients
    """
    first, last = peaks("GPipe", profile(2), 3)
    assert last == MemorySplit(
        static=1001, batch=48, messages=3 * 10 + 3 * 4, activations=300, transient=30, moment="F2 of stage 1"
    )
    assert last.total == 1001 + 48 + 42 + 330
    assert first == MemorySplit(
        static=1000, batch=48, messages=3 * 10, activations=300, transient=30, moment="F2 of stage 0"
    )


def test_kept_gradients_can_outweigh_the_activations_that_were_freed():
    """Messages of 150 bytes: the last backward of GPipe is the fullest ::

    F0   F1   F2   B0   B1   B2
    0    100  200  300  200  100
    0    0    0    0    150  300
    """
    _, last = peaks("GPipe", profile(2, message=150), 3)
    assert (last.moment, last.activations, last.transient) == ("B2 of stage 1", 100, 30)
    assert last.messages == 3 * 150 + 2 * 150 + 3 * LOSS_BYTES


@pytest.mark.parametrize(
    ("m", "rank", "in_flight", "kept"),
    [
        (4, 0, 4, 0),
        (6, 0, 4, 0),
        (7, 0, 4, 1),
        (4, 1, 3, 1),
        (5, 1, 3, 2),
        (4, 2, 2, 2),
        (4, 3, 1, 1),
        (64, 0, 4, 1),
        (64, 1, 3, 2),
    ],
)
def test_1f1b_keeps_the_gradient_sent_last_and_one_output_of_the_warm_up(m, rank, in_flight, kept):
    """On four ranks. Rank 1 keeps the output of F1 from its backward on; only a forward after that adds to it ::

    F0  F1  F2  B0  F3  B1  F4  B2 ...
    """
    split = peaks("1F1B", profile(4), m)[rank]
    neighbours = 1 if rank in (0, 3) else 2
    assert split.activations == 100 * in_flight
    assert split.messages == 10 * (neighbours * m + kept) + (4 * m if rank == 3 else 0)
    assert split.moment == f"F{in_flight - 1} of stage {rank}"


def test_the_multi_stage_runtime_lets_go_of_nothing_it_sent():
    """Rank 0 of 2 under LoopedBFS, messages of 80: a backward frees 100 bytes and leaves the output it was for and, on
    stage 2, the gradient it sends on ::

    0F0  0F1  2F0  2F1  2B1  2B0  0B1  0B0
    0    100  200  300  400  300  200  100
    0    0    0    0    0    160  320  400
    """
    first, _ = peaks("LoopedBFS", profile(4, 2, message=80), 2)
    assert first.static == 1000 + 1002
    assert (first.moment, first.activations, first.transient) == ("B1 of stage 0", 200, 30)
    assert first.messages == 3 * 2 * 80 + 320  # stage 0 receives from one neighbour, stage 2 from two


def test_a_split_backward_holds_less_from_its_first_half_on():
    """Rank 1 of 2 under InterleavedZeroBubble ::

    1F0  1F1  3F0  3I0  3F1  3I1  3W0  1I0  3W1  1I1  1W0  1W1
    0    100  200  300  260  360  320  260  220  160  120  60
    0    0    0    0    0    0    0    10   10   20   20   40
    """
    _, last = peaks("InterleavedZeroBubble", profile(4, 2), 2)
    assert last == MemorySplit(
        static=1001 + 1003, batch=32, messages=60 + 2 * 4, activations=360, transient=30, moment="F1 of stage 3"
    )


def test_where_the_split_was_not_measured_nothing_is_freed_before_the_weights():
    """As above ::

    1F0  1F1  3F0  3I0  3F1  3I1  3W0  1I0  3W1  1I1  1W0  1W1
    0    100  200  300  300  400  400  300  300  200  200  100
    0    0    0    0    0    0    0    10   10   20   20   40
    """
    _, last = peaks("InterleavedZeroBubble", profile(4, 2, memory=MEMORY), 2)
    assert (last.moment, last.activations, last.transient, last.messages) == ("F1 of stage 3", 400, 30, 68)


def test_the_halves_of_a_backward_have_their_own_transient_bytes():
    """Where the weight gradient takes 500 bytes ::

    1F0  1F1  3F0  3I0  3F1  3I1  3W0  1I0  3W1  1I1  1W0  1W1
    0    100  200  300  260  360  320  260  220  160  120  60
    """
    costly = MEMORY | SPLIT | {"weight_transient_bytes": 500}
    _, last = peaks("InterleavedZeroBubble", profile(4, 2, memory=costly), 2)
    assert (last.moment, last.activations, last.transient) == ("W0 of stage 3", 320, 500)
    costly = MEMORY | SPLIT | {"input_transient_bytes": 500}
    _, last = peaks("InterleavedZeroBubble", profile(4, 2, memory=costly), 2)
    assert (last.moment, last.activations, last.transient) == ("I1 of stage 3", 360, 500)


def test_between_two_stages_of_a_rank_messages_take_the_place_of_receive_buffers():
    """Rank 1 of 2 under ZBVZeroBubble, the turn of the V: an output of stage 1 is the input of stage 2, and the
    gradient of stage 2 comes back to stage 1. Both are counted with the activations until they are kept ::

    1F0  2F0  1F1  2F1  2I0  2W0  1I0  1W0  2I1  2W1  1I1  1W1
    0    100  200  300  400  360  300  260  200  160  100  60
    0    -10  -10  -20  -20  -30  -10  -10  10   0    20   20
    """
    _, turn = peaks("ZBVZeroBubble", profile(4, 2), 2)
    assert turn == MemorySplit(
        static=1001 + 1002, batch=32, messages=80 - 20, activations=400, transient=30, moment="F1 of stage 2"
    )
    costly = MEMORY | SPLIT | {"weight_transient_bytes": 500}
    _, turn = peaks("ZBVZeroBubble", profile(4, 2, memory=costly), 2)
    assert (turn.moment, turn.activations, turn.messages) == ("W0 of stage 2", 360, 80 - 30)


def test_the_last_stage_keeps_its_losses_wherever_it_lies():
    """On rank 1 in a loop, on rank 0 in a V."""
    loop, folded = (peaks(name, profile(4, 2), 4) for name in ("Interleaved1F1B", "DualPipeV"))
    assert [split.messages % 10 for split in loop] == [0, 4 * LOSS_BYTES % 10]
    assert [split.messages % 10 for split in folded] == [4 * LOSS_BYTES % 10, 0]


def test_a_lone_rank_sends_nothing():
    (only,) = peaks("GPipe", profile(1), 3)
    assert only.messages == 3 * LOSS_BYTES
    assert only.activations == 300


@pytest.mark.parametrize(("name", "v"), [("GPipe", 1), ("1F1B", 1), ("Interleaved1F1B", 2)])
def test_the_optimizer_step_finds_every_send_done(name, v):
    for split, own in zip(peaks(name, profile(2 * v, v, optimizer=5000), 4), ((0, 2), (1, 3)), strict=True):
        neighbours = sum((stage > 0) + (stage < 2 * v - 1) for stage in own[:v])
        assert split.moment == "the optimizer step"
        assert (split.activations, split.transient) == (0, 5000 * v)
        assert split.messages == 10 * 4 * neighbours + (16 if 2 * v - 1 in own else 0)


def test_split_backwards_leave_their_gradients_at_the_receive_buffers():
    """Two stages on each of two ranks; only the first receives nothing whose gradient it could send."""
    first, last = peaks("InterleavedZeroBubble", profile(4, 2, optimizer=5000), 4)
    assert first.messages == 10 * 4 * 3 + 10 * 4
    assert last.messages == 10 * 4 * 3 + 2 * 10 * 4 + 16


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_parts_are_all_there_is(name):
    """Every part once; the rest of the record says when."""
    for split in peaks(name, profile(4, 1 if SCHEDULES[name].has_one_stage else 2), 8):
        parts = split.model_dump(exclude={"moment"})
        assert set(parts) == {"static", "batch", "messages", "activations", "transient"}
        assert split.total == sum(parts.values())


@pytest.mark.parametrize("name", SCHEDULES)
def test_more_of_anything_never_takes_less(name):
    v = 1 if SCHEDULES[name].has_one_stage else 2
    plain = [split.total for split in peaks(name, profile(4, v), 8)]
    for more in (
        {"message": 11},
        {"optimizer": 5000},
        {"memory": MEMORY | SPLIT | {"activation_bytes": 101}},
        {"memory": MEMORY | SPLIT | {"split_held_bytes": 90}},
        {"memory": MEMORY | SPLIT | {"transient_bytes": 31}},
    ):
        grown = [split.total for split in peaks(name, profile(4, v, **more), 8)]
        assert all(after >= before for before, after in zip(plain, grown, strict=True)), more


def test_without_memory_rows_of_every_stage_no_peak_is_claimed():
    made = profile(2)
    bare = made.stages[1].model_copy(update={"memory": ()})
    assert peaks("GPipe", made.model_copy(update={"stages": (made.stages[0], bare)}), 2) is None


def test_a_device_gives_away_what_the_allocator_takes_and_what_others_hold():
    """What is static is allocated once, and leaves no holes."""
    splits = peaks("GPipe", profile(2), 3)
    made = profile(2, reserved_over_allocated=1.25, segments_bytes=30, outside_bytes=500)
    moving = [split.batch + split.messages + split.activations + split.transient for split in splits]
    assert device_bytes(made, splits) == (1000 + 1.25 * moving[0] + 530, 1001 + 1.25 * moving[1] + 530)
    assert device_bytes(profile(2), splits) == tuple(split.total for split in splits)


def test_what_others_hold_is_charged_to_the_rank_of_that_device_alone():
    splits = peaks("GPipe", profile(2), 3)
    made = profile(2, outside_bytes=(500, 70_000))
    assert device_bytes(made, splits) == (splits[0].total + 500, splits[1].total + 70_000)
    with pytest.raises(ValidationError, match="one for each of the 2 ranks"):
        profile(2, outside_bytes=(500,))
