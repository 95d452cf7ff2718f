"""protein_ss's templates, windows, notes and scores, in both forms."""

import json
from collections import Counter

import pytest
from task_cases import Bytes, protein_row

from model.tokenizer import WorldTokenizer
from tasks import registry
from tasks.catalog.protein_ss import reduced
from tasks.example import Example, TaskError
from tasks.guesses import guess_scores
from tasks.scoring import Prediction
from tasks.sources import Files
from tasks.splits import load_split
from tasks.task import Dropped

AFTER, INPLACE = registry.get("protein_ss"), registry.get("protein_ss_inplace")
TOKENIZER = Bytes()
INSTRUCTION = "Task: secondary structure of residues, by DSSP: H G I E B T S C.\n\n"
SHORT = {"Sequence": "MKTAYIAKQR", "Secondary_structure": "CHHHHTTEEC"}


def settings(task=AFTER, **changes):
    sizes = {"train_size": 1, "validation_size": 1, "min_residues": 4}
    return task.Settings(**sizes | ({"queries": 3} if task is AFTER else {}) | changes)


def build(row, task=AFTER, material=(), **changes):
    return task.builder(settings(task, **changes), TOKENIZER, material)(row)


def text(example):
    return TOKENIZER.decode(example.prompt)


def asked(example):
    """The numbers that a prompt asks for."""
    line = text(example).partition("counted from 1:\n")[2].partition("\n")[0]
    return [int(number) for number in line.split(",")]


def test_the_template_in_both_orders():
    sequence, queries = "Sequence:\nMKTAYIAKQR\n\n", "Queries, counted from 1:\n1,2,3\n\n"
    for order, body in (
        ("queries_last", sequence + queries),
        ("queries_first", queries + sequence),
    ):
        example = build(SHORT, order=order, region="prefix")
        assert text(example) == f"{INSTRUCTION}{body}Answer:\n"
        assert TOKENIZER.decode(example.answer) == "CHH"
        assert example.reference == "MKT"


@pytest.mark.parametrize("region", ["random", "prefix", "suffix"])
def test_the_answer_holds_the_states_of_the_residues_asked_for(region):
    row = protein_row(3, length=90)
    example = build(row, region=region, queries=20, min_residues=20)
    places = asked(example)
    assert len(set(places)) == len(places) == 20
    shown = row["Sequence"], row["Secondary_structure"]
    assert example.reference == "".join(shown[0][place - 1] for place in places)
    assert TOKENIZER.decode(example.answer) == "".join(shown[1][place - 1] for place in places)
    ends = {"prefix": list(range(1, 21)), "suffix": list(range(71, 91))}
    assert places == ends.get(region, places)


def test_random_queries_and_windows_reach_every_part_of_a_chain():
    rows = [protein_row(n, length=120) for n in range(60)]
    examples = [build(row, max_residues=30) for row in rows]
    starts = {
        row["Sequence"].index(text(e).split("\n")[3]) for row, e in zip(rows, examples, strict=True)
    }
    assert min(starts) < 15
    assert max(starts) > 75
    assert all(len(text(example).split("\n")[3]) == 30 for example in examples)
    assert {place for example in examples for place in asked(example)} == set(range(1, 31))


def test_a_window_keeps_residues_and_states_together():
    row = {"Sequence": "ACDEFGHIKL" * 9, "Secondary_structure": "HGIEBTSCHE" * 9}
    paired = dict(zip("ACDEFGHIKL", "HGIEBTSCHE", strict=True))
    example = build(row, max_residues=25, queries=9, min_residues=9)
    assert "".join(paired[residue] for residue in example.reference) == TOKENIZER.decode(
        example.answer
    )


@pytest.mark.parametrize("stride", [1, 3])
def test_in_place_every_residue_is_labelled_at_its_own_position(stride):
    example = build(SHORT, INPLACE, stride=stride)
    assert text(example) == f"{INSTRUCTION}Sequence:\nMKTAYIAKQR"
    begin = len(INSTRUCTION) + len("Sequence:\n")
    assert example.target_positions == tuple(range(begin, begin + 10, stride))
    assert TOKENIZER.decode(example.target_tokens) == "CHHHHTTEEC"[::stride]
    assert example.reference == "MKTAYIAKQR"[::stride]
    assert example.answer == ()


def test_labels_on_every_residue_leave_nothing_to_shuffle():
    with pytest.raises(ValueError, match=r"stride > 1 with control shuffled_future.*got 1"):
        settings(INPLACE, control="shuffled_future")
    assert settings(INPLACE, control="shuffled_future", stride=2)


