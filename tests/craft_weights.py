"""CRAFT as its published checkpoint has it, put together from torchvision's VGG-16: a second writing of the network, whose
state dicts the tests save. torch is imported by the functions alone."""

from __future__ import annotations

from typing import Any


def published(state: dict[str, Any]) -> dict[str, Any]:
    """Name tensors as the file does: of a network that ``DataParallel`` holds."""
    return {f"module.{name}": tensor for name, tensor in state.items()}


def reference() -> Any:
    """The network, which takes normalised pictures (N, 3, H, W) and returns (N, 2, H/2, W/2), with random weights."""
    import torch
    from torch import nn
    from torchvision.models import vgg16_bn

    layers = list(vgg16_bn(weights=None).features)

    def numbered(first: int, behind: int) -> nn.Sequential:
        part = nn.Sequential()
        for number in range(first, behind):
            part.add_module(
                str(number), layers[number]
            )  # ReLUs work in place: what a stage gave has passed the next one
        return part

    class Upward(nn.Module):
        def __init__(self, inputs: int, middle: int, outputs: int) -> None:
            super().__init__()
            self.conv = nn.Sequential(
                nn.Conv2d(inputs, middle, 1),
                nn.BatchNorm2d(middle),
                nn.ReLU(),
                nn.Conv2d(middle, outputs, 3, padding=1),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            )

        def forward(self, low: Any, high: Any) -> Any:
            low = nn.functional.interpolate(low, size=high.shape[2:], mode="bilinear", align_corners=False)
            return self.conv(torch.cat([low, high], 1))

    class Reference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.basenet = nn.Module()
            for name, (first, behind) in enumerate(((0, 12), (12, 19), (19, 29), (29, 39)), start=1):
                self.basenet.add_module(f"slice{name}", numbered(first, behind))
            pool = nn.MaxPool2d(3, 1, 1)
            self.basenet.add_module(
                "slice5",
                nn.Sequential(pool, nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.Conv2d(1024, 1024, 1)),
            )
            self.upconv1, self.upconv2 = Upward(1536, 512, 256), Upward(768, 256, 128)
            self.upconv3, self.upconv4 = Upward(384, 128, 64), Upward(192, 64, 32)
            self.conv_cls = nn.Sequential(
                *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()),
                *(nn.Conv2d(32, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 2, 1)),
            )

        def forward(self, pixels: Any) -> Any:
            stages = [pixels]
            for number in range(1, 6):
                stages.append(getattr(self.basenet, f"slice{number}")(stages[-1]))
            _, second, third, fourth, fifth, sixth = stages
            x = self.upconv1(sixth, fifth)
            for upward, stage in ((self.upconv2, fourth), (self.upconv3, third), (self.upconv4, second)):
                x = upward(x, stage)
            return self.conv_cls(x)

    model = Reference().eval()
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 4:  # numbers that stay about as large from end to end, so that each stage shows in the maps
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.endswith(("running_var", "weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)  # a normalisation that does nothing would hide one left out
        elif tensor.is_floating_point():
            tensor.uniform_(-0.3, 0.3, generator=generator)
    return model


def seeing_light(least: float = 0.5) -> dict[str, Any]:
    """Weights as published, by which the region score of a picture is 0 up to a brightness of ``least`` and 1 at white.

    Red goes its way through the first stage and the last block alone, all else is 0; nothing is linked.
    """
    import torch

    from dailies.curation.scorers.craft import DEVIATION, MEAN, SHAPES

    state = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    for name in state:
        if name.endswith("running_var"):
            state[name] += 1 - 1e-5
            state[name.replace("running_var", "weight")] += 1
    first = state["basenet.slice1.0.weight"]
    first[0, 0, 1, 1] = DEVIATION[0]
    state["basenet.slice1.0.bias"][0] = MEAN[0]
    for name in ("basenet.slice1.3", "basenet.slice1.7", "basenet.slice1.10"):
        state[f"{name}.weight"][0, 0, 1, 1] = 1
    state["upconv4.conv.0.weight"][0, 64, 0, 0] = 1 / (1 - least)  # behind the 64 channels of the block below
    state["upconv4.conv.0.bias"][0] = -least / (1 - least)
    for name, middle in (("upconv4.conv.3", 1), ("conv_cls.0", 1), ("conv_cls.2", 1), ("conv_cls.4", 1)):
        state[f"{name}.weight"][0, 0, middle, middle] = 1
    for name in ("conv_cls.6", "conv_cls.8"):
        state[f"{name}.weight"][0, 0, 0, 0] = 1
    return published(state)
