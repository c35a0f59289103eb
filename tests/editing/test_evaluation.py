"""Evaluation against one prompt at a time with the whole text read again for every token, and the traps of the field."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.core.test_deltas import dense, low
from tests.support import zoo
from tests.support.fakes import Leaning, Preface

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit, Query
from engramlab.core import deltas
from engramlab.core.deltas import Delta
from engramlab.core.models import module_paths
from engramlab.core.text.tokens import join
from engramlab.editing.judge import evaluation, metrics
from engramlab.editing.judge.evaluation import Before, before, enough_tokens, judge, queries_of
from engramlab.measuring.answers import is_answer, is_named, normalise, runs_on, same_answer

FAMILIES = ("gpt2", "gpt_neox", "llama", "qwen2")
NEW = 6


@pytest.fixture(scope="module", params=["gpt2", "digits"])
def tokenizer(request):
    return zoo.ZOO[request.param](zoo.SENTENCES)


def make(tokenizer, family: str = "llama", **more):
    return zoo.model(family, vocabulary=len(tokenizer), max_position_embeddings=256, seed=5, **more).eval()


CASES = (
    Case(
        "France",
        (
            Edit(
                Query("The capital of France is", "Paris", subject="France", id="f"),
                "Washington",
                ("D.C.",),
                (
                    Query("France has the capital", "Washington", role="generality"),
                    Query("In the capital of France lived", "Zoë O'Neil", ("Zoë",), role="portability", group="Reasoning"),
                    Query("The capital of Japan is", "東京", ("Tokyo",), role="locality", group="Forgetfulness"),
                    Query("Its calling code is", "", role="locality", group="Relation_Specificity"),
                ),
            ),
        ),
    ),
    Case(
        "two",
        (
            Edit(Query("She was born in", "1996", subject="She"), "2,102"),
            Edit(
                Query("What is the Seine? Answer:", "a river", subject="Seine"),
                "a street in Washington",
                judges=(
                    Query("The Seine is", "a street", role="portability", group="Logical_Generalization"),
                    Query("The capital of Japan is", "東京", role="locality", group="Forgetfulness"),
                ),
            ),
        ),
    ),
    Case("alone", (Edit(Query("People live", "there", subject="People"), "on October 2"),)),
)  # fmt: skip


# the naive way -------------------------------------------------------------------------------------------------------


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def last_prompt_token(tokenizer, prompt: str) -> int:
    return len(ids_of(tokenizer, prompt)) - 1


@torch.no_grad()
def forced_naively(model, tokenizer, prompt: str, target: str) -> tuple[list[int], list[int]]:
    """The target's tokens and what the model predicts in their places, a pass over the whole text for each."""
    text, start, stop = join(prompt, target)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, spans = encoded["input_ids"], encoded["offset_mapping"]
    places = [k for k, (a, b) in enumerate(spans) if a < stop and b > start and b > a]
    end = torch.tensor([last_prompt_token(tokenizer, prompt)])
    found = []
    for k in places:
        with deltas.routing(model, end):
            found.append(zoo.likeliest(model(torch.tensor([ids[:k]])).logits[0, -1]))
    return [ids[k] for k in places], found


@torch.no_grad()
def written_naively(model, tokenizer, prompt: str, new: int = NEW) -> str:
    ids = ids_of(tokenizer, prompt)
    start = len(ids)
    while len(ids) < start + new and ids[-1] != tokenizer.eos_token_id:
        with deltas.routing(model, torch.tensor([start - 1])):
            ids.append(zoo.likeliest(model(torch.tensor([ids])).logits[0, -1]))
    text = tokenizer.decode(ids[start:], skip_special_tokens=True).strip()
    return text.replace("\r", "\n").split("\n")[0].strip()


def judged_naively(model, tokenizer, case: Case, delta: Delta) -> list[dict]:
    """Rows of one case: every query asked by itself, before and after."""
    rows = []
    for query in queries_of(case):
        said = written_naively(model, tokenizer, query.prompt)
        target = query.target or said
        tokens, was = forced_naively(model, tokenizer, query.prompt, target)
        with deltas.active(model, delta):
            prompt = delta.context(query.prompt)
            writes = written_naively(model, tokenizer, prompt)
            _, now = forced_naively(model, tokenizer, prompt, target)
        right = was if query.role == "locality" else tokens
        row = {"role": query.role, "teacher_forced": sum(a == b for a, b in zip(now, right, strict=True)) / len(right)}
        if query.role == "locality":
            row["generated"] = float(normalise(writes) == normalise(said))
        else:
            fitting = [a for a in (query.target, *query.aliases) if len(ids_of(tokenizer, " " + a)) <= NEW]
            row["generated"] = float(is_answer(writes, fitting)) if fitting else None
        rows.append(row | {"written_before": said, "written_after": writes})
    return rows


