"""Every reader on damaged and hostile input: python benchmarks/fuzz.py [SECONDS] [READER ...] [--atheris]

A reader may do two things: read, or refuse with an XaiError whose text is one line.  Anything else is a crash, and so is an input that
takes longer than SLOW seconds of this process.  Each reader gets a third of SECONDS (60) from each of three sources:

  mutations   valid files and strings, damaged: bits, bytes, words of the format, pieces left out, doubled and spliced
  hypothesis  what a grammar of the format makes, and bytes
  atheris     libFuzzer, led by the coverage of our own code, from the same seeds; only with --atheris and where it is installed

The table goes into benchmarks/fuzz.md between its two markers.  Nothing of a model string's own code is run: python: is left out, and no
socket opens.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fuzz_readers import Read, Reader, readers
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from xaitools.errors import XaiError

SLOW = 5.0
TABLE = Path(__file__).with_suffix(".md")
MARKS = ("<!-- table -->", "<!-- end of table -->")
SOURCES = ("mutations", "hypothesis", "atheris")


@dataclass
class Count:
    inputs: int = 0
    read: int = 0
    crashes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, bytes] = field(default_factory=dict)
    slowest: float = 0.0

    def add(self, read: Read, data: bytes) -> None:
        start = time.process_time()
        try:
            read(data)
            what = "read"
        except XaiError as error:
            what = "" if len(str(error).splitlines()) == 1 else "a refusal of several lines"
        except Exception as error:  # that is what is looked for
            frame = [each for each in traceback.extract_tb(error.__traceback__) if "xaitools" in each.filename][-1:]
            what = f"{type(error).__name__} in {Path(frame[0].filename).name}, {frame[0].name}" if frame else type(error).__name__
        took = time.process_time() - start
        self.slowest = max(self.slowest, took)
        if took > SLOW:
            what = f"longer than {SLOW:g} s"
        self.inputs += 1
        self.read += what == "read"
        if what not in ("", "read"):
            self.crashes[what] += 1
            self.examples.setdefault(what, data)


@contextmanager
def offline() -> Iterator[None]:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network while fuzzing")

    before = socket.socket.connect
    socket.socket.connect = refuse  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        socket.socket.connect = before  # type: ignore[method-assign]


# -- what makes inputs


def mutated(reader: Reader, dice: random.Random) -> bytes:
    data = bytearray(dice.choice(reader.seeds))
    for _ in range(1 + int(dice.expovariate(0.5))):
        place = dice.randrange(len(data) + 1)
        length = min(len(data) - place, 1 + int(dice.expovariate(0.1)))
        match dice.randrange(8):
            case 0 if length:
                data[place] ^= 1 << dice.randrange(8)
            case 1 if length:
                data[place] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
            case 2:
                del data[place : place + length]
            case 3:
                data[place:place] = data[place : place + length]
            case 4:
                del data[place:]
            case 5 if reader.words:
                data[place:place] = dice.choice(reader.words)
            case 6 if reader.words:
                data[place : place + length] = dice.choice(reader.words)
            case _:
                other = dice.choice(reader.seeds)
                begin = dice.randrange(len(other) + 1)
                data[place : place + length] = other[begin : begin + length]
    return bytes(data)


def by_mutations(reader: Reader, seconds: float, start: int = 0) -> Count:
    count, dice, end = Count(), random.Random(start), time.monotonic() + seconds
    for data in reader.seeds:
        count.add(reader.read, data)
    while time.monotonic() < end:
        count.add(reader.read, mutated(reader, dice))
    return count


def by_hypothesis(reader: Reader, seconds: float, start: int = 0) -> Count:
    count, end = Count(), time.monotonic() + seconds
    inputs = st.binary(max_size=200) | st.sampled_from(list(reader.seeds)).flatmap(
        lambda data: st.integers(0, len(data)).flatmap(lambda cut: st.binary(max_size=20).map(lambda more: data[:cut] + more + data[cut:]))
    )
    inputs = inputs if reader.made is None else reader.made | inputs
    while time.monotonic() < end:
        start += 1

        @seed(start)
        @settings(max_examples=200, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(inputs)
        def one(data: bytes) -> None:
            count.add(reader.read, data)
            if time.monotonic() > end:
                raise TimeoutError

        with suppress(TimeoutError):
            one()
    return count


def by_atheris(name: str, seconds: float) -> Count:
    """In a process of its own, which libFuzzer ends; that prints how many inputs it had and what crashed."""
    code = f"from benchmarks.fuzz import under_atheris; under_atheris({name!r}, {int(max(1, seconds))})"
    done = subprocess.run([sys.executable, "-c", code], cwd=TABLE.parents[1], capture_output=True, text=True, errors="replace")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"atheris gave nothing for {name}: {done.stderr[-2000:]}")
    told = json.loads(lines[-1])
    return Count(
        told["inputs"], told["read"], Counter(told["crashes"]), {k: bytes.fromhex(v) for k, v in told["examples"].items()}, told["slowest"]
    )


def under_atheris(name: str, seconds: int) -> None:
    import atheris

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, offline():
        reader, count = readers(Path(folder) / "files")[name], Count()
        _instrument(atheris)
        seeds = Path(folder) / "seeds"
        seeds.mkdir()
        for number, data in enumerate(reader.seeds):
            (seeds / str(number)).write_bytes(data)
        words, dictionary = Path(folder) / "words", list[str]()
        for word in reader.words:
            dictionary.append('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n')
        words.write_text("".join(dictionary))
        end = time.monotonic() + seconds

        def one(data: bytes) -> None:
            count.add(reader.read, data)
            if time.monotonic() > end:  # libFuzzer would leave without a word
                examples = {key: value.hex() for key, value in count.examples.items()}
                print(json.dumps({**vars(count), "examples": examples}), flush=True)
                os._exit(0)

        limits = ("-rss_limit_mb=0", f"-timeout={seconds + 60}")  # 0 seconds would not be "none": whatever takes 1 ended everything
        atheris.Setup([sys.argv[0], f"-dict={words}", "-max_len=8192", *limits, str(seeds)], one)
        atheris.Fuzz()


def _instrument(atheris: Any) -> None:
    """Every function of ours that reads; what they call of others is not followed."""
    for module in [each for name, each in sys.modules.items() if name.startswith("xaitools.") and each is not None]:
        for value in list(vars(module).values()):
            if isinstance(value, types.FunctionType) and value.__module__ == module.__name__:
                value.__code__ = atheris.instrument_func(value).__code__


# -- the table


def main(arguments: Sequence[str]) -> None:
    seconds = float(next((each for each in arguments if each.replace(".", "").isdigit()), "60"))
    torch.set_num_threads(1)
    sources = SOURCES if "--atheris" in arguments else SOURCES[:2]
    lines = ["| reader | " + " | ".join(sources) + " | read | refused in one line | crashes |", "|---|" + "---:|" * (len(sources) + 3)]
    total = Counter[str]()
    with tempfile.TemporaryDirectory() as folder, offline():
        known = readers(Path(folder) / "files")
        chosen = [each for each in arguments if each in known] or list(known)
        for name in chosen:
            counts = {
                "mutations": by_mutations(known[name], seconds / len(sources)),
                "hypothesis": by_hypothesis(known[name], seconds / len(sources)),
            }
            if "atheris" in sources:
                counts["atheris"] = by_atheris(name, seconds / len(sources))
            crashes = sum((each.crashes for each in counts.values()), Counter[str]())
            inputs, read = (sum(getattr(each, what) for each in counts.values()) for what in ("inputs", "read"))
            cells = [f"{counts[source].inputs:,}" for source in sources] + [f"{each:,}" for each in (read, inputs - read - crashes.total())]
            lines.append(f"| {name} | {' | '.join(cells)} | {crashes.total():,} |")
            print(lines[-1], f"  slowest {max(each.slowest for each in counts.values()):.2f} s", flush=True)
            for what, times in crashes.most_common():
                example = next(each.examples[what] for each in counts.values() if what in each.examples)
                print(f"    {times} x {what}: {example[:120]!r}", flush=True)
            total.update({source: counts[source].inputs for source in sources} | {"read": read, "crashes": crashes.total()})
    every = sum(total[source] for source in sources)
    cells = [f"{total[source]:,}" for source in sources] + [f"{total['read']:,}", f"{every - total['read'] - total['crashes']:,}"]
    lines.append(f"| **{every:,} inputs** | {' | '.join(cells)} | {total['crashes']:,} |")
    print(lines[-1])
    if len(chosen) == len(known) and TABLE.is_file():
        before, rest = TABLE.read_text().split(MARKS[0])
        TABLE.write_text(f"{before}{MARKS[0]}\n" + "\n".join(lines) + f"\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


if __name__ == "__main__":
    main(sys.argv[1:])
