"""Train ``curation/observers/boundary.onnx``: the network that tells where shots meet, on random footage.

    python -m scripts.builtin.train_cuts --pictures FOLDER --kept FOLDER --out curation/observers/boundary.onnx

``--pictures``: stills, cut-outs (PNG with transparency) and videos to make footage of, see the model's card for those that
were used; without it, only textures of the rendered world. ``--kept``: where measured footage is kept between runs. Several
processes may fill it at once (``--only-measure --part 0/2``).
"""

from __future__ import annotations

import argparse
import re
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dailies.curation.atomic import new_file
from dailies.curation.observers import likeness
from scripts.builtin import cut_graph
from scripts.builtin.footage.material import Material, load
from scripts.builtin.footage.sequences import sequence

SAMPLES = 120  # of one sequence: ten seconds
CHUNK = 200  # sequences in one file
WIDTH, DILATIONS = 64, (1, 2, 4, 8, 1)
HEADS = ("cut", "middle", "blend")


class Network(nn.Module):
    """Measures (B, N, M) → logits (B, N, 3): a hard cut right before the sample, the middle of a gradual transition right
    before it, the sample is a blend.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.enter = nn.Linear(len(mean), WIDTH)
        self.layers = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, dilation=d, padding="same") for d in DILATIONS)
        self.leave = nn.Linear(WIDTH, len(HEADS))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.enter((x - self.mean) / self.deviation)).mT
        for layer in self.layers:
            x = x + F.relu(layer(x))
        logits: Tensor = self.leave(x.mT)
        return logits


# ---- data -----------------------------------------------------------------------------------------------------------


def measured(number: int, material: Material, kept: Path) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Measures (CHUNK, SAMPLES, M) and labels (CHUNK, SAMPLES, 3) of a chunk of sequences, kept in a file."""
    path = kept / f"cuts-{number}.npz"
    if not path.exists():
        xs, ys = [], []
        for item in range(CHUNK):
            made = sequence(np.random.default_rng([number, item, 0xC7]), material, SAMPLES)
            xs.append(likeness.measures(likeness.describe(made.thumbs)).astype(np.float16))
            ys.append(labels(made.times, made.events))
        with new_file(path) as hidden:
            np.savez(hidden, x=np.stack(xs), y=np.stack(ys))
    with np.load(path) as data:
        return data["x"], data["y"]


def labels(times: NDArray[np.float64], events: list[tuple[float, float, str]]) -> NDArray[np.uint8]:
    """(N, 3): see ``Network``. A transition so short that no sample falls into it is a hard cut to who sees only samples."""
    out = np.zeros((len(times), 3), np.uint8)
    for start, end, _ in events:
        inside = (times >= start) & (times < end)
        if inside.any():
            out[inside, 2] = 1
            out[min(len(times) - 1, int(np.searchsorted(times, (start + end) / 2))), 1] = 1
        elif times[0] < end <= times[-1]:
            out[int(np.searchsorted(times, end)), 0] = 1
    return out


# ---- training -------------------------------------------------------------------------------------------------------


def loss_of(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropies; the rare ones weigh more."""
    cut = F.binary_cross_entropy_with_logits(logits[..., 0], y[..., 0], pos_weight=torch.tensor(2.0))
    middle = F.binary_cross_entropy_with_logits(logits[..., 1], y[..., 1], pos_weight=torch.tensor(3.0))
    blend = F.binary_cross_entropy_with_logits(logits[..., 2], y[..., 2])
    return 4 * cut + 2 * middle + blend


def train(x: Tensor, y: Tensor, *, steps: int, batch: int, lr: float, seed: int) -> Network:
    torch.manual_seed(seed)
    held = max(1, len(x) // 20)
    flat = x[held:].float().flatten(0, 1)
    network = Network(flat.mean(0), flat.std(0) + 1e-3)
    del flat
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    began = time.monotonic()
    for step in range(1, steps + 1):
        rows = torch.randint(held, len(x), (batch,))
        inputs = x[rows].float()
        # Measures differ a little from footage to footage in ways that random footage does not know.
        scale = torch.exp(0.15 * torch.randn(batch, 1, inputs.shape[2]))
        hidden = (torch.rand(batch, 1, inputs.shape[2]) < 0.04).float()
        inputs = (inputs * scale) * (1 - hidden) + network.mean * hidden
        loss = loss_of(network(inputs), y[rows].float())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 500 == 0 or step == steps:
            with torch.no_grad():
                logits = network(x[:held].float())
                test = loss_of(logits, y[:held].float())
            print(f"{step} {loss:.4f} held out {test:.4f} {time.monotonic() - began:.0f} s", flush=True)
    return network


def member(args: argparse.Namespace, number: int) -> dict[str, Tensor]:
    """Weights of one member, from every chunk that is kept."""
    torch.set_num_threads(args.threads)
    chunks = [measured(chunk, Material(pictures=()), args.kept) for chunk in range(args.chunks)]
    x, y = (torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*chunks, strict=True))
    if args.without:
        x[..., [bool(re.search(args.without, name)) for name in likeness.NAMES]] = 0
    network = train(x, y, steps=args.steps, batch=args.batch, lr=args.lr, seed=args.seed + number)
    return {name: value.detach() for name, value in network.state_dict().items()}


def save(members: list[dict[str, Tensor]], out: Path, note: str) -> None:
    """Write the members as one ONNX file whose output averages them. ``note``: how they were trained."""
    model = cut_graph.build(
        [{name: tensor.double().numpy() for name, tensor in member.items()} for member in members],
        dilations=DILATIONS,
        inputs=likeness.NAMES,
        outputs=HEADS,
        note=note,
    )
    with new_file(out) as hidden:
        hidden.write_bytes(model.SerializeToString())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--kept", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("curation/observers/boundary.onnx"))
    parser.add_argument("--chunks", type=int, default=20, help="of 200 sequences of 10 s")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--without", help="leave out measures whose names match this expression, to see what they bring"
    )
    parser.add_argument("--members", type=int, default=4, help="networks trained apart, whose logits are averaged")
    parser.add_argument("--workers", type=int, default=2, help="how many of them are trained at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--only-measure", action="store_true")
    parser.add_argument("--part", default="0/1", help="which of how many parts of the chunks to measure")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    args.kept.mkdir(parents=True, exist_ok=True)
    part, parts = (int(value) for value in args.part.split("/"))
    material = load(args.pictures)
    for number in range(part, args.chunks, parts):
        measured(number, material, args.kept)
        print(f"measured {number}", flush=True)
    if not args.only_measure:
        with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
            members = list(pool.map(partial(member, args), range(args.members)))
        note = f"trained by train_cuts on {args.chunks} chunks of {CHUNK} sequences, {args.steps} steps each"
        save(members, args.out, f"{note}, batch {args.batch}, lr {args.lr}, seeds from {args.seed}")


if __name__ == "__main__":
    main()
