"""The seven schedules of torch, each written as one row of letters per rank.

A row is a string; its letters are torch's: F forward, B full backward, I input gradient, W weight gradient. The rest
is counting: the k-th F of a row is the k-th forward of that rank, the k-th of its B and I together is the k-th
backward, the k-th W belongs to the k-th I. So 1F1B on stage 1 of 3 with 4 micro-batches is the string ::

    F F B F B F B B     and counted     F0 F1 B0 F2 B1 F3 B2 B3

Schedules that fold the pipeline into a V run two stages on a rank: capital letters are the stage on the way down
(s = rank), small letters the one on the way up (s = 2p - 1 - rank) ::

    rank 0   stage 0    stage 5
    rank 1   stage 1    stage 4
    rank 2   stage 2 -> stage 3
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

KINDS = "FBIW"
FORWARD, BACKWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = range(4)

Units = NDArray[np.int32]
"""int32[2, n]: row 0 the stage, row 1 the micro-batch, of the first, second, ... forward (or backward) of a rank."""

KIND_OF_LETTER = np.zeros(128, np.int8)
for _kind, _letter in enumerate(KINDS):
    KIND_OF_LETTER[[ord(_letter), ord(_letter.lower())]] = _kind


class Order(NamedTuple):
    """One rank's actions, in order, as three columns of the same length.

    ``kind`` int8 (index into KINDS), ``stage`` int32 (0 ... S-1), ``micro_batch`` int32 (0 ... m-1).
    """

    kind: NDArray[np.int8]
    stage: NDArray[np.int32]
    micro_batch: NDArray[np.int32]


def count_out(row: str, lanes: Iterable[tuple[str, Units, Units]]) -> Order:
    """Give every letter of ``row`` its stage and micro-batch.

    Each lane is (its four letters in the order of KINDS, its forwards in order, its backwards in order).
    """
    letters = np.frombuffer(row.encode(), np.uint8)
    units = np.empty((2, len(letters)), np.int32)
    for alphabet, forwards, backwards in lanes:
        is_f, is_b, is_i, is_w = (letters == ord(letter) for letter in alphabet)
        units[:, is_f] = forwards
        units[:, is_b | is_i] = backwards
        units[:, is_w] = units[:, is_i]
    return Order(KIND_OF_LETTER[letters], units[0], units[1])


def same_stage(stage: int, micro_batches: int) -> Units:
    """Return micro-batches 0, 1, 2, ... of one stage."""
    counted = np.arange(micro_batches, dtype=np.int32)
    return np.stack((np.full_like(counted, stage), counted))


# --- one stage per rank -------------------------------------------------------------------------------------------


def gpipe(p: int, m: int, v: int, rank: int) -> Order:
    """Return all forwards, then all backwards (Huang et al. 2019) ::

    rank 0   F0 F1 F2       B0 B1 B2
    rank 1      F0 F1 F2 B0 B1 B2
    """
    units = same_stage(rank, m)
    return count_out("F" * m + "B" * m, [(KINDS, units, units)])


def one_forward_one_backward(p: int, m: int, v: int, rank: int) -> Order:
    """Return as many forwards as stages lie ahead, then B and F in turn, then the backwards left (Narayanan et al.
    2019) ::

    rank 0   F0 F1 F2 .  .  B0 F3 B1 .  B2 .  B3
    rank 1   .  F0 F1 .  B0 F2 B1 F3 B2 .  B3
    rank 2   .  .  F0 B0 F1 B1 F2 B2 F3 B3
    """
    warm_up = min(m, p - rank)
    units = same_stage(rank, m)
    return count_out("F" * warm_up + "BF" * (m - warm_up) + "B" * warm_up, [(KINDS, units, units)])


# --- several stages per rank, in a loop: stages rank, rank + p, rank + 2p, ... ------------------------------------


def looped_bfs(p: int, m: int, v: int, rank: int) -> Order:
    """Return GPipe's order stage by stage: every micro-batch through the rank's first stage, then through the next ::

    rank 0 of 2   0F0 0F1 2F0 2F1 2B1 2B0 0B1 0B0

    The backwards go back over the micro-batches (Lamy-Poirier 2023).
    """
    counted = np.arange(v * m, dtype=np.int32)
    forwards = np.stack((counted // m * p + rank, counted % m))
    return count_out("F" * (v * m) + "B" * (v * m), [(KINDS, forwards, forwards[:, ::-1])])


def in_rounds(p: int, m: int, v: int, rank: int) -> tuple[int, Units, Units]:
    """Return micro-batches taken in rounds of about p, each round through all stages of the rank before the next one.

    With p = 2, v = 2, m = 4 there are two rounds of two, and rank 0 runs stages 0 and 2 ::

        forwards    0F0 0F1  2F0 2F1    0F2 0F3  2F2 2F3
        backwards   2B0 2B1  0B0 0B1    2B2 2B3  0B2 0B3

    Returns the micro-batches of a round, the forwards and the backwards (Narayanan et al. 2021; rounds may be longer
    than p, so that m need not be a multiple of p).
    """
    size = m // max(1, m // p)
    counted = np.arange(v * m, dtype=np.int32)
    turn, micro_batch = (counted // size % v, counted // (size * v) * size + counted % size)
    return (size, np.stack((turn * p + rank, micro_batch)), np.stack(((v - 1 - turn) * p + rank, micro_batch)))


def interleaved(p: int, m: int, v: int, rank: int) -> Order:
    """Return 1F1B over the rounds; a rank further from the end warms up with two more forwards (Narayanan et al. 2021)
    ::

    rank 0 of 2   0F0 0F1 2F0 2F1  0F2 2B0  0F3 2B1  2F2 0B0  2F3 0B1  2B2 2B3 0B2 0B3
    """
    size, forwards, backwards = in_rounds(p, m, v, rank)
    warm_up = min((v - 1) * size + 2 * (p - 1 - rank), v * m)
    return count_out("F" * warm_up + "FB" * (v * m - warm_up) + "B" * warm_up, [(KINDS, forwards, backwards)])


def interleaved_zero_bubble(p: int, m: int, v: int, rank: int) -> Order:
    """Return 1F1B over the rounds with the backward split: the n-th input gradient is followed by the
    (n - rank)-th weight gradient.

    The weight gradients left over, ``rank`` of them, end the row where 1F1B would idle; the split also lets a rank
    warm up with one more forward per hop from the end instead of two (ZB-H1 of Qi et al. 2023) ::

    rank 1 of 2   1F0 1F1  3F0 3I0  3F1 3I1 3W0  1F2 1I0 3W1  ...  1I3 1W2  1W3
    """
    size, forwards, backwards = in_rounds(p, m, v, rank)
    total = v * m
    warm_up = min((v - 1) * size + p - 1 - rank, total)
    paired, late = total - warm_up, min(rank, total)  # turns 0 ... paired-1 begin with F, turns late ... end with W
    turns = (
        "FI" * min(paired, late) + "FIW" * (paired - late) + "I" * (late - paired) + "IW" * min(warm_up, total - late)
    )
    return count_out("F" * warm_up + turns + "W" * late, [(KINDS, forwards, backwards)])


# --- two stages per rank, in a V ----------------------------------------------------------------------------------


def v_lanes(p: int, m: int, rank: int) -> list[tuple[str, Units, Units]]:
    """Return capital letters: stage ``rank``, on the way down. Small letters: its twin on the way up."""
    down, up = same_stage(rank, m), same_stage(2 * p - 1 - rank, m)
    return [(KINDS, down, down), (KINDS.lower(), up, up)]


def zbv(p: int, m: int, v: int, rank: int) -> Order:
    """Return ZB-V: a rank fills up, then F I W of its two stages in turn without a gap; some weight gradients come
    last.

    Written for at least 2p - 1 micro-batches, the number that fills the V; with fewer the surplus ones are struck out
    (Qi et al. 2023, section 6, for t_f = t_b = t_w).
    """
    n, ahead = max(2 * p - 1, m), p - rank
    warm_up = "F" * (2 * ahead - 1) + "fF" * rank + "fiw" * ahead
    steady = "FIWfiw" * (n - 2 * p + rank + 1) + "IWfiw" * (ahead - 1)
    cool_down = "Ii" * rank + "IW" * ahead + "w" * rank + "W" * rank
    order = count_out(warm_up + steady + cool_down, v_lanes(p, n, rank))
    kept = order.micro_batch < m
    return order if n == m else Order(order.kind[kept], order.stage[kept], order.micro_batch[kept])


def dual_pipe_v(p: int, m: int, v: int, rank: int) -> Order:
    """Return DualPipeV: forwards of one stage run beside backwards of its twin, fused but for a few at the start and
    end.

    Steps as in DeepSeek's own code (after DeepSeek-AI 2024). The last input gradients are split off so that the
    weight gradients, oldest first, fill the drain. An overlapped pair is written as its forward, then its backward.
    """
    ahead = p - rank - 1
    fill = "F" * (2 * ahead) + "Ff" * (rank + 1) + "iwf" * ahead
    steady = "FbfB" * (m - 2 * p + rank + 1) + "bfB" * ahead
    turn = rank + 1  # of the 2(rank + 1) backwards of the turn the first half is fused, the second split
    split = ("iI" * turn)[turn:]
    owed = (split + "I" * ahead).replace("i", "w").replace("I", "W")
    drain = "".join(weight + "I" for weight in owed[:ahead]) + owed[ahead:]
    return count_out(fill + steady + ("bB" * turn)[:turn] + split + drain, v_lanes(p, m, rank))


Builder = Callable[[int, int, int, int], Order]
"""(ranks p, micro-batches m, virtual stages v, rank) -> the order of that rank."""

BUILDERS: dict[str, Builder] = {
    "GPipe": gpipe,
    "1F1B": one_forward_one_backward,
    "LoopedBFS": looped_bfs,
    "Interleaved1F1B": interleaved,
    "InterleavedZeroBubble": interleaved_zero_bubble,
    "ZBVZeroBubble": zbv,
    "DualPipeV": dual_pipe_v,
}
