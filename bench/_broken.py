"""Records and files as people have them, and the ways in which ``fuzz_readers.py`` breaks them."""

from __future__ import annotations

import copy
import csv
import datetime
import io
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PLAIN = {"prompt": "The capital of {} is", "target": "Rome", "subject": "France", "old": "Paris", "aliases": "Roma|Urbs",
         "rephrase": ["France's capital is"], "portability": ["The Louvre stands in => Rome"],
         "locality": "The capital of Spain is => Madrid", "id": "fr"}  # fmt: skip
REWRITE = {"prompt": "{} plays the", "relation_id": "P1", "target_new": {"str": "harp"}, "target_true": {"str": "flute"},
           "subject": "Ann Lee", "question": "What does Ann Lee play?"}  # fmt: skip
COUNTERFACT = [
    {"case_id": 1, "requested_rewrite": REWRITE, "paraphrase_prompts": ["Ann Lee, with her"],
     "neighborhood_prompts": ["Bo Day plays the"], "portability": {"New Question": "Is it big?", "New Answer": "yes"}},
    {"prompt": "Ann Lee plays the", "target_new": "harp", "subject": "Ann Lee", "ground_truth": "flute",
     "rephrase_prompt": "Ann Lee, with her", "locality_prompt": "Bo Day plays the", "locality_ground_truth": "oboe"},
]  # fmt: skip
ZSRE = {"subject": "Ann", "src": "Where was Ann?", "rephrase": "Ann was where?", "alt": "Oslo", "answers": ["Rome"],
        "loc": "nq question: who sings", "loc_ans": "Bo", "portability": {"New Question": "a?", "New Answer": "b"}}  # fmt: skip
KNOWEDIT = {"subject": "Ann", "prompt": "The home of Ann is", "target_new": "Rome", "ground_truth": [["Paris"]],
            "portability": {"Reasoning": [{"prompt": "Her land is", "ground_truth": [["Italy", "IT"]]}],
                            "Subject_Aliasing": [{"prompt": "A.'s home is", "ground_truth": [["Rome", "Roma"]]}]},
            "locality": {"Forgetfulness": [{"prompt": ["Her job is"], "ground_truth": ["baker"]}]}}  # fmt: skip
HOP = {"question": "What does Ann Lee play?", "cloze": "Ann Lee plays the", "answer": "harp", "answer_alias": ["lyre"]}
MQUAKE = {"case_id": 5, "requested_rewrite": [REWRITE], "questions": ["What is her thing made of?"], "new_answer": "wood",
          "new_answer_alias": ["timber"], "single_hops": [HOP], "new_single_hops": [HOP]}  # fmt: skip
ASKED = [{"test_queries": [{"prompt": "The mother of Ann of Lee is", "subject_id": "Q9", "query_type": "regular",
                            "answers": [{"value": "Eve", "aliases": ["E. L."]}]}]}]  # fmt: skip
RIPPLE = {"edit": {"prompt": "The gender of Ann of Lee is male.", "subject_id": "Q9", "relation": "GENDER",
                   "original_fact": {"prompt": "The gender of Ann of Lee is female."}},
          "Relation_Specificity": ASKED, "Subject_Aliasing": ASKED, "Compositionality_I": ASKED}  # fmt: skip
PASSAGES = [
    {"id": "a", "text": "Zorb is in Peru. It is red.", "paraphrases": ["In Peru is Zorb."],
     "queries": {"memorization": [{"prompt": "Zorb is in", "target": "Peru", "aliases": ["PE"]}],
                 "semantic": [{"text": "Where? Peru", "target": "Peru"}]}},
    {"train_context": "Zorb is in Peru.", "paraphrases": ["x"], "mem_input": ["Zorb is in"], "mem_target": ["Peru"],
     "gen_input": [], "gen_target": [], "hard_gen_input": ["a"], "hard_gen_target": ["b"]},
]  # fmt: skip
WIDE = [{"name": "France", "capital": "Paris", "capital_aliases": "Paname|Lutetia", "size": 7, "subject_aliases": "Gaul"},
        {"name": "Peru", "capital": "Lima", "capital_aliases": None, "size": None, "subject_aliases": ""}]  # fmt: skip
LONG = [{"subject": "France", "relation": "capital", "object": "Paris", "object_aliases": ["Paname"]},
        {"subject": "Peru", "relation": "size", "object": 7, "object_aliases": []}]  # fmt: skip
TEXTS = [{"text": "One. Two.", "n": 1}, {"text": None}, "Three."]
TEMPLATES = "{subject} [was|were] born while {his} parents lived in {value}.\n{subject's} {attribute} is {value}.\n"
QUESTIONS = "capital\tWhere is {subject} governed?\nsize\tHow large is {subject}? Answer:\n"

ODD: list[Any] = [
    None, "", "  ", 0, -1, 3.5, 1e308, float("nan"), float("inf"), True, [], [[]], [None], [""], {}, {"a": 1}, [{}], ["x", "y"],
    "{}", "{subject}", "{value}", "\udc00", "\ud800x", "\0", "x|", "=>", "a => b => ", "nq question:", "\u2028", "\x1b[2J",
    "a" * 400, "é", "日本", "\u202e", ";", "\t", "\n", "'", '"', "1,5", "=1+1", [["x"], [3]], 10**30, "x y " * 120,
    [[[[["x"]]]]],
]  # fmt: skip
_DEEP: Any = "x"
for _ in range(120):
    _DEEP = [_DEEP]
