"""How README and docs are run: what is made small, what takes longer, and what is not run, with the reason.

A rule names a command by how it begins, or a Python block by how a line of it begins, on one page alone if the page's
name comes first.
"""

from __future__ import annotations

from page_inputs import IMAGENETTE

# Options that are replaced where a command has them, and added where it does not. `--set` is always added.
SMALL = {
    "cgnrt sample": "-n 16",
    "cgnrt bench": "--seconds 0.02 --batch 32",
    "cgnrt generate": "-n 64 --shard-size 32 --processes 1",
    "cgnrt bank plans/": "-n 40",
    "cgnrt audit plans/": "-n 10",
    "cgnrt audit --photos": "-n 8 --size 64 --batch 16",
    "cgnrt real": "-n 4 --size 64",
    "cgnrt serve": "--host 127.0.0.1 --port 0 --grpc-port 0",
    "cgnrt-train imagenet-random": "--resolution 32 --channel-width 4 --classes 10",
    "cgnrt-train imagenet ": "--steps 1 --set train.pseudo_batch=2 --set train.micro_batch=2 --set log.sheet_samples=1",
    "cgnrt-train mnist": "--steps 2 --set train.batch_size=4",
    "cgnrt-train gan": "--steps 2 --set batch_size=4",
    "cgnrt-train classifier": "--steps 2 --set batch_size=8",
    "cgnrt-train table2": "--steps 2 --set batch_size=10 --audit 4 --jobs 0 --seeds 1",
    "cgnrt-train table2 --data DATA --textures": "--rows original,original+gan,original+cgn",
    "cgnrt-train table2 --data MNIST --textures": "--rows original,original+gan,original+cgn",
    "cgnrt-train table5": "--plan plans/double-colored.plan --steps 2 --set batch_size=10 --jobs 0 --seeds 1",
    "cgnrt-train fig7": "--plan plans/wildlife.plan --steps 2 --set batch_size=10 --jobs 0 --reuse 1,4",
    "cgnrt-train fig6": "--steps 2 --set batch_size=8",
    "cgnrt-train table1": "--samples 4 --steps 1 --set train.pseudo_batch=1 --set log.sheet_samples=1",
    "cgnrt-train table3-4": "--plan plans/imagenette64.plan --epochs 0.1 --set train.batch_size=4 --audit 10 "
    "--places 20 --seeds 1",
    "cgnrt-train ensemble": "--epochs 0.1 --set train.batch_size=4",
    "cgnrt-train evaluate": "--samples 6",
    "cgnrt-train saliency": "--steps 2 --set train.width=2 --set train.batch_size=4 --set log.sheet_photos=1",
    "cgnrt-train cgan": "--images 4 --set train.batch=2 --set generator.width=4 --set features.size=32 "
    "--set discriminator.channels=8 --set probe.samples=4 --set probe.steps=1 --set log.sheet_samples=1 "
    "--set log.calibrate_samples=4",
    "cgnrt-train natural": "--set saliency.train.steps=2 --set saliency.train.batch_size=2 "
    "--set saliency.log.sheet_photos=1 --set cgan.train.images=4 --set cgan.train.batch=2 --set cgan.generator.width=4 "
    "--set cgan.features.size=32 --set cgan.discriminator.channels=8 --set cgan.probe.samples=4 "
    "--set cgan.probe.steps=1 --set cgan.log.sheet_samples=1 --set cgan.log.calibrate_samples=4 "
    "--set cgn.train.updates=1 --set cgn.train.pseudo_batch=2 --set cgn.train.micro_batch=2 "
    "--set cgn.log.sheet_samples=1",
    "cgnrt-train score": "--samples 4",
}
# What is replaced in the Python blocks of a page.
REPLACED = {
    "devices.md": {'device="cuda"': 'device="cpu"', "n=1_000_000": "n=512", "pool=4096": "pool=64"},
    "ensemble.md": {'imagenette64.plan", 1000)': 'imagenette64.plan", 10)'},
}
CLASSES = {"ensemble.md": IMAGENETTE, "results.md": IMAGENETTE}  # of the photos; cat and dog elsewhere
PLANS = {
    "names.md": {"u2netp.plan"},
    "sheets.md": {"cgn.plan"},
}  # that no command of the page makes: the user's
EXIT = {
    "cgnrt-train fetch DATA": 1,  # the digits here are not MNIST's, and it says so
    # So small a CGN loses too much in half precision, and it says so.
    "cgnrt-export cgn.pth -o cgn.plan --precision fp32 --store fp16": 1,
}

WARNINGS = (  # of other libraries, where their own defaults are used
    "ignore:unclosed file",
    "ignore:String specifications for transformations are deprecated",
    "ignore:`use_\\w+` is deprecated",
)
NOT_RUN = {
    "make ": "builds or tests this checkout",
    "pip ": "installs packages",
    "docker ": "needs Docker and a network",
    "tritonserver ": "needs Triton: tests/serve/test_triton_server.py runs it",
    "torchrun ": "needs several GPUs: tests/training/test_ensemble_command.py runs two processes",
    "python bench/": "measures for minutes: tests/bench runs the parts, and below are its options",
    "cgnrt-train fetch DATA --only mnist --from": "downloads: tests/training/test_fetch.py has a server of its own",
    "cgnrt-export cgn.plan -o with-engines.plan --tensorrt": "needs an NVIDIA GPU",
    "cgnrt generate /shared/cgn.plan": "needs a Ray cluster",
    "audit.md: python my_script.py": "a script of the reader's",
    "cgnrt audit --in9": "needs ImageNet-9: tests/real/test_known_sets.py draws such folders",
    "cgnrt audit --cue-conflict": "needs Cue Conflict: tests/real/test_known_sets.py draws such folders",
    "# needs: runs/ensemble/ensemble.pt of ImageNet's classes": "needs both: tests/real draws such folders",
    "results.md: cgnrt-train ": "the record of a run of hours: tests/training runs each job",
    "# needs: bg_challenge/": "needs both: tests/real/test_known_sets.py draws such folders",
    "# needs: an NVIDIA GPU": "tests marked gpu run the same",
    "# needs: tritonclient, and Triton with the model": "needs Triton: tests/serve/test_triton_server.py asks it",
}
# Run by `make test-all` alone: they take seconds to minutes each, or libraries that only it installs; and commands that
# need what these make. Without the export of U2-Net another plan finds objects.
EXTENDED = {
    "cgnrt-train ": "trains",
    "cgnrt-export ": "traces, converts and compares networks",
    "cgnrt sample cgn.plan": "after an export",
    "own-images.md: cgnrt sheet cgn.plan": "after an export",
    "training-imagenet.md: cgnrt sheet": "after an export",
    "# needs: runs/ensemble/": "after a training",
    "# mine.py": "after a training",
    "cgnrt audit plans/imagenette64.plan mine:": "after a training",
    "ensemble.md: cgnrt audit --photos": "after a training",
    "cp runs/": "after a training",
    "# needs: lightning": "its library",
    "# needs: wids": "its library",
    "cgnrt generate plans/double-colored.plan -n 10_000 -o out-ray": "Ray",
}