def test_notes_fill_a_prompt_to_the_token():
    material = [protein_row(n, length=300) for n in range(50, 60)]
    row = protein_row(1)
    shown = [build(row, material=material, fill_to=2100, order=o) for o in AFTER.orders]
    for example in shown:
        assert len(example.prompt) == 2100
        notes = text(example).split("Note, another sequence:\n")[1:]
        residues = [note.split("\n\n")[0] for note in notes]
        assert all(
            any(other["Sequence"].startswith(note) for other in material) for note in residues
        )
        assert [len(note) for note in residues[:-1]] == [256] * (len(residues) - 1)
        assert len(set(residues)) == len(residues)
    assert shown[0].answer == shown[1].answer == build(row).answer
    last, first = (text(example) for example in shown)
    assert last.index("Sequence:") < last.index("Note,") < last.index("Queries,")
    assert first.index("Queries,") < first.index("Sequence:") < first.index("Note,")


def test_too_few_notes_are_told():
    with pytest.raises(TaskError, match=r"protein_ss: the notes are \d+ tokens too short to fill"):
        build(protein_row(1), material=[protein_row(2)], fill_to=3000)


def test_eight_states_reduce_to_three_as_rost_and_sander_have_it():
    assert reduced("HGIEBTSC") == "HHHEECCC"


def test_one_token_a_residue_and_a_state_with_the_vocabulary_of_world():
    world = WorldTokenizer()
    row = {"Sequence": "ACDEFGHIKL" * 10, "Secondary_structure": "HHHHEEEETT" * 10}
    after = AFTER.builder(settings(queries=48, min_residues=48), world, ())(row)
    assert len(after.answer) == 48
    assert [world.decode([token]) for token in after.answer] == list(world.decode(after.answer))
    inplace = INPLACE.builder(settings(INPLACE), world, ())(row)
    seen = [world.decode([inplace.prompt[place]]) for place in inplace.target_positions]
    assert "".join(seen) == row["Sequence"]
    assert world.decode(inplace.target_tokens) == row["Secondary_structure"]


def test_every_sign_of_a_loop_is_a_coil():
    row = SHORT | {"Secondary_structure": "~ -LPCHEGI"}
    assert TOKENIZER.decode(build(row, INPLACE).target_tokens) == "CCCCCCHEGI"


@pytest.mark.parametrize("task", [AFTER, INPLACE])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Secondary_structure": "CHH"}, "rows whose residues and states differ in number"),
        ({"Secondary_structure": "CHHHHTTEE?"}, "rows with states that DSSP does not have"),
        ({"Sequence": "MKTAyIAKQR"}, "chains with other characters than residues have"),
        ({"Sequence": "MKT", "Secondary_structure": "CHH"}, "chains under 4 residues"),
    ],
)
def test_rows_that_are_no_labelled_chain_are_left_out(task, changes, reason):
    assert build(SHORT | changes, task) == Dropped(reason)


@pytest.mark.parametrize("task", [AFTER, INPLACE])
def test_a_prompt_is_never_cut(task):
    length = len(build(SHORT, task).prompt)
    assert isinstance(build(SHORT, task, max_prompt_tokens=length), Example)
    assert build(SHORT, task, max_prompt_tokens=length - 1) == Dropped(
        f"prompts over {length - 1} tokens"
    )


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"order": "queries"}, "order is one of queries_last, queries_first must hold"),
        ({"queries": 5}, "1 <= queries <= min_residues = 4 must hold, got 5"),
        ({"region": "all"}, "region is one of random, prefix, suffix must hold"),
        ({"min_residues": 600}, "1 <= min_residues <= max_residues = 512 must hold, got 600"),
        ({"fill_to": 100}, "fill_to is 0 or at least max_prompt_tokens must hold, got 100"),
        ({"columns": {"sequence": "s"}}, "columns names fields among Sequence, Secondary_struct"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, rule):
    with pytest.raises(ValueError, match=rule):
        settings(**changes)


def test_each_residue_counts_once_in_eight_states_and_in_three():
    # Five residues right in one chain of nine, one in another of three: (5 + 1) / 12, not a mean
    # of means. Wrong within helix, strand or coil counts in three states.
    rows = [
        ("CHHHHTTEE", "CHHGHCTBC"),
        ("HEC", "TES"),
    ]
    scorer = INPLACE.scorer(settings(INPLACE), TOKENIZER)
    sums = Counter()
    for states, said in rows:
        row = {"Sequence": "ACDEFGHIK"[: len(states)], "Secondary_structure": states}
        example = build(row, INPLACE, min_residues=3)
        prediction = Prediction(tuple(TOKENIZER.encode(said)))
        hits = sum(a == b for a, b in zip(states, said, strict=True))
        sums.update({"correct": hits, "total": len(states)})
        sums.update(scorer(example, prediction))
    found = {
        metric.name: float(metric.value(*(sums[name] for name in metric.needs)))
        for metric in INPLACE.metrics
        if metric.pooled
    }
    assert found == {"q8_accuracy": 6 / 12, "q3_accuracy": 10 / 12}