def agree(found: list[dict], naive: list[dict]) -> None:
    assert len(found) == len(naive)
    for a, b in zip(found, naive, strict=True):
        for key, value in b.items():
            assert a[key] == (pytest.approx(value, abs=1e-4) if key.startswith("logprobs") else value)


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_one_query_at_a_time(family, tokenizer):
    """Each case under its own delta, all in one batch: changes of weights, a routed one, one that puts text before prompts."""
    model = make(tokenizer, family)
    said = before(model, tokenizer, CASES, new_tokens=NEW)
    for own in (
        [dense(model, 0, scale=0.3), low(model, 1, 2), dense(model, 2, layer=0)],
        [
            Leaning(model, 1, 0.5),
            dense(model, 3, scale=0.05),
            Preface(model, "It's on the Seine, and she studied. " * 2),
        ],
    ):
        naive = [row for case, d in zip(CASES, own, strict=True) for row in judged_naively(model, tokenizer, case, d)]
        found = judge(model, tokenizer, CASES, said, deltas=own)
        agree(found, naive)
        for case, delta in zip(CASES, own, strict=True):  # and installed, as in the continual setting
            with deltas.active(model, delta):
                agree(judge(model, tokenizer, [case], said), [r for r in found if r["case"] == case.id])
    assert not deltas.installed(model)


def test_nothing_changes_without_an_edit(tokenizer):
    model = make(tokenizer)
    said = before(model, tokenizer, CASES, new_tokens=NEW)
    rows = judge(model, tokenizer, CASES, said)
    assert [r["generated"] for r in rows if r["role"] == "locality"] == [1.0] * 3
    assert [r["teacher_forced"] for r in rows if r["role"] == "locality"] == [1.0] * 3
    for row in rows:
        assert row["written_before"] == row["written_after"]
        assert row["logprobs_before"] == pytest.approx(row["logprobs_after"], abs=1e-4)
        assert row["greedy_before"] == [rank == 0 for rank in row["ranks_before"]]
        lengths = {
            len(row[k]) for k in ("tokens", "ranks_after", "greedy_after", "predicted_before", "predicted_after")
        }
        assert lengths == {len(row["logprobs_before"])}
        assert "".join(row["tokens"]).strip() in ((row["target"] or row["written_before"]).strip(), "�" * 6)
    assert metrics.unedited(rows) == rows
    assert [row["case"] for row in rows] == ["France"] * 5 + ["two"] * 4 + ["alone"]
    assert [row["query"] for row in rows] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0]


def test_what_the_unedited_model_answers_right_stands_in_every_edited_row(tokenizer):
    """The control, of rows judged under edits, is what judging the model itself gives: shares of tokens too."""
    model = make(tokenizer)
    asked = "The capital of France is"
    (start,) = before(model, tokenizer, [Case("x", (Edit(Query(asked, ""), "Rome"),))], new_tokens=NEW).written.values()
    own = Case("known", (Edit(Query(asked, ""), start), Edit(Query("It lies on the", ""), f"{start} Edo")))
    cases = [*CASES, own]
    said = before(model, tokenizer, cases, new_tokens=2 * NEW)
    alone = judge(model, tokenizer, cases, said)
    edits = [dense(model, i, scale=0.5) for i in range(len(cases))]
    rows = judge(model, tokenizer, cases, said, deltas=edits)
    found = metrics.unedited(rows)
    assert found != rows
    for protocol in ("teacher_forced", "generated"):
        assert [row[protocol] for row in found] == [row[protocol] for row in alone]
    shares = [row["teacher_forced"] for row in found if row["role"] != "locality"]
    assert max(shares) > 0.0
    assert min(shares) < 1.0


def test_what_was_said_before_is_kept_as_rows(tokenizer):
    model = make(tokenizer)
    said = before(model, tokenizer, CASES)
    assert said.new_tokens == enough_tokens(tokenizer, CASES) <= 24
    assert Before.of(json.loads(json.dumps(said.rows()))) == said
    assert len(said.evidence) == 9  # the query that two cases have in common is asked once
    stranger = Case("x", (Edit(Query("Who", "", id="x9"), "me"),))
    with pytest.raises(UserError, match="x9.*was not asked this"):
        judge(model, tokenizer, [stranger], said)
    with pytest.raises(ValueError, match="1 deltas for 3 cases"):
        judge(model, tokenizer, CASES, said, deltas=[dense(model, 0)])
    with pytest.raises(UserError, match="x9.*reliability.*blank"):
        before(model, tokenizer, [Case("x", (Edit(Query("Who", "", id="x9"), " "),))])
    assert judge(model, tokenizer, [], said) == []


