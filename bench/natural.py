"""One micro-step of the CGN's training recipe: its time against its networks' own passes, and its memory.

The recipe at 256 px with full-size networks of random weights, batch 1, fp32 (`cgnrt-train imagenet`). "Networks alone"
is the sum of what no training of this kind can do without, each measured by itself: the cGAN forward, three BigGANs,
two U2-Nets and two feature passes forward and backward, two more feature passes forward. Memory is the peak of a fresh
process that takes three micro-steps and an update. With --falls, instead: a small teacher of 64 px, each loss alone
over 20 updates of 64 samples. With --device cuda: samples a second in fp32, bf16 and channels last, and memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import median_ratio, print_table, summary, time_in_turns, write_json
from torch import Tensor

from cgnrt_training.natural.config import Config, LossConfig
from cgnrt_training.natural.networks import Files, Networks, load_networks
from cgnrt_training.natural.stand_ins import write_stand_ins
from cgnrt_training.natural.train import Run
from cgnrt_training.runs.processes import Processes
from cgnrt_training.settings import override

MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "fp32, channels last": {"channels_last": True},
    "bf16": {"precision": "bf16"},
    "bf16, channels last": {"precision": "bf16", "channels_last": True},
}
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--channel-width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for samples a second")
    parser.add_argument("--falls", action="store_true", help="each loss alone, on a small teacher")
    parser.add_argument("--files", type=Path, help="a folder of stand-ins that exists already")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)  # the fresh process
    arguments = parser.parse_args()
    if arguments.memory:
        print(peak_memory(arguments))
        return
    if arguments.falls:
        write_json("natural-falls", {"losses": falls()}, arguments.json)
        return
    with tempfile.TemporaryDirectory() as folder:
        if arguments.files is None:
            arguments.files = write_stand_ins(
                Path(folder) / "files",
                arguments.resolution,
                channel_width=arguments.channel_width,
                progress=lambda line: print(line, file=sys.stderr),
            )
        result = on_gpu(arguments) if arguments.device != "cpu" else on_cpu(arguments)
    write_json("natural", result, arguments.json)


def networks_of(folder: Path, config: Config) -> Networks:
    files = Files(folder / "biggan", folder / "u2net.pth", vgg=folder / "vgg16_bn.pth")
    return load_networks(files, config, None)


def run_of(folder: Path, config: Config, device: str = "cpu") -> Run:
    processes = Processes(device=torch.device(device))
    return Run(config, networks_of(folder, config), Path("bench"), processes.device, processes)


def on_cpu(arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--memory", "--files", str(arguments.files)]
    memory = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"peak memory: {memory / GIB:.2f} GiB", file=sys.stderr, flush=True)
    run = run_of(arguments.files, override(Config(), {"train": {"power_iteration": "off"}}))
    cases: dict[str, Callable[[], object]] = {"micro-step": run.accumulate}
    cases |= alone(run)
    times = time_in_turns(cases, rounds=arguments.rounds, warmup=1)
    counts = {name: int(name.split()[0]) for name in times if name != "micro-step"}
    together = [
        sum(counts[name] * times[name][k] for name in counts) for k in range(len(times["micro-step"]))
    ]
    rows = [{"case": name, **summary(seconds)} for name, seconds in times.items()]
    rows.append({"case": "networks alone, together", **summary(together)})
    ratio = median_ratio(times["micro-step"], together)
    print_table("a micro-step of one sample", rows)
    print(f"micro-step over its networks alone: {ratio:.3f}; peak memory {memory / GIB:.2f} GiB")
    return {"rows": rows, "ratio": ratio, "peak_memory_bytes": memory, "threads": torch.get_num_threads()}


def alone(run: Run) -> dict[str, Callable[[], object]]:
    """The passes of a micro-step; each name begins with how often it does this one."""
    size = run.teacher.config
    noise, truncation = torch.randn(1, size.z_dim).clamp(-2, 2), torch.ones(1, 1)
    features = run.objective.features
    assert features is not None
    with torch.no_grad():
        picture = run.teacher(noise, run.teacher.embedding_table[:1], truncation)

    def generate() -> None:
        drawn = run.cgn.f_text(noise, run.cgn.f_text.embedding_table[:1], truncation)
        drawn.backward(torch.ones_like(drawn))

    def through(network: Callable[[Tensor], Any]) -> None:
        found = network(picture.clone().requires_grad_())
        outputs = [found] if isinstance(found, Tensor) else found
        torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])

    def forward(call: Callable[[], object]) -> None:
        with torch.no_grad():
            call()

    return {
        "1 x cGAN forward": lambda: forward(
            lambda: run.teacher(noise, run.teacher.embedding_table[:1], truncation)
        ),
        "3 x BigGAN forward and backward": generate,
        "2 x U2-Net forward and backward": lambda: through(run.objective.saliency),
        "2 x VGG16 forward": lambda: forward(lambda: features(picture)),
        "2 x VGG16 forward and backward": lambda: through(features),
    }


def peak_memory(arguments: argparse.Namespace) -> int:
    """Bytes that this process has taken at most, after three micro-steps and an update."""
    run = run_of(arguments.files, override(Config(), {"train": {"pseudo_batch": 3}}))
    for _ in range(3):
        run.accumulate()
    run.update()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def on_gpu(arguments: argparse.Namespace) -> dict[str, Any]:
    rows = []
    for name, settings in MODES.items():
        for batch in (1, 4):
            config = override(Config(), {"train": settings | {"micro_batch": batch, "pseudo_batch": 1 << 30}})
            run = run_of(arguments.files, config, arguments.device)
            torch.cuda.reset_peak_memory_stats()
            times = time_in_turns({name: run.accumulate}, rounds=20, warmup=3)[name]
            memory = torch.cuda.max_memory_allocated()
            rate = batch / (summary(times)["median_ms"] / 1e3)
            rows.append(
                {"case": name, "batch": batch, "samples/s": rate, **summary(times), "GiB": memory / GIB}
            )
            del run
    print_table("a micro-step", rows)
    return {"rows": rows}


def falls() -> list[dict[str, Any]]:
    """Each loss alone: its mean over the first and the last update."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        small = {"channel_width": 16, "num_classes": 10}
        files = write_stand_ins(Path(folder) / "files", 64, **small)  # type: ignore[arg-type]
        other = networks_of(write_stand_ins(Path(folder) / "other", 64, seed=1, **small), Config()).teacher  # type: ignore[arg-type]
        for name in ("l1", "perceptual", "binary", "mask", "texture", "background"):
            weights = {term: 0.0 for term in vars(LossConfig()) if term != "tau"}
            config = override(
                Config(),
                {
                    "loss": weights
                    | {name: getattr(LossConfig(), name), "tau": 0.4 if name == "mask" else 0.1},
                    "train": {"pseudo_batch": 64, "micro_batch": 16},
                    "optimizer": {"lr_shape": 1e-4, "lr_texture": 1e-4, "lr_background": 1e-4},
                },
            )
            run = run_of(files, config)
            if name in ("l1", "perceptual"):  # which begin at 0 where all mechanisms are the cGAN
                run.cgn.f_bg.load_state_dict(other.state_dict())
            found = []
            for _ in range(20):
                while run.state.values["samples"] < 64:
                    run.accumulate()
                found.append(run.update()[name])
            rows.append({"loss": name, "first update": found[0], "last update": found[-1]})
            print(f"{name}: {found}", file=sys.stderr, flush=True)
    print_table("each loss alone, 20 updates of 64 samples", rows)
    return rows


if __name__ == "__main__":
    main()
