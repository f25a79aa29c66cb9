"""When receives are posted, and that actions wait for messages, as in torch: against torch's own code, run on paper."""

from dataclasses import replace
from types import FunctionType, SimpleNamespace

import numpy as np
import pytest
from torch.distributed.pipelining import schedules as torch_schedules

from autotune.predict.schedules import Action, ScheduleError, build_schedule, custom_schedule, parse_row
from autotune.predict.simulator.posting import graph_of
from autotune.predict.simulator.simulate import Costs, simulate
from autotune.schedule_spec import SCHEDULE_NAMES, why_illegal
from tests.predict.torch_orders import MULTI, SINGLE, stand_in


def unequal_stages(stages, seed, spread=1.0, link=1.0):
    """Seconds within a factor of about 10 ** spread, links of ``link`` times those; 0 between stages on one rank."""
    rng = np.random.default_rng(seed)
    rows = (10 ** (spread * rng.random((4, stages)))).tolist()
    links = (link * 10 ** (spread * rng.random((2, stages - 1)))).tolist()
    return Costs(*rows, *links)


def without_local_links(schedule, costs):
    """The costs with links of 0 between stages on the same rank."""
    remote = [before != after for before, after in zip(schedule.stage_ranks, schedule.stage_ranks[1:], strict=False)]
    links = {"activation_link": costs.activation_link, "gradient_link": costs.gradient_link}
    return replace(costs, **{name: np.multiply(row, remote).tolist() for name, row in links.items()})


# --- torch's lowering ---------------------------------------------------------------------------------------------


def lowered_by_torch(name, ranks, virtual_stages, micro_batches):
    """Each rank's row as torch's runtime would execute it, sends, receives and all."""
    stages = ranks * virtual_stages
    local = [stand_in(index, stages, ranks) for index in range(0, stages, ranks)]
    return MULTI[name](local, micro_batches).pipeline_order_with_comms


def parts(action):
    return action.sub_actions or (action,)


def received_behind(row):
    """(kind, stage, micro-batch) of each action that receives -> how many actions stand before its receive."""
    behind, computed = {}, 0
    for action in row:
        kind = action.computation_type.value
        if kind.startswith("RECV"):
            behind[kind[-1], action.stage_index, action.microbatch_index] = computed
        elif kind in ("F", "B", "I", "W", "OVERLAP_F_B"):
            computed += len(parts(action))
    return behind


def ours_received_behind(graph, rank):
    """The same of our graph."""
    first, stop = graph.first[rank : rank + 2].tolist()
    ranks = graph.schedule.stage_ranks
    behind = {}
    for n in range(first, stop):
        kind, stage = "FBIW"[graph.kind[n]], int(graph.stage[n])
        giver = {"F": stage - 1, "W": stage}.get(kind, stage + 1)
        if 0 <= giver < len(ranks) and ranks[giver] != rank:
            posted = int(graph.posted[n])
            count = 0 if posted == len(graph.kind) else posted + 1 - first
            behind["F" if kind == "F" else "B", stage, int(graph.micro_batch[n])] = count
        else:
            assert graph.posted[n] == len(graph.kind)
    return behind


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("name", MULTI)
def test_receives_stand_where_torchs_lowering_puts_them(name, ranks):
    """For all sizes that torch admits: every receive, behind the very action. From v = 4 torch reshards as it goes."""
    compared = 0
    for virtual_stages in range(1, 6):
        for micro_batches in (1, 2, 3, 5, 8, 11, 16):
            if why_illegal(name, ranks, virtual_stages, micro_batches) is None:
                graph = graph_of(build_schedule(name, ranks, micro_batches, virtual_stages), "torch")
                rows = lowered_by_torch(name, ranks, virtual_stages, micro_batches)
                ours, torchs = (
                    [ours_received_behind(graph, r) for r in rows],
                    [received_behind(rows[r]) for r in rows],
                )
                assert ours == torchs, (virtual_stages, micro_batches)
                compared += 1
    assert compared


def looped_by_hand(stage_ranks, micro_batches):
    """All forwards stage by stage, then all backwards, on whatever ranks the stages are."""
    rows = [[] for _ in range(1 + max(stage_ranks))]
    for stage, rank in enumerate(stage_ranks):
        rows[rank] += [Action("F", stage, i) for i in range(micro_batches)]
    for stage, rank in reversed(list(enumerate(stage_ranks))):
        rows[rank] += [Action("B", stage, i) for i in range(micro_batches)]
    return rows