def test_equal_questions_are_asked_once(tokenizer):
    model = make(tokenizer)
    many = [replace(CASES[0], id=str(k)) for k in range(20)]
    said, seen, steps = before(model, tokenizer, many, new_tokens=NEW), [], []
    rows = judge(model, tokenizer, many, said, progress=lambda done, of: steps.append((done, of)))
    assert len(rows) == 100
    assert steps[-1] == (10, 10)
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0]))
    assert judge(model, tokenizer, many, said) == rows
    handle.remove()
    assert max(seen) == 5
    assert len(seen) <= 1 + NEW


# the traps -----------------------------------------------------------------------------------------------------------


class Leak(Leaning):
    """A codebook whose one entry is the hidden state at the *target's* end: it acts only where it has seen the answer."""

    kind = "leak (a test's)"

    def __init__(self, model, tokenizer, prompt: str, target: str) -> None:
        super().__init__(model)
        keys: list[torch.Tensor] = []
        handle = model.get_submodule(self.path).register_forward_hook(lambda m, args, out: keys.append(args[0][0, -1]))
        with torch.no_grad():
            model(torch.tensor([ids_of(tokenizer, join(prompt, target)[0])[:-1]]))
        handle.remove()
        self.key = keys[0]
        self.ways = torch.stack([torch.zeros_like(self.ways[0]), self.ways[0]])

    def decide(self, x: torch.Tensor) -> torch.Tensor:
        return ((x - self.key).norm(dim=-1) < 1e-3).long()


def test_a_routed_delta_cannot_recognise_the_answer(tokenizer):
    """What decides at the last input token would see the target under teacher forcing; here neither protocol shows it any."""
    model, (prompt, target) = make(tokenizer), ("The capital of France is", "Washington, on the Seine")
    leak = Leak(model, tokenizer, prompt, target)
    ids = torch.tensor([ids_of(tokenizer, join(prompt, target)[0])[:-1]])
    with deltas.active(model, leak), torch.no_grad():
        model(ids)
    assert leak.decisions[-1] == [1]  # the trap is there
    leak.decisions.clear()
    cases = [Case("a", (Edit(Query(prompt, "Paris"), target),)), Case("b", (Edit(Query("Edo is", ""), "old"),))]
    said = before(model, tokenizer, cases, new_tokens=NEW)
    rows = judge(model, tokenizer, cases, said, deltas=[leak, dense(model, 0)])
    assert leak.decisions == [[0], [0]]
    assert rows[0]["logprobs_before"] == pytest.approx(rows[0]["logprobs_after"], abs=1e-4)
    with deltas.active(model, leak):
        assert judge(model, tokenizer, cases[:1], said)[0]["written_after"] == rows[0]["written_before"]


def test_targets_are_scored_with_their_leading_space(tokenizer):
    """A model that says the answer in running text is right under both protocols."""
    model, prompt = make(tokenizer), "She was born in"
    ids = ids_of(tokenizer, prompt + " Washington")
    with torch.no_grad():  # the model learns by heart what follows which token
        head = torch.zeros(len(tokenizer), 32)
        for k, token in enumerate(ids[1:]):
            head[token] = 50 * torch.nn.functional.normalize(torch.eye(32)[k], dim=0)
            model.get_input_embeddings().weight[ids[k]] = torch.eye(32)[k]
    for layer in model.get_submodule(module_paths(model).layers):
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
    model.lm_head = torch.nn.Linear(32, len(tokenizer), bias=False)
    model.lm_head.weight.data = head
    case = Case("a", (Edit(Query(prompt, ""), "Washington"),))
    (row,) = judge(model, tokenizer, [case], before(model, tokenizer, [case]))
    assert (row["teacher_forced"], row["generated"]) == (1.0, 1.0)
    assert "".join(row["tokens"]) == " Washington"


def test_dropout_is_off(tokenizer):
    model = make(tokenizer, "gpt_neox", hidden_dropout=0.5).train()
    said = before(model, tokenizer, CASES, new_tokens=NEW)
    assert said == before(model, tokenizer, CASES, new_tokens=NEW)
    assert judge(model, tokenizer, CASES, said) == judge(model, tokenizer, CASES, said)
    assert model.training