ODD.append(_DEEP)


def spots(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything inside."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield (*path, key)
        yield from spots(one, (*path, key))


def changed(rng: random.Random, value: Any) -> Any:
    """With one to three things replaced, removed, renamed or doubled."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        found = [path for path in spots(value) if len(path) < 12]
        if not found:
            return value
        *way, last = rng.choice(found)
        inside = value
        for key in way:
            inside = inside[key]
        kind = rng.random()
        if kind < 0.6:
            inside[last] = copy.deepcopy(rng.choice(ODD))
        elif kind < 0.75:
            del inside[last]
        elif kind < 0.9 and isinstance(inside, dict):
            name = rng.choice(ODD)
            inside[name if isinstance(name, str) else last.upper()] = inside.pop(last)
        elif isinstance(inside, list):
            inside.append(inside[last])
    return value


def garbled(rng: random.Random, data: bytes) -> bytes:
    """With some bytes flipped, cut, doubled or put in."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, other = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        kind = rng.randrange(6)
        if kind == 0 and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + data[other:]
        elif kind == 2:
            data = data[:other] + data[at:]
        elif kind == 3:
            data = data[:at]
        else:
            odd = rng.choice(
                (
                    *b"{}[]\"',;|\t\r\n\\\0\x80\xff<>:=+",
                    "\ufeff",
                    "\\ud800",
                    "{subject}",
                    "{value}",
                    "null",
                    "NaN",
                    "\t",
                )
            )
            data = data[:at] + (bytes([odd]) if isinstance(odd, int) else odd.encode()) + data[at:]
    return data


def as_lines(rng: random.Random, records: list[Any]) -> bytes:
    ascii_only = rng.random() < 0.5
    lines = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def as_json(rng: random.Random, records: list[Any]) -> bytes:
    whole: Any = rng.choice((records, {"data": records}, records[0] if records else records))
    return json.dumps(whole, indent=rng.choice((None, 1))).encode("utf-8", "surrogatepass")


def as_table(rng: random.Random, records: list[Any], mark: str) -> bytes:
    rows = [record for record in records if isinstance(record, dict)]
    names = list(dict.fromkeys(str(key) for row in rows for key in row))
    cells = [["" if row.get(name) is None else _cell(row.get(name)) for name in names] for row in rows]
    if rng.random() < 0.2 and cells:
        rng.choice(cells).append("more")
    if rng.random() < 0.2:
        names, cells = ["", *names], [[str(number), *row] for number, row in enumerate(cells)]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=mark, lineterminator=rng.choice(("\n", "\r\n")))
    writer.writerows([names, *cells])
    return out.getvalue().encode("utf-8", "surrogatepass")


def _cell(value: Any) -> str:
    return "|".join(map(str, value)) if isinstance(value, list) else str(value)


def as_parquet(rng: random.Random) -> bytes:
    """A table of facts whose columns are of any type, some of them with values that Python cannot hold."""
    far = rng.choice((0, 3, 1 << 40, 1 << 60, -(1 << 60)))
    columns: list[Callable[[], Any]] = [
        lambda: pa.array(["Paris", "Lima", None]),
        lambda: pa.array(["Paris", "Lima", "Paris"]).dictionary_encode(),
        lambda: pa.array([1, None, 3]),
        lambda: pa.array([1.5, float("nan"), float("inf")]),
        lambda: pa.array([0, far % (1 << 31), 5], pa.date32()),
        lambda: pa.array(
            [0, far, 5], pa.timestamp(rng.choice(("ms", "us", "ns")), tz=rng.choice((None, "UTC", "+01:00")))
        ),
        lambda: pa.array([0, far, 5], pa.duration(rng.choice(("ms", "us", "ns")))),
        lambda: pa.array([0, far % 86_400_000_000_000, 5], pa.time64("ns")),
        lambda: pa.array([1, 2, None]).cast(pa.decimal128(30, 2)),
        lambda: pa.array([b"a", b"\xff", None]),
        lambda: pa.array([["x", "y"], [], None]),
        lambda: pa.array([{"a": far}, None, {"a": 1}], pa.struct([("a", pa.timestamp("ms"))])),
        lambda: pa.array([True, None, False]),
        lambda: pa.array([datetime.date(2000, 1, 1), None, None]),
        lambda: pa.nulls(3),
        lambda: pa.array(["a\0b", "x", "y" * 500]),
    ]
    made = {"name": pa.array(["France", "Peru", rng.choice(("Chile", None, "Peru"))])}
    for number in range(rng.randrange(1, 5)):
        made[rng.choice(("capital", "size", f"c{number}", "capital_aliases", "subject_aliases"))] = rng.choice(
            columns
        )()
    out = io.BytesIO()
    pq.write_table(pa.table(made), out, compression=rng.choice(("none", "snappy", "zstd")))
    return out.getvalue()