@pytest.mark.parametrize(
    "stage_ranks", [(0, 1, 1, 1, 0), (0, 1, 2, 0, 2), (1, 0), (2, 2, 2, 2, 2, 1, 0, 2), (0, 1, 0, 1, 2)]
)
def test_hand_made_orders_are_lowered_like_torchs(stage_ranks):
    """Also with different numbers of stages on the ranks, which torch begins with as many actions of its own."""
    for micro_batches in (1, 2, 5):
        rows = looped_by_hand(stage_ranks, micro_batches)
        graph = graph_of(custom_schedule(rows), "torch")
        theirs = {
            rank: [torch_schedules._Action.from_str(str(action)) for action in row] for rank, row in enumerate(rows)
        }
        for rank, row in theirs.items():
            unsharded = torch_schedules._add_unshard_reshard(row)
            theirs[rank] = torch_schedules._add_reduce_grad(unsharded, micro_batches)
        lowered = torch_schedules._add_send_recv(theirs, stage_ranks.__getitem__, len(stage_ranks))
        for rank in range(len(rows)):
            assert ours_received_behind(graph, rank) == received_behind(lowered[rank])


def test_early_receives_are_posted_at_the_beginning():
    graph = graph_of(build_schedule("1F1B", 3, 5), "early")
    assert (graph.posted == len(graph.kind)).all()
    assert not graph.exchanged.any()


@pytest.mark.parametrize("receives", ["torch", "early"])
def test_a_deadlock_is_named_as_before(receives):
    schedule = custom_schedule([parse_row("F0 B0 F1 B1", 0), parse_row("F0 F1 B0 B1", 1)])
    with pytest.raises(ScheduleError, match="B0 on stage 0 waits for B0 of stage 1; F1 on stage 1 waits for F1"):
        simulate(schedule, unequal_stages(2, 0), receives)


# --- torch's own code, run with messages that move when both sides have posted them -------------------------------


class RecordingStage(SimpleNamespace):
    """A stage that notes in ``row`` what torch computes, posts and waits for. A message is (kind, its stage, i)."""

    def __init__(self, row, index, stages):
        super().__init__(row=row, stage_index=index, is_first=index == 0, is_last=index == stages - 1, submod=None)

    def forward_one_chunk(self, i, *_, **__):
        self.row.append(("compute", Action("F", self.stage_index, i)))

    def backward_one_chunk(self, i, full_backward=True, **_):
        self.row.append(("compute", Action("B" if full_backward else "I", self.stage_index, i)))

    def backward_weight_one_chunk(self, i, **_):
        self.row.append(("compute", Action("W", self.stage_index, i)))

    def get_fwd_recv_ops(self, i):
        return [] if self.is_first else [("receive", ("F", self.stage_index, i))]

    def get_fwd_send_ops(self, i):
        return [] if self.is_last else [("send", ("F", self.stage_index + 1, i))]

    def get_bwd_recv_ops(self, i):
        return [] if self.is_last else [("receive", ("B", self.stage_index, i))]

    def get_bwd_send_ops(self, i):
        return [] if self.is_first else [("send", ("B", self.stage_index - 1, i))]

    def nothing(self, *_):
        pass

    set_local_fwd_input = set_local_bwd_input = get_local_bwd_output = perform_reduce_grad = nothing


def with_recorded_messages(function, row):
    """Torch's function, its own code, but with messages that are only noted in ``row``."""

    def post(operations, desc=None):
        row.append(("post", operations))
        return operations

    ours = {
        "_batch_p2p": post,
        "_sorted_batch_p2p": lambda operations, desc=None: {0: post(operations)},
        "_wait_batch_p2p": lambda operations: row.append(("wait", list(operations))),
    }
    return FunctionType(function.__code__, {**function.__globals__, **ours}, None, function.__defaults__)


def rows_of_torch(name, ranks, virtual_stages, micro_batches):
    """What every rank does in a step, in order: ("compute", action), ("post", operations), ("wait", operations)."""
    stages, rows = ranks * virtual_stages, []
    ours = build_schedule(name, ranks, micro_batches, virtual_stages)
    for rank in range(ranks):
        if name in SINGLE:
            schedule = SINGLE[name](stand_in(rank, stages, ranks), micro_batches)
        else:
            schedule = MULTI[name]([stand_in(s, stages, ranks) for s in range(0, stages, ranks)], micro_batches)
        rows.append([])
        own = [RecordingStage(rows[-1], s, stages) for s, at in enumerate(ours.stage_ranks) if at == rank]
        nothing, no_inputs = lambda *_: None, [[()] * micro_batches] * 2
        vars(schedule).update(
            rank=rank, _stages=own, _stage=own[0], _has_backward=True, _check_inputs=lambda *_, given=no_inputs: given
        )
        for unused in ("initialize_stage", "initialize_stages", "maybe_compute_loss", "update_losses"):
            setattr(schedule, f"_{unused}", nothing)
        with_recorded_messages(type(schedule)._step_microbatches, rows[-1])(schedule)
    return rows


