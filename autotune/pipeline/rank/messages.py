"""Messages that torch's schedules send in one batch, under a torch that keeps only the last of them.

In 2.6 ``_batch_p2p`` returns the last message alone, which stands for the whole batch over NCCL. Over gloo each is its
own, and one that nobody keeps may never be sent: then 1F1B and all schedules of several stages hang.
"""

import torch.distributed as dist
from torch.distributed.pipelining import schedules


class Batch:
    """Messages of one batch, as the one that torch waits for."""

    def __init__(self, messages: list[dist.Work]) -> None:
        self.messages = messages

    def wait(self) -> None:
        """Wait for all of them."""
        for message in self.messages:
            message.wait()


def send_all(operations: list[dist.P2POp], desc: str | None = None) -> Batch | None:
    """Send and receive in one batch; what ``_batch_p2p`` does, but that nothing is lost."""
    return Batch(dist.batch_isend_irecv(operations)) if operations else None


def keep_all_messages() -> None:
    """Put ``send_all`` in the place of ``_batch_p2p`` where that returns a single message."""
    if "return" not in schedules._batch_p2p.__annotations__:
        schedules._batch_p2p = send_all  # type: ignore[assignment]  # of newer ones, which return a list