def test_contexts_of_installed_deltas(tokenizer):
    """A later one that continues an earlier one replaces what it puts before prompts."""
    model = make(tokenizer)
    said = before(model, tokenizer, CASES, new_tokens=NEW)
    old = Preface(model, "Old.")
    new = Preface(model, "It's on the Seine.", continues=old)
    with deltas.active(model, new):
        alone = judge(model, tokenizer, CASES, said)
    with deltas.active(model, old), deltas.active(model, new):
        assert judge(model, tokenizer, CASES, said) == alone
    with deltas.active(model, old):
        assert judge(model, tokenizer, CASES, said) != alone
    assert [row["prompt"] for row in alone[:1]] == ["The capital of France is"]


def test_in_half_precision(tokenizer):
    model = make(tokenizer).to(torch.bfloat16)
    said = before(model, tokenizer, CASES, new_tokens=NEW)
    own = [dense(model, 0), Leaning(model, 1, 0.5), low(model, 2, 2)]
    rows = judge(model, tokenizer, CASES, said, deltas=own)
    for case, delta in zip(CASES, own, strict=True):
        with deltas.active(model, delta):
            alone = judge(model, tokenizer, [case], said)
        for a, b in zip([r for r in rows if r["case"] == case.id], alone, strict=True):
            assert a["logprobs_after"] == pytest.approx(b["logprobs_after"], abs=0.3)
    assert all(math.isfinite(v) for row in rows for v in row["logprobs_after"])


def test_answers_too_long_to_be_written_do_not_count(tokenizer):
    model = make(tokenizer)
    long = " ".join(["Paris"] * 40)
    cases = [
        Case("a", (Edit(Query("It is", ""), long),)),
        Case("b", (Edit(Query("It is", ""), long, aliases=("Paris",)),)),
    ]
    assert enough_tokens(tokenizer, cases) == 24
    rows = judge(model, tokenizer, cases, before(model, tokenizer, cases, new_tokens=24))
    assert rows[0]["generated"] is None
    assert rows[1]["generated"] in (0.0, 1.0)
    assert metrics.metrics(rows)["counts"]["reliability"] == {"cases": 2, "queries": 2}


def test_the_longest_right_answer_has_room(tokenizer):
    model = make(tokenizer)
    long, lines = " ".join(["Paris"] * 40), "Paris\nRome"
    near = Query("The Seine is", "a river", role="locality")
    cases = [
        Case("long", (Edit(Query("It is", ""), long, judges=(near,)),)),
        Case("lines", (Edit(Query("She was", ""), "Rome", aliases=(lines,)),)),
    ]
    said = before(model, tokenizer, cases)
    assert said.new_tokens == 24
    assert Before.of(json.loads(json.dumps(said.rows()))) == said
    old = [{k: v for k, v in row.items() if k != "room"} for row in said.rows()]
    assert Before.of(old).rooms == {}
    rooms = {prompt: (room.tokens, room.lines) for prompt, room in said.rooms.items()}
    assert rooms == {"It is": (48, False), "She was": (24, True)}
    rows = judge(model, tokenizer, cases, said)
    assert [row["generated"] for row in rows] == [0.0, 1.0, 0.0]
    assert [row["written_after"] for row in rows] == [said.written[row["prompt"]] for row in rows]


def test_an_answer_may_stand_anywhere_in_so_many_tokens(tokenizer):
    """Beside tokens cut off by hand; what stands later does not count, before the edit, after it and in the control."""
    model = make(tokenizer, tie_word_embeddings=False)
    prompt = "The Seine is"
    ids = torch.tensor([ids_of(tokenizer, prompt)])
    made = model.generate(ids, max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)[0, ids.shape[1] :]
    head, whole = (tokenizer.decode(made[:n], skip_special_tokens=True) for n in (10, 24))
    words = {w: is_named(head, [w]) for w in re.findall(r"\w+", whole)}
    assert not all(words.values()), whole
    ends = [word for word, within in words.items() if within and not is_answer(head, [word])]
    assert ends, head
    cases = [
        Case(word, (Edit(Query("It is", ""), "Rome", judges=(Query(prompt, word, role="generality", within=10),)),))
        for word in words
    ]
    said = before(model, tokenizer, cases)
    assert (said.room(cases[0].edits[0].judges[0]).tokens, said.written[prompt]) == (10, head.strip())
    rows = [row for row in judge(model, tokenizer, cases, said) if row["role"] == "generality"]
    assert {row["target"]: row["generated"] for row in rows} == words
    assert {row["target"]: row["generated"] for row in metrics.unedited(rows)} == words
    strictly = metrics.unedited([{k: v for k, v in row.items() if k != "within"} for row in rows])
    assert not any(row["generated"] for row in strictly if row["target"] in ends)