def run_rows(rows, costs):
    """When every action starts, and when every rank has ended all it waits for: sends and receives are rendezvous."""
    work, travel = (dict(zip("FBIW", table.tolist(), strict=True)) for table in (costs.work(), costs.travel()))
    now, position = [0.0] * len(rows), [0] * len(rows)
    posted, starts = {}, [[] for _ in rows]
    progress = True
    while progress:
        progress = False
        for rank, row in enumerate(rows):
            while position[rank] < len(row):
                what, given = row[position[rank]]
                if what == "compute":
                    starts[rank].append(now[rank])
                    now[rank] += work[given.kind][given.stage]
                elif what == "post":
                    posted.update(dict.fromkeys(given, now[rank]))
                else:
                    ends = [[posted.get((side, message)) for side in ("send", "receive")] for _, message in given]
                    if any(None in both for both in ends):
                        break
                    links = [travel[kind][stage] for _, (kind, stage, _) in given]
                    now[rank] = max([now[rank], *(max(both) + link for both, link in zip(ends, links, strict=True))])
                position[rank] += 1
                progress = True
    assert position == [len(row) for row in rows]
    return starts, now


def links_and_spreads(schedule):
    """Costs of many kinds: nearly equal and wildly unequal stages, messages shorter and longer than the work."""
    for seed, (spread, link) in enumerate([(0.0, 1.0), (0.3, 0.1), (1.0, 1.0), (1.0, 10.0), (3.0, 1.0), (2.0, 0.1)]):
        yield without_local_links(schedule, unequal_stages(schedule.stages, seed, spread, link))


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_the_simulation_is_what_torchs_own_code_does(name, ranks):
    """Every action starts when torch would start it, to the last bit; but for the waits of 1F1B for earlier sends.

    These hold back forwards of the warm-up and backwards of the cool-down, on ranks that have time: never the step.
    """
    slower_than_early = 0
    for virtual_stages in (1, 2, 3):
        for micro_batches in (ranks, ranks + 1, 2 * ranks, 3 * ranks + 1):
            if why_illegal(name, ranks, virtual_stages, micro_batches):
                continue
            schedule = build_schedule(name, ranks, micro_batches, virtual_stages)
            rows = rows_of_torch(name, ranks, virtual_stages, micro_batches)
            for costs in links_and_spreads(schedule):
                timeline, (starts, done) = simulate(schedule, costs), run_rows(rows, costs)
                assert max(done) == timeline.makespan
                for rank in range(ranks):
                    ours, theirs = timeline.start(rank).tolist(), starts[rank]
                    warm_up = min(micro_batches, ranks - rank) if name == "1F1B" else 0
                    steady = slice(warm_up, len(ours) - warm_up)
                    assert ours[steady] == theirs[steady]
                    assert all(mine <= torchs for mine, torchs in zip(ours, theirs, strict=True))
                slower_than_early += timeline.makespan > simulate(schedule, costs, "early").makespan
    assert slower_than_early > 0 or ranks == 1


# --- NCCL: a stream for every two ranks ------------------------------------------------------------------------------


def ranks_of(message, stage_ranks):
    """Who sends a message, and who receives it."""
    kind, stage, _ = message
    return stage_ranks[stage - 1 if kind == "F" else stage + 1], stage_ranks[stage]


