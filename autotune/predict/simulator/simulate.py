"""The simulator: a schedule and the seconds of its actions -> when every action starts and ends."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autotune.predict.orders import BACKWARD, FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT
from autotune.predict.schedules import Schedule, ScheduleError
from autotune.predict.simulator.contention import Contention, run_contended
from autotune.predict.simulator.dedicated import run, run_on_streams
from autotune.predict.simulator.graph import ActionGraph
from autotune.predict.simulator.posting import Receives, graph_of

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """Seconds of one micro-batch; lists are indexed by stage (S entries) or boundary (S-1 entries).

    ``backward`` is the fused backward (B); ``input_gradient`` (I) and ``weight_gradient`` (W) its two halves.
    ``activation_link[s]`` and ``gradient_link[s]``: a message is under way between stages s and s+1, forward and back;
    no core is used meanwhile. Zero where both stages sit on the same rank.
    ``slowdown[k-1]``: with k ranks computing at once each runs that many times slower (ranks that share a host's
    cores). Beyond the list it grows in proportion to k. None: every rank has a device of its own.
    ``hosts[r]``: a number for the host of rank r, whose cores and whose way out only its own ranks share. None: all are
    on one. ``link_contention[k-1]``: with k messages on their way out of a host each takes that many times longer.
    Empty: they do not disturb each other. ``has_streams``: messages that torch's lowering placed move one at a time
    between any two ranks, as under NCCL. ``host``: float[4][S], seconds that the CPU beside a device takes to start an
    action, by kind and stage. It goes on to the next action at once, because it waits for no message; the device may be
    far behind, or wait for it. None: the CPU is the device, or was not measured. ``reduction[s]``: seconds by which the
    last backward of stage s is prolonged, because replicas add up its gradients in it. None: there is one replica.
    """

    forward: Sequence[float]
    backward: Sequence[float]
    input_gradient: Sequence[float]
    weight_gradient: Sequence[float]
    activation_link: Sequence[float]
    gradient_link: Sequence[float]
    slowdown: Sequence[float] | None = None
    hosts: Sequence[int] | None = None
    link_contention: Sequence[float] = ()
    has_streams: bool = False
    host: Sequence[Sequence[float]] | None = None
    reduction: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for lists of unequal length."""
        stages = len(self.forward)
        per_stage = (self.backward, self.input_gradient, self.weight_gradient)
        per_boundary = (self.activation_link, self.gradient_link)
        if any(len(row) != stages for row in per_stage) or any(len(row) != stages - 1 for row in per_boundary):
            raise ValueError(
                f"costs of {stages} stages need {stages} entries per kind of action, {stages - 1} per link"
            )

    @property
    def is_contended(self) -> bool:
        """True where ranks or messages slow each other."""
        return self.slowdown is not None or bool(self.link_contention)

    def contention(self, ranks: int, is_lowered: bool) -> Contention:
        """Return which ranks share cores and which share an uplink: a group number per rank."""
        hosts = self.hosts or (0,) * ranks
        cores = range(ranks) if self.slowdown is None else hosts
        has_streams = self.has_streams and is_lowered
        return Contention(cores, self.slowdown or (1.0,), hosts, self.link_contention or (1.0,), has_streams)

    @property
    def stages(self) -> int:
        """S, the number of stages."""
        return len(self.forward)

    def with_free_links(self) -> "Costs":
        """Return the costs where messages take no time."""
        nothing = [0.0] * (self.stages - 1)
        free = replace(self, activation_link=nothing, gradient_link=nothing, link_contention=())
        return replace(free, has_streams=False)  # a message that waits for another is what links cost, too

    def with_free_host(self) -> "Costs":
        """Return the same where the CPU is never late."""
        return replace(self, host=None)

    def with_equal_stages(self) -> "Costs":
        """Return the costs where every stage takes the mean of all, kind by kind."""
        f, b, i, w = ([mean] * self.stages for mean in self.work().mean(axis=1).tolist())
        reduction = self.reduction and [sum(self.reduction) / self.stages] * self.stages
        return replace(self, forward=f, backward=b, input_gradient=i, weight_gradient=w, reduction=reduction)

    def work(self) -> Seconds:
        """Return float64[4, S]: seconds of an action, by kind and stage."""
        return np.array([self.forward, self.backward, self.input_gradient, self.weight_gradient], np.float64)

    def travel(self) -> Seconds:
        """Return float64[4, S]: seconds that the input of an action is under way to its stage, by kind and stage."""
        return self._into(self.activation_link, self.gradient_link)

    def exchange(self) -> Seconds:
        """Return float64[4, S]: the seconds where a message each way is waited for, the slower of the two."""
        slower = np.maximum(self.activation_link, self.gradient_link)
        return self._into(slower, slower)

    def _into(self, forward: ArrayLike, backward: ArrayLike) -> Seconds:
        into = np.zeros((4, self.stages))
        into[FORWARD, 1:] = forward
        into[BACKWARD, :-1] = into[INPUT_GRADIENT, :-1] = backward
        return into


