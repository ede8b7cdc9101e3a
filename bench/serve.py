"""What a server gives of the rate of the generator in it, what it does when asked for too much, and for nonsense.

Client and server share the cores of one machine here, so that what the client takes is the server's loss.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from report import ROOT, median_ratio, print_table, write_json
from serve_clients import ASKERS, images_per_second, serving
from serve_fuzz import fuzz
from serve_overload import overload

import cgnrt

COUNT = 64
AT_LEAST = {"http": 0.5, "grpc": 0.6, "grpc, shared memory": 0.8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, default=ROOT / "plans" / "double-colored.plan")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each transport in a round")
    parser.add_argument("--overload", type=float, default=60.0, metavar="SECONDS", help="0 leaves it out")
    parser.add_argument("--fuzz", type=int, default=10_000, metavar="N", help="requests over each transport")
    parser.add_argument("--no-grpc", action="store_true", help="HTTP alone")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    grpc = not arguments.no_grpc

    result: dict[str, Any] = {"throughput": throughput(arguments, grpc=grpc)}
    print_table(f"{COUNT} uint8 images a request, 4 clients", result["throughput"])
    if arguments.overload > 0:
        result["overload"] = overload(arguments.plan, COUNT, seconds=arguments.overload)
        print_table("Four times as many requests as it can answer, HTTP", result["overload"])
    if arguments.fuzz > 0:
        result["fuzz"] = fuzz(arguments.plan, arguments.fuzz, grpc=grpc)
        print_table("Fuzzed requests", result["fuzz"])
    write_json("serve", result, arguments.json)


def throughput(arguments: argparse.Namespace, *, grpc: bool) -> list[dict[str, Any]]:
    """Images a second in the process and over each transport, in turn."""
    generator = cgnrt.Generator(arguments.plan, dtype="uint8", layout="NHWC", device="cpu")
    generator.sample(COUNT, 0)
    names = [name for name in ASKERS if grpc or name == "http"]
    rates: dict[str, list[float]] = {"in process": [], **{name: [] for name in names}}
    with serving(arguments.plan, "--device", "cpu", grpc=grpc) as server:
        for _ in range(arguments.rounds):
            end, made, started = time.perf_counter() + arguments.seconds, 0, time.perf_counter()
            while time.perf_counter() < end:
                generator.sample(COUNT, made)
                made += 1
            rates["in process"].append(made * COUNT / (time.perf_counter() - started))
            for name in names:
                make = ASKERS[name]
                rate = images_per_second(
                    lambda make=make: make(server, COUNT),
                    COUNT,
                    concurrency=4,
                    seconds=arguments.seconds,
                )
                rates[name].append(rate)
    return [
        {
            "transport": name,
            "images/s": statistics.median(found),
            "of the rate in process": median_ratio(found, rates["in process"]),
            "at least": AT_LEAST.get(name, 1),
        }
        for name, found in rates.items()
    ]


if __name__ == "__main__":
    main()