def test_the_usual_state_of_a_residue_is_that_of_the_training_split(tmp_path, case_data):
    files = Files(train="protein/train.jsonl", validation="protein/validation.jsonl")
    asked = settings(INPLACE, train_size=50, validation_size=20, files=files)
    train, split = (
        load_split(INPLACE, asked, name, TOKENIZER, tmp_path, [case_data])
        for name in ("train", "validation")
    )
    found = guess_scores(INPLACE, asked, TOKENIZER, train, split)
    counts = Counter()
    for index in range(len(train)):
        example = train.example(index)
        counts.update(zip(example.reference, TOKENIZER.decode(example.target_tokens), strict=True))
    usual = {
        residue: max("BCEGHIST", key=lambda state: counts[residue, state])
        for residue in "ACDEFGHIKLMNPQRSTVWY"
    }
    hits = total = 0
    for index in range(len(split)):
        example = split.example(index)
        states = TOKENIZER.decode(example.target_tokens)
        hits += sum(usual[r] == s for r, s in zip(example.reference, states, strict=True))
        total += len(states)
    assert found["usual state of the residue"]["q8_accuracy"] == pytest.approx(hits / total)


def test_the_state_before_tells_much_of_a_run_and_little_of_a_draw(tmp_path, real_data):
    path = real_data / "protein_ss/validation.jsonl"
    if not path.is_file():
        pytest.skip(f"no real chains: {path} is absent")
    files = Files(train=str(path), validation=str(path))
    found = {}
    for region in ("random", "suffix"):
        chosen = settings(
            train_size=100,
            validation_size=25,
            files=files,
            region=region,
            queries=30,
            min_residues=30,
        )
        train, split = (
            load_split(AFTER, chosen, name, TOKENIZER, tmp_path, [])
            for name in ("train", "validation")
        )
        found[region] = guess_scores(AFTER, chosen, TOKENIZER, train, split)["the state before"]
        hits = 0
        for index in range(len(split)):
            states = TOKENIZER.decode(split.example(index).answer)
            hits += sum(a == b for a, b in zip(states, "H" + states, strict=False))
        assert found[region]["q8_accuracy"] == pytest.approx(hits / split.target_counts.sum())
    assert found["random"]["q8_accuracy"] < 0.45
    assert found["suffix"]["q8_accuracy"] > 0.6


def test_the_same_chain_under_two_names_feeds_one_split(tmp_path):
    rows = [protein_row(n) for n in range(40)]
    # Another structure of the same chain may have other states.
    others = [row | {"Secondary_structure": row["Secondary_structure"][::-1]} for row in rows]
    twice = rows + [row | {"PDB_ID": f"{n:04}_B"} for n, row in enumerate(others)]
    path = tmp_path / "one.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in twice), encoding="utf-8")
    files = Files(train=str(path), validation=str(path), test=str(path))
    asked = settings(INPLACE, train_size=15, validation_size=1, test_size=1, files=files)
    shown = []
    for name in ("train", "validation", "test"):
        split = load_split(INPLACE, asked, name, TOKENIZER, tmp_path / "cache", [])
        shown += [text(split.example(index)) for index in range(len(split))]
    assert len(set(shown)) == len(shown) == 17


def test_real_chains(tmp_path, real_data):
    folder = real_data / "protein_ss"
    if not folder.is_dir():
        pytest.skip(f"no real chains: {folder} is absent")
    files = Files(train=str(folder / "train.jsonl"), validation=str(folder / "validation.jsonl"))
    asked = settings(
        INPLACE, train_size=300, validation_size=150, files=files, min_residues=30, max_residues=200
    )
    train, split = (
        load_split(INPLACE, asked, name, TOKENIZER, tmp_path, [])
        for name in ("train", "validation")
    )
    rows = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    chains = [(row["Sequence"], row["Secondary_structure"], row) for row in rows]
    for index in range(20):
        example = split.example(index)
        states = TOKENIZER.decode(example.target_tokens)
        residues, labels, row = next(c for c in chains if example.reference in c[0])
        start = residues.index(example.reference)
        assert states == labels[start : start + len(states)]
        # The file reduces I, a thousandth of the residues, to C.
        three = row["Secondary_structure_q3"][start : start + len(states)]
        assert reduced(states.replace("I", "C")) == three
    found = guess_scores(INPLACE, asked, TOKENIZER, train, split)
    helices = TOKENIZER.decode(split.target_tokens.tolist()).count("H")
    assert found["majority"]["q8_accuracy"] == pytest.approx(helices / len(split.target_tokens))
    assert found["chance"]["q8_accuracy"] == pytest.approx(1 / 8, abs=0.01)
    assert 0.36 < found["usual state of the residue"]["q8_accuracy"] < 0.5