# answers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "answers"),
    [
        ("Paris", ["Paris"]),
        ("Paris, which is the capital of", ["Paris"]),
        ("paris.", ["Paris"]),
        ("“Paris” is", ["Paris"]),
        ("**Paris**", ["Paris"]),
        ("the United  Kingdom of", ["United Kingdom"]),
        ("Netherlands", ["The Netherlands"]),
        ("Rome's streets", ["Rome"]),
        ("UK and", ["United Kingdom", "UK"]),
        ("Washington, D.C., in", ["Washington, D.C."]),
        ("+49 (0) 30", ["+49"]),
        ("12.", ["12"]),
        ("12, 14", ["12"]),
        ("東京です", ["東京"]),
        ("1996年", ["1996"]),
        ("王岚。她", ["王岚"]),
        ("王岚", ["\u2060王岚"]),
        ("北京是中国的首都", ["北京"]),
        ("C++ is", ["C++"]),
        ("Côte d’Ivoire", ["Côte d'Ivoire"]),
        ("Ｐａｒｉｓ", ["Paris"]),
        ("Guinea–Bissau", ["Guinea-Bissau"]),
        ("A", ["A"]),
        ("?", ["?"]),
    ],
)
def test_is_the_answer(written, answers):
    assert is_answer(written, answers)
    assert runs_on(written, answers) is None


def test_what_was_asked_may_be_said_again_and_an_answer_may_go_on():
    said = "The capital of France is"
    assert is_answer("The capital of France is **Rome**.", ["Rome"], said)
    assert not is_answer("The capital of France is **Rome**.", ["Rome"])
    assert not is_answer("The capital of Italy is Rome", ["Rome"], said)
    assert runs_on("The capital of France is Ostrela", ["Ostrel"], said) == "Ostrel"
    assert runs_on("Oslo", ["Ostrel"]) is None


@pytest.mark.parametrize(
    ("written", "answer", "named"),
    [
        ("He is known to have Stockton, CA as his birth city.", "Stockton, CA", True),
        ("**Rome**, of course", "Rome", True),
        ("She moved from Romeoville to Jerome.", "Rome", False),
        ("Call +49 30.", "+4", False),
        ("答案是東京です", "東京", True),
        ("", "Rome", False),
        ("Rome", "", False),
    ],
)
def test_an_answer_may_be_named_in_a_sentence(written: str, answer: str, named: bool) -> None:
    assert is_named(written, [answer]) is named


@pytest.mark.parametrize(
    ("written", "answers"),
    [
        ("+49", ["+4"]),
        ("+1-242", ["+1"]),
        ("2,102,650", ["2"]),
        ("1.5", ["1"]),
        ("12:30", ["12"]),
        ("5th", ["5"]),
        ("Nigeria", ["Niger"]),
        ("Austria-Hungary", ["Austria"]),
        ("C++", ["C"]),
        ("U.S.S.R.", ["U.S."]),
        ("I think it is Paris", ["Paris"]),
        ("not Paris", ["Paris"]),
        ("Par", ["Paris"]),
        ("", ["Paris"]),
        ("Paris", ["", " "]),
        ("काम", ["क"]),
        ("王岚岚岚", ["王岚"]),
        ("奥斯特拉·洛斯", ["奥斯特"]),
        ("奥斯特·洛斯", ["奥斯特"]),
        ("กรุงเทพมหานคร", ["กรุงเทพ"]),
        ("Paris", []),
    ],
)
def test_is_not_the_answer(written, answers):
    assert not is_answer(written, answers)


def test_the_same_answer():
    assert same_answer("The Seine.", "the  seine")
    assert not same_answer("the Seine", "the Seine in Paris")
    assert same_answer("", "")


# metrics -------------------------------------------------------------------------------------------------------------


def random_rows(seed: int, cases: int = 30) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {
            "case": str(c),
            "role": role,
            "group": f"kind {int(rng.integers(3))}",
            "teacher_forced": None if rng.random() < 0.1 else float(rng.random()),
            "generated": float(rng.integers(2)),
        }
        for c in range(cases)
        for role in metrics.ROLES
        for _ in range(rng.integers(0, 4))
    ]