def run_rows_on_streams(rows, costs, stage_ranks):
    """When every action starts where each rank has a queue for every other: what was posted first moves first, either
    way. Posting waits for nothing, a message for both sides and for all before it in both queues."""
    work, travel = (dict(zip("FBIW", table.tolist(), strict=True)) for table in (costs.work(), costs.travel()))
    now, position = [0.0] * len(rows), [0] * len(rows)
    posted, ends, queues, starts = {}, {}, {}, [[] for _ in rows]

    def move(message):
        sender, receiver = ranks_of(message, stage_ranks)
        both = [posted.get((side, message)) for side in ("send", "receive")]
        before = []
        for queue in (queues.get((sender, receiver), []), queues.get((receiver, sender), [])):
            if message in queue:
                before += queue[: queue.index(message)][-1:]
        if None not in both and all(other in ends for other in before):
            ends[message] = max([*both, *(ends[other] for other in before)]) + travel[message[0]][message[1]]

    progress = True
    while progress:
        progress = False
        for rank, row in enumerate(rows):
            while position[rank] < len(row):
                what, given = row[position[rank]]
                if what == "compute":
                    starts[rank].append(now[rank])
                    now[rank] += work[given.kind][given.stage]
                elif what == "post":
                    for side, message in given:
                        posted[side, message] = now[rank]
                        sender, receiver = ranks_of(message, stage_ranks)
                        peer = receiver if side == "send" else sender
                        queues.setdefault((rank, peer), []).append(message)
                elif any(message not in ends for _, message in given):
                    break
                else:
                    now[rank] = max([now[rank], *(ends[message] for _, message in given)])
                position[rank] += 1
                progress = True
        for _, message in posted:
            if message not in ends:
                move(message)
                progress |= message in ends
    assert position == [len(row) for row in rows]
    return starts


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("name", MULTI)
def test_messages_between_two_ranks_take_turns_in_the_order_of_torchs_own_code(name, ranks):
    """Every action starts when it would with torch's own posting, and one stream for every two ranks."""
    compared = held_up = 0
    for virtual_stages in (1, 2, 3):
        for micro_batches in (1, 2, 4, 6, 8):
            if why_illegal(name, ranks, virtual_stages, micro_batches):
                continue
            schedule = build_schedule(name, ranks, micro_batches, virtual_stages)
            rows = rows_of_torch(name, ranks, virtual_stages, micro_batches)
            for costs in links_and_spreads(schedule):
                timeline = simulate(schedule, replace(costs, has_streams=True))
                expected = run_rows_on_streams(rows, costs, schedule.stage_ranks)
                for rank in range(ranks):
                    assert timeline.start(rank).tolist() == pytest.approx(expected[rank], rel=1e-12, abs=1e-12)
                alone = simulate(schedule, costs)
                assert (timeline.starts >= alone.starts - 1e-9 * alone.makespan).all()
                held_up += timeline.makespan > 1.01 * alone.makespan
                compared += 1
    assert compared
    assert held_up or name == "LoopedBFS"


@pytest.mark.parametrize("name", SINGLE)
def test_blocking_runtimes_are_not_held_up_by_streams(name):
    schedule = build_schedule(name, 4, 8)
    for costs in links_and_spreads(schedule):
        with_streams, alone = (simulate(schedule, replace(costs, has_streams=has)).starts for has in (True, False))
        assert (with_streams == alone).all()


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("name", MULTI)
def test_streams_hold_up_messages_event_by_event_too(name, ranks):
    """As where hosts share a way out; here each host has all that it needs, so nothing but the streams may show."""
    v = 2
    for micro_batches in (4, 6, 8):
        if why_illegal(name, ranks, v, micro_batches):
            continue
        schedule = build_schedule(name, ranks, micro_batches, v)
        for costs in links_and_spreads(schedule):
            alone = replace(costs, has_streams=True)
            wide = replace(alone, hosts=tuple(range(ranks)), link_contention=(1.0,) * 100)
            starts, expected = (simulate(schedule, one).starts for one in (wide, alone))
            assert starts == pytest.approx(expected, rel=1e-9, abs=1e-9)


ROWS = ("F0 F1 F2 B0 B1 B2", "F0 B0 F1 F2 B1 B2")
"""Torch places F0 (round 1), F1 and B0 (round 2), F2 (round 3), and in this order lie their messages on the stream."""


@pytest.mark.parametrize(("has_streams", "arrives"), [(True, 15.0), (False, 14.0)])
@pytest.mark.parametrize("link_contention", [(), (1.0, 1.0)])
def test_a_receive_that_was_posted_early_holds_up_a_later_send(has_streams, arrives, link_contention):
    """Forwards of 1 s, backwards of 10 s, messages of 1 s::

    rank 0   F0 F1 F2
    stream    (F0)(F1)           (B0) then (F2)      F2 is made at 3, its receive is posted at 13
    rank 1      F0 B0----------13 F1  F2
    """
    schedule = custom_schedule([parse_row(row, stage) for stage, row in enumerate(ROWS)])
    costs = Costs(
        [1.0] * 2, [10.0] * 2, [0.0] * 2, [0.0] * 2, [1.0], [1.0], hosts=(0, 1), link_contention=link_contention
    )
    start = simulate(schedule, replace(costs, has_streams=has_streams)).start(1).tolist()
    assert start[:4] == [2.0, 3.0, 13.0, arrives]


def test_waiting_for_a_stream_is_communication():
    """With free links a message has nothing to wait for but its own two ends."""
    schedule = build_schedule("Interleaved1F1B", 2, 4, 2)
    costs = replace(without_local_links(schedule, unequal_stages(4, 1)), has_streams=True)
    free = simulate(schedule, costs.with_free_links())
    early = replace(costs, has_streams=False).with_free_links()
    assert (free.starts == simulate(schedule, early).starts).all()