@dataclass(frozen=True, eq=False)
class Timeline:
    """Start and end of every action of one step. ``starts`` and ``ends``: float64[N], flattened as in ``graph``."""

    graph: ActionGraph
    starts: Seconds
    ends: Seconds

    @property
    def schedule(self) -> Schedule:
        """The schedule that was run."""
        return self.graph.schedule

    def start(self, rank: int) -> Seconds:
        """Return when each action of the rank starts, in the order of ``schedule.actions(rank)``."""
        return self.starts[self.graph.first[rank] : self.graph.first[rank + 1]]

    def end(self, rank: int) -> Seconds:
        """Return when each action of the rank ends."""
        return self.ends[self.graph.first[rank] : self.graph.first[rank + 1]]

    @cached_property
    def makespan(self) -> float:
        """Seconds from the first start to the last end of any rank."""
        return float(self.ends.max(initial=0.0))

    @cached_property
    def rank_ends(self) -> Seconds:
        """float64[p]: when each rank has ended its last action."""
        return self.ends[self.graph.first[1:] - 1]

    @cached_property
    def busy(self) -> Seconds:
        """float64[p]: seconds that each rank computes, slowed down by the others where they share cores."""
        return np.array([(self.end(rank) - self.start(rank)).sum() for rank in range(self.schedule.ranks)])

    @property
    def idle(self) -> Seconds:
        """float64[p]: seconds of the step that each rank does not compute."""
        return np.maximum(0.0, self.makespan - self.busy)  # of a rank that is never idle rounding leaves -1e-16

    @property
    def bubble_fraction(self) -> float:
        """Idle device time inside the step, as a fraction of p x step time."""
        return float(self.idle.mean() / self.makespan) if self.makespan else 0.0

    def critical_path(self) -> list[int]:
        """Return the chain of actions (indices into ``graph``) that ends last; none could start before its
        predecessor.

        An action follows the previous one of its rank; or, where a message came later than that, the one that made
        the message or the one after which its receive was posted, whichever ended last.
        """
        path = [int(self.ends.argmax())]
        while self.starts[path[-1]] > 0:
            index = path[-1]
            producer, posted = int(self.graph.producer[index]), int(self.graph.posted[index])
            previous = index - 1 if index not in self.graph.first else None
            if previous is not None and (producer == len(self.ends) or self.ends[previous] == self.starts[index]):
                path.append(previous)
            elif posted < len(self.ends) and self.ends[posted] > self.ends[producer]:
                path.append(posted)
            else:
                path.append(producer)
        return path[::-1]


def tail_seconds(rank_ends: Seconds, after_s: Sequence[float]) -> float:
    """Return seconds of the step after the last action of any rank. What follows its own actions, the optimizer step
    above all, a rank begins as soon as they are done, and takes ``after_s[r]`` for it: one that is done early may have
    ended that too by then."""
    return float((rank_ends + np.array(after_s)).max() - rank_ends.max())


def action_seconds(graph: ActionGraph, costs: Costs) -> Seconds:
    """Return how long each action takes undisturbed; float64[N]. The last backward of a stage reduces its
    gradients."""
    seconds: Seconds = costs.work()[graph.kind, graph.stage]
    if costs.reduction is not None:
        backwards = np.flatnonzero(np.isin(graph.kind, (BACKWARD, WEIGHT_GRADIENT)))
        last = np.zeros(costs.stages, np.int64)
        np.maximum.at(last, graph.stage[backwards], backwards)
        seconds[last] += costs.reduction
    return seconds


def travel_seconds(graph: ActionGraph, costs: Costs) -> Seconds:
    """Return how long the input of each action is under way; float64[N], 0 where it takes none."""
    delay: Seconds = costs.travel()[graph.kind, graph.stage]
    both = np.flatnonzero(graph.exchanged)
    delay[both] = costs.exchange()[graph.kind[both], graph.stage[both]]
    return delay


def started_by_host(graph: ActionGraph, costs: Costs) -> Seconds | None:
    """Return when the CPU of its rank has started all of each action, float64[N]; None where the CPU is the device."""
    if costs.host is None:
        return None
    seconds = np.asarray(costs.host, np.float64)[graph.kind, graph.stage]
    started = np.empty_like(seconds)
    for begin, end in pairwise(graph.first.tolist()):
        np.cumsum(seconds[begin:end], out=started[begin:end])
    return started


def simulate(schedule: Schedule, costs: Costs, receives: Receives = "torch") -> Timeline:
    """Simulate a schedule; raise ScheduleError if it can never finish, naming which action waits for which.

    An action starts when its rank is free and its input has arrived. The message moves once it is made and its receive
    posted: start = max(end before it, max(producer's end, end of the action after which it is posted) + link).
    A device beside a CPU begins an action when the CPU has started the one before, and does not end it before the CPU
    has started all of it.
    ``receives``: posted as torch does, or early, all at the beginning of the step.
    """
    if costs.stages != schedule.stages:
        raise ScheduleError(f"costs are of {costs.stages} stages, the schedule has {schedule.stages}")
    graph = graph_of(schedule, receives)
    seconds, delay = action_seconds(graph, costs), travel_seconds(graph, costs)
    if costs.is_contended or costs.host is not None:
        contention, started = costs.contention(schedule.ranks, graph.rounds is not None), started_by_host(graph, costs)
        return Timeline(graph, *run_contended(graph, seconds, delay, contention, started))
    if costs.has_streams and graph.rounds is not None:
        return Timeline(graph, *run_on_streams(graph, seconds, delay))
    return Timeline(graph, *run(graph, seconds, delay))
