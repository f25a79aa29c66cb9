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
    """Gives every letter of ``row`` its stage and micro-batch.

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
    """Micro-batches 0, 1, 2, ... of one stage."""
    counted = np.arange(micro_batches, dtype=np.int32)
    return np.stack((np.full_like(counted, stage), counted))


# --- one stage per rank -------------------------------------------------------------------------------------------


def gpipe(rank: int, p: int, m: int, v: int) -> Order:
    """All forwards, then all backwards (Huang et al. 2019) ::

    rank 0   F0 F1 F2       B0 B1 B2
    rank 1      F0 F1 F2 B0 B1 B2
    """
    units = same_stage(rank, m)
    return count_out("F" * m + "B" * m, [(KINDS, units, units)])


def one_forward_one_backward(rank: int, p: int, m: int, v: int) -> Order:
    """As many forwards as stages lie ahead, then B and F in turn, then the backwards left (Narayanan et al. 2019) ::

    rank 0   F0 F1 F2 .  .  B0 F3 B1 .  B2 .  B3
    rank 1   .  F0 F1 .  B0 F2 B1 F3 B2 .  B3
    rank 2   .  .  F0 B0 F1 B1 F2 B2 F3 B3
    """
    warm_up = min(m, p - rank)
    units = same_stage(rank, m)
    return count_out("F" * warm_up + "BF" * (m - warm_up) + "B" * warm_up, [(KINDS, units, units)])


Builder = Callable[[int, int, int, int], Order]
"""(rank, ranks p, micro-batches m, virtual stages v) -> the order of that rank."""

BUILDERS: dict[str, Builder] = {
    "GPipe": gpipe,
    "1F1B": one_forward_one_backward,
}
