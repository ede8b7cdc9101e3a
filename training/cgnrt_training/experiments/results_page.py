"""`docs/results.md` as text: a pure function of `docs/results.json`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cgnrt.sampling import MECHANISMS

from . import evaluate_text, paper, table1_text
from .plots import AXIS_TITLES, MECHANISM_TITLES, ROW_TITLES, in_order
from .table3_4 import text as table3_4_text
from .tables import markdown, percent

VARIANTS = ("colored", "double-colored", "wildlife")  # in the paper's order
AT_LEAST = "original+cgn"
_DIGEST = re.compile("[0-9a-f]{17,}")
_HEAD = """\
# Results

This page is generated from [results.json](results.json) by `cgnrt-train results`; edit neither by hand, except for the
`notes` in the JSON. Accuracies are per cent, `mean ± sample standard deviation` over the seeds; without ±, of one.
"Paper" is Sauer and Geiger, "Counterfactual Generative Networks", ICLR 2021.

On MNIST the train domain is train[:50000], where colours or textures follow the digit's label, and the test domain
train[50000:], where they are random, so that only the shape tells the label; 10 % is chance. Nothing of the test
domain, and no digits without their cues, reached a generator or a classifier (the oracle apart). Choices between runs
are made on the train domain and on counterfactuals; where one was not, it is said below.
"""
_ROWS = {
    "original": "the train domain alone",
    "irm-2": "invariant risk minimisation over environments with 90 and 100 % correlation",
    "irm-5": "the same over 90, 92.5, 95, 97.5 and 100 %",
    "lntl": "learning not to learn: features from which the colour cannot be told",
    "original+gan": "and samples of a conditional GAN without mechanisms, cues as in the train domain",
    "original+cgn": "and counterfactuals, streamed while the classifier trains; the label is the shape's",
    "cgn-only": "counterfactuals without the train domain",
    "colour-jitter": "random hue, gain, offset and channel order: what one would try first",
    "background-mix": "images blended with other images' backgrounds, likewise",
    "pooled-5": "the five environments of IRM as one training set, without IRM's penalty",
    "oracle": "real digits with random cues: the bound, which no other row may see",
}


def page(content: Mapping[str, Any]) -> str:
    """The whole page. Experiments that are not in `content` are left out."""
    parts = [*_HEAD.strip().split("\n\n"), *_notes(content, "general")]
    sections = (
        ("table2", _table2),
        ("fig7", _fig7),
        ("table5", _table5),
        ("fig6", _fig6),
        ("table1", _table1),
        ("table3", _table3),
        ("table4", _table4),
        ("evaluate", _evaluate),
    )
    for name, section in sections:
        if name in content:
            parts += section(content[name])
            if name in content.get("plots", ()):
                parts.append(f"![{_TITLES[name]}](results/{name}.png)")
            parts += _notes(content, name)
            parts += _records(content.get("runs", {}).get(name, ()))
    return "\n\n".join(_wrapped(part.strip("\n")) for part in parts) + "\n"


def _wrapped(part: str) -> str:
    """A paragraph in lines of the documents' width; tables, headings, commands, lists and pictures as they are."""
    if part.startswith(("|", "#", "    ", "- ", "!")):
        return part
    # A line that begins with ">" or "1." would be a quotation or a list: it stays with the word before it.
    joined = re.sub(r" (?=(?:[>#*+-]|\d+\.)(?: |$))", "\N{NO-BREAK SPACE}", part)
    lines = textwrap.fill(joined, 120, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\N{NO-BREAK SPACE}", " ")


_TITLES = {
    "table2": "Table 2: classifiers that ignore what is spurious",
    "fig7": "Fig. 7: how many counterfactuals, and which",
    "table5": "Table 5: reading off which signal is causal",
    "fig6": "Fig. 6: a beta-VAE does not disentangle",
    "table1": "Table 1: which losses the CGN of natural images needs",
    "table3": "Table 3: shape or texture",
    "table4": "Table 4: the background's part",
    "evaluate": "How good the counterfactuals are",
}


def _table2(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield f"## {_TITLES['table2']}"
    rows = in_order([row for of_rows in results.values() for row in of_rows])
    yield (
        "One network for all rows; how many steps it took is in the records below. *Train* is the accuracy on the data "
        "that the row trains on, *test* on the test domain; *difference* is ours minus the paper's, in points of test "
        "accuracy."
    )
    yield "\n".join(f"- **{ROW_TITLES.get(row, row)}**: {_ROWS.get(row, row)}" for row in rows)
    for variant in sorted(results, key=_place):
        of_rows = results[variant]
        yield f"### {variant}"
        lines = [["row", "train", "paper", "test", "paper", "difference"]]
        for row in in_order(list(of_rows)):
            train, test, theirs = of_rows[row]["train"], of_rows[row]["test"], paper.table2(variant, row)
            line = [ROW_TITLES.get(row, row), percent(train)]
            line += [f"{theirs[0]:.1f}" if theirs else "", f"**{percent(test)}**"]
            # Adding 0 makes a rounded -0.0 a 0.
            line += (
                [f"{theirs[1]:.1f}", f"{round(100 * test[0] - theirs[1], 1) + 0:+.1f}"]
                if theirs
                else ["", ""]
            )
            lines.append(line)
        yield markdown(lines)
        if "irm" in paper.TABLE2[variant] and {"irm-2", "irm-5"} & set(of_rows):
            yield (
                "The paper's table has one IRM figure for this variant; its text does not say for which number of "
                "environments, so it stands beside both."
            )
        yield from _comparison(variant, of_rows)
    yield from _audits(results)


def _comparison(variant: str, rows: Mapping[str, Any]) -> Iterator[str]:
    """What the table says, in words that are computed from it."""
    tests = {row: 100 * rows[row]["test"][0] for row in rows}
    sentences = []
    if AT_LEAST in tests:
        ours = tests[AT_LEAST]
        if "oracle" in tests:
            sentences.append(f"The oracle is {_points(tests['oracle'] - ours)} Original + CGN.")
        simple = {row: tests[row] for row in ("colour-jitter", "background-mix") if row in tests}
        if simple:
            best = max(simple, key=lambda row: simple[row])
            sentences.append(
                f"The better of the simple augmentations, {ROW_TITLES[best].lower()}, is "
                f"{_points(simple[best] - ours)} Original + CGN."
            )
    pairs = {row: theirs for row in tests if (theirs := paper.table2(variant, row)) is not None}
    lower = [row for row in in_order(list(pairs)) if round(tests[row] - pairs[row][1], 1) < 0]
    if lower:
        texts = [f"{ROW_TITLES[row]} by {pairs[row][1] - tests[row]:.1f}" for row in lower]
        sentences.append(f"Lower than in the paper: {', '.join(texts)} points.")
    elif pairs:
        sentences.append("No row is lower than in the paper.")
    if len(pairs) > 1:
        mine = sorted(in_order(list(pairs)), key=lambda row: -tests[row])
        theirs_order = sorted(in_order(list(pairs)), key=lambda row: -pairs[row][1])
        text = " > ".join(ROW_TITLES[row] for row in mine)
        same = [pairs[row][1] for row in mine] == [pairs[row][1] for row in theirs_order]
        end = (
            "as in the paper"
            if same
            else f"the paper's: {' > '.join(ROW_TITLES[row] for row in theirs_order)}"
        )
        sentences.append(f"Order by test accuracy: {text} ({end}).")
    if sentences:
        yield " ".join(sentences)


def _points(difference: float) -> str:
    """A signed difference in words."""
    return f"{abs(difference):.1f} points {'above' if difference >= 0 else 'below'}"


def _audits(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    found = {
        variant: {row: of_rows[row]["audit"] for row in in_order(list(of_rows)) if "audit" in of_rows[row]}
        for variant, of_rows in sorted(results.items(), key=lambda pair: _place(pair[0]))
    }
    if not any(found.values()):
        return
    yield "### Audit of the rows"
    yield (
        "`cgnrt.audit` of each row's first seed with the variant's plan, %. *Follows*: of counterfactuals whose three "
        "labels are independent, how often the answer is that mechanism's label (an answer that ignores a mechanism "
        "meets its label by chance in 10 %). *Changes*: how often the answer changes when that mechanism's label alone "
        "is replaced. A classifier of shapes follows the shape and changes with nothing else. The audit asks about the "
        "generator's images, so masks that do not fit their label count against the row. 95 % intervals are in "
        "results.json."
    )
    for variant, rows in found.items():
        if not rows:
            continue
        head = [
            f"{variant}",
            *(f"follows {name}" for name in MECHANISMS),
            *(f"changes with {name}" for name in MECHANISMS),
        ]
        lines = [head]
        for row, audit in rows.items():
            values = [audit[kind][name] for kind in ("follows", "changes") for name in MECHANISMS]
            lines.append([ROW_TITLES.get(row, row), *map(_rate, values)])
        yield markdown(lines)


def _fig7(results: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {_TITLES['fig7']}"
    fixed = results.get("fixed", {})
    others = ", ".join(f"{AXIS_TITLES.get(axis, axis)}: {value:,}" for axis, value in fixed.items())
    yield (
        f"On {results['variant']}, one axis moved at a time, every point with the same number of training steps. "
        + (f"What an axis does not move stays at {others}. " if others else "")
        + "The first two axes are the paper's (App. A.3, a plot without a table); the third is ours: how many images "
        "are composed for each run of the mechanisms when parts are kept in a pool. *Held-out* is accuracy on "
        "counterfactuals of another seed, which is what choices are made by; *seconds* are one classifier's training."
    )
    for axis, points in results["axes"].items():
        lines = [[AXIS_TITLES.get(axis, axis), "test", "held-out", "train", "seconds"]]
        for value in sorted(points, key=int):
            point = points[value]
            cells = [
                percent(point[kind]) if kind in point else "" for kind in ("test", "counterfactual", "train")
            ]
            seconds = f"{point['seconds'][0]:.0f}" if "seconds" in point else ""
            lines.append([f"{int(value):,}", *cells, seconds])
        yield markdown(lines)


def _table5(results: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {_TITLES['table5']}"
    yield (
        f"App. H, on {results['variant']}: three classifiers, each trained on counterfactuals alone with the label of "
        "one mechanism, and so invariant to the other two. Measured in environments where the cues follow the digit to "
        "90, 95 and 100 %, the classifier whose accuracy does not change has learnt the causal signal. Which that is "
        "need not be known beforehand. The paper's figures are in brackets."
    )
    accuracy = {name: results["accuracy"][name] for name in MECHANISMS if name in results["accuracy"]}
    lines = [["correlation", *(f"{MECHANISM_TITLES.get(name, name)} classifier" for name in accuracy)]]
    for correlation in sorted(next(iter(accuracy.values())), key=float):
        line = [f"{100 * float(correlation):g} %"]
        for name, pairs in accuracy.items():
            theirs = paper.TABLE5.get(name, {}).get(f"{float(correlation):g}")
            shown = (
                f" ({theirs[0]:.2f} ± {theirs[1]:.2f})"
                if theirs and results["variant"] == "double-colored"
                else ""
            )
            line.append(percent(pairs[correlation], 2) + shown)
        lines.append(line)
    lines.append(["spread, points", *(f"{100 * results['spread'][name]:.2f}" for name in accuracy)])
    yield markdown(lines)
    causal = results["causal"]
    yield f"Read as causal, by the smallest spread: **{MECHANISM_TITLES.get(causal, causal)}**."


def _fig6(results: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {_TITLES['fig6']}"
    yield (
        "App. A.1: a beta-VAE trained on the train domain of colored MNIST. The paper shows a picture; here are "
        "numbers too. Each latent is traversed while the others stay at an image's code. The colour of every decoded "
        "picture is named by the nearest class colour, its digit by the nearest masks of the train domain. If one axis "
        "were colour and another shape, one of the two would change along it and the other would not."
    )
    for latents in sorted(results, key=int):
        found = results[latents]
        lines = [["latent", "KL, nats", "colour", "digit", "both", "colour alone", "digit alone"]]
        for k, axis in enumerate(found["axes"]):
            if not axis["active"]:
                continue
            kinds = ("colour", "digit", "both", "colour_alone", "digit_alone")
            lines.append([str(k + 1), f"{axis['kl']:.2f}", *(f"{100 * axis[kind]:.0f} %" for kind in kinds)])
        yield f"### {latents} latents"
        unused = sum(not axis["active"] for axis in found["axes"])
        yield (
            f"Of all pairs of two pictures along one traversal ({found['images']} images), how many differ in what"
            + (f" ({unused} latents that the VAE does not use are left out):" if unused else ":")
        )
        yield markdown(lines)
        yield (
            f"Of pictures decoded from the prior, {100 * found['agreement']:.1f} % have the colour that belongs to "
            f"their digit in the train domain ({100 * found['agreement_of_data']:.1f} % of the data itself, by the "
            f"same measure; about 10 % if the two were independent)."
        )


def _table1(results: Mapping[str, Mapping[str, float | None]]) -> Iterator[str]:
    yield f"## {_TITLES['table1']}"
    yield (
        "Sec. 4.2: composites with one label for the three mechanisms. *Right class* is the share in which the judge "
        "sees that class. Judge, classes, size and training differ from the paper's ImageNet at 256 px, so compare the "
        "order of the rows, not the figures. *Mean mask* is ± its standard deviation over classes. Re-CGN is Bagad et "
        "al. (2022), an independent reproduction."
    )
    yield table1_text.table(results)
    yield (
        "The sheet is Fig. 33: masks at the start of training, without the shape, texture and background loss, and "
        "with all losses."
    )


def _table3(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield f"## {_TITLES['table3']}"
    yield from table3_4_text.parts("table3", results)


def _table4(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield f"## {_TITLES['table4']}"
    yield from table3_4_text.parts("table4", results)


def _evaluate(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield f"## {_TITLES['evaluate']}"
    yield evaluate_text.ABOUT
    yield evaluate_text.table(results)
    yield evaluate_text.composition(results)


def _notes(content: Mapping[str, Any], name: str) -> list[str]:
    notes = content.get("notes", {}).get(name, [])
    return [notes] if isinstance(notes, str) else list(notes)


def _records(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for record in records:
        machine = record["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        seeds = ", ".join(map(str, record["seeds"]))
        settings = ", ".join(f"{name} {value}" for name, value in _flat(record["settings"]))
        cores = f"{machine['cores']} core{'s' * (machine['cores'] != 1)}"
        extensions = ", ".join(machine.get("matrix_extensions", [])) or "none"
        lines = [
            f"Run: seed{'s' * (len(record['seeds']) > 1)} {seeds}; {_duration(record['wall_s'])} in all on "
            f"{machine['cpu']}, {cores} (matrix extensions: {extensions}); {versions}; commit "
            f"{record['commit']}.",
            f"    {record['command']}",
            f"Settings: {settings}." if settings else "",
        ]
        if len(records) > 1:
            lines[0] += f" It gave {', '.join(record['covers'])}."
        yield from filter(None, lines)


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat({f"{name}.{key}": part for key, part in value.items()})
            continue
        text = str(value)
        # A digest says which file it was; its first digits do.
        yield name, f"`{text[:12]}`" if _DIGEST.fullmatch(text) else text


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _place(variant: str) -> tuple[int, str]:
    return (VARIANTS.index(variant) if variant in VARIANTS else len(VARIANTS), variant)


def _rate(rate: Mapping[str, Any]) -> str:
    value = rate.get("value")
    return "" if value is None else f"{100 * value:.1f}"
