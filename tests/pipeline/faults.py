"""Models that are wrong on purpose, each in one way, and ranks that train them: what the checks must catch."""

from torch import Tensor
from torch.nn import functional

from autotune.workload.gpt import GPT, IGNORED, SequenceLoss, Stage, build_stage


class SummedMeans(SequenceLoss):
    """The mean of each micro-batch, and nobody divides by their number: a sum where a mean is meant."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


class PaddingCounts(SequenceLoss):
    """Padding rows are not masked: they are taken to be followed by token 0."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return super().__call__(logits, targets.clamp(min=0))


class FullWeights(SequenceLoss):
    """Padding is masked, but a micro-batch that is half padding weighs as much as a full one."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        mean = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        return mean * targets.numel() / self.tokens


class Hoarder(Stage):
    """Keeps the output of every micro-batch, for good."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        self.__dict__.setdefault("kept", []).append(out.detach())
        return out


class LateHoarder(Hoarder):
    """Keeps the output of every micro-batch until the next step begins."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.__dict__.pop("kept", None)
        super().zero_grad(set_to_none)


def built_as(kind):
    """Builds stages of another class."""

    def build(workload, index, stages, device):
        stage = build_stage(workload, index, stages, device)
        return kind(list(stage.children()), workload.precision, stage.is_last)

    return build


MODELS = {
    "right": GPT,
    "summed": GPT._replace(loss=SummedMeans),
    "unmasked": GPT._replace(loss=PaddingCounts),
    "full weights": GPT._replace(loss=FullWeights),
    "hoarder": GPT._replace(build=built_as(Hoarder)),
    "late hoarder": GPT._replace(build=built_as(LateHoarder)),
}


class WrongRank:
    """Runs in the process of a rank, with one of MODELS."""

    def __init__(self, model):
        self.model = model

    def __call__(self, *arguments):
        from autotune.pipeline.worker import serve

        serve(*arguments, MODELS[self.model])