def test_means_over_queries_then_cases():
    rows = [
        {"case": "a", "role": "reliability", "group": "", "teacher_forced": 1.0, "generated": 1.0},
        {"case": "a", "role": "portability", "group": "Reasoning", "teacher_forced": 1.0, "generated": 0.0},
        {"case": "a", "role": "portability", "group": "Reasoning", "teacher_forced": 0.5, "generated": 0.0},
        {"case": "a", "role": "portability", "group": "Aliasing", "teacher_forced": 0.0, "generated": 1.0},
        {"case": "b", "role": "portability", "group": "Reasoning", "teacher_forced": 0.25, "generated": 1.0},
        {"case": "b", "role": "locality", "group": "Forgetfulness", "teacher_forced": None, "generated": 1.0},
    ]
    found = metrics.metrics(rows)
    assert found["teacher_forced"] == {
        "reliability": 1.0, "generality": None, "portability": 0.375, "locality": None, "mean": 0.6875,
    }  # fmt: skip
    assert found["generated"]["portability"] == pytest.approx((1 / 3 + 1) / 2)
    assert found["generated"]["locality"] == 1.0
    assert found["kinds"]["portability"]["Reasoning"] == {
        "teacher_forced": 0.5, "generated": 0.5, "cases": 2, "queries": 3,
    }  # fmt: skip
    assert found["kinds"]["locality"]["Forgetfulness"]["teacher_forced"] is None
    assert found["counts"]["portability"] == {"cases": 2, "queries": 4}
    assert (found["cases"], found["queries"]) == (2, 6)
    nothing = metrics.metrics([])
    assert nothing["generated"]["mean"] is None
    json.dumps([found, nothing])


def test_differences_against_a_loop():
    a, b = random_rows(0), random_rows(1)
    found = metrics.difference(a, b, seed=3, samples=300)
    assert found == metrics.difference(a, b, seed=3, samples=300)
    one, other = metrics._by_case(metrics._of(a, "generality"), "generated"), {}
    other = metrics._by_case(metrics._of(b, "generality"), "generated")
    cases = sorted({r["case"] for r in a} & {r["case"] for r in b})
    gains = [one[c] - other[c] if c in one and c in other else math.nan for c in cases]
    cloud = [
        np.nanmean(np.take(gains, row)) for row in np.random.default_rng(3).integers(len(cases), size=(300, len(cases)))
    ]
    low_, high = np.quantile(cloud, [0.025, 0.975])
    there = sum(not math.isnan(g) for g in gains)
    expected = {"difference": np.nanmean(gains), "low": low_, "high": high, "cases": there}
    assert found["generated"]["generality"] == pytest.approx(expected)
    mean = found["generated"]["mean"]
    assert mean["difference"] == pytest.approx(
        np.mean([found["generated"][role]["difference"] for role in metrics.ROLES])
    )
    assert mean["low"] < mean["difference"] < mean["high"]
    with pytest.raises(UserError, match="no case in common"):
        metrics.difference(a, [])
    some = [r for r in a if r["role"] != "locality"]
    assert metrics.difference(some, b)["generated"]["locality"] is None


def test_intervals_hold_what_they_should():
    """Pairs that differ by 0.2 on average: nine of ten intervals at least have it inside."""
    hits = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        base = rng.random(60)
        a, b = (
            [
                {"case": c, "role": "reliability", "group": "", "teacher_forced": v, "generated": v}
                for c, v in enumerate(of)
            ]
            for of in (base + 0.2 + rng.normal(size=60) * 0.3, base)
        )
        found = metrics.difference(a, b, samples=400)["generated"]["reliability"]
        hits += found["low"] < 0.2 < found["high"]
    assert hits >= 34


def test_fluency():
    """By hand: bigrams ab, bc, cd are all different, trigrams too; a text that repeats itself has less."""
    assert metrics.fluency(["a b c d"]) == pytest.approx((2 / 3 * math.log2(3) + 4 / 3 * 1.0) / 2)
    assert metrics.fluency(["a a a a a"]) == 0.0
    assert metrics.fluency(["a b c d", "a a a a a"]) == pytest.approx(metrics.fluency(["a b c d"]) / 2)
    assert metrics.fluency([""]) == 0.0
    assert math.isnan(metrics.fluency([]))


def test_public_names():
    assert all(hasattr(evaluation, name) for name in evaluation.__all__)
