"""The folder for `transformers`: loaded by a process that has none of the project's packages."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from arm_cases import SPEC, made, spec

from fstune.errors import InputError
from fstune.export.folder import write_folder
from fstune.export.hf_tokenizer import RWKVTokenizer
from fstune.export.weights import Exported, Place, write_pth
from model.config import ModelConfig
from model.future_seed import FutureSeed, Schedule
from model.generation import Decoding, generate
from model.initial import initialise
from model.mechanisms import registry
from model.mechanisms.learned_state.settings import LearnedState
from model.mechanisms.second_pass.settings import SecondPass
from model.tokenizer import for_vocabulary

CONFIG = ModelConfig(num_layers=3, width=32, vocab_size=256, head_size=16)
MECHANISMS = {
    "one": {
        "future_seed": FutureSeed(
            layer_start=1, gate="input", schedule=Schedule("linear", 0.5, 1.0), norm=True
        )
    },
    "two": {
        "learned_state": LearnedState(layer_start=1),
        "second_pass": SecondPass(gate="head", norm=True),
    },
}
TEXTS = ["L=12|M=__|R=34", "the quick brown fox jumps over", "é"]
NEW_TOKENS = 12

LOADED = f"""
import sys
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
folder, out = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
texts = {TEXTS!r}
found = {{}}
batch = tokenizer(texts, padding=True, return_tensors="pt")
tokens, mask = batch["input_ids"], batch["attention_mask"]
one = tokenizer(texts[0], return_tensors="pt")["input_ids"]
few = dict(max_new_tokens={NEW_TOKENS}, do_sample=False)
prompt = torch.zeros_like(mask)
prompt[:, :-4] = mask[:, :-4]
with torch.inference_mode():
    found["off"] = model(one).logits
    found["on"] = model(one, prompt_mask=torch.ones_like(one)).logits
    found["padded"] = model(tokens, attention_mask=mask, prompt_mask=mask).logits
    found["part"] = model(tokens, attention_mask=mask, prompt_mask=prompt).logits
    found["written"] = model.generate(**batch, **few)[:, tokens.shape[1]:]
    found["written_uncached"] = model.generate(**batch, **few, use_cache=False)[:, tokens.shape[1]:]
    found["written_off"] = model.generate(
        **batch, **few, prompt_mask=torch.zeros_like(mask))[:, tokens.shape[1]:]
    found["beams"] = model.generate(one, num_beams=3, **few)[:, one.shape[1]:]
    model.save_pretrained(out + ".folder")
    again = AutoModelForCausalLM.from_pretrained(out + ".folder", trust_remote_code=True)
    found["again"] = again(one, prompt_mask=torch.ones_like(one)).logits
labels = torch.where(prompt.bool() | ~mask.bool(), -100, tokens)
labels[2] = -100  # nothing stands before its first token
found["loss"] = model(tokens, attention_mask=mask, prompt_mask=prompt, labels=labels).loss.detach()
try:
    model(one, prompt_mask=torch.ones_like(one), labels=one)
except ValueError as error:
    assert "a mechanism has shown" in str(error)
else:
    raise AssertionError("a loss on tokens that the model was shown")
tokenizer.padding_side = "right"
try:
    model.generate(**tokenizer(texts, padding=True, return_tensors="pt"), **few)
except ValueError as error:
    assert "padded on the left" in str(error)
else:
    raise AssertionError("an answer after a pad")
for text, ids in zip(texts, batch["input_ids"], strict=True):
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
assert not {{name.split(".")[0] for name in sys.modules}} & {{"fstune", "model", "tasks"}}
np.savez(out, tokens=tokens, mask=mask, **found)
"""

DOCS = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
QUESTIONS = [
    {"question": "Which is hot?", "choices": {"text": ["ice", "fire"], "label": ["A", "B"]}},
    {"question": "2 + 1?", "choices": {"text": ["one", "two", "three"], "label": list("123")}},
]
HARNESS = """
import json
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from score import FutureSeedLM

found = {}
for name, kind in (("off", HFLM), ("on", FutureSeedLM)):
    model = kind("exported", trust_remote_code=True, dtype="float32", device="cpu")
    tasks = TaskManager(include_path=".", include_defaults=False)
    samples = simple_evaluate(model, tasks=["arc_local"], task_manager=tasks)["samples"]
    found[name] = [
        [sample["arguments"][place], sample["resps"][place][0][0]]
        for sample in samples["arc_local"] for place in range(len(sample["resps"]))
    ]
with open("found.json", "w") as file:
    json.dump(found, file)
"""


@pytest.fixture(scope="module", params=MECHANISMS)
def exported(request, tmp_path_factory):
    """A model in which every parameter takes part."""
    model = initialise(CONFIG, seed=3)
    acting = {
        name: registry.get(name).build(CONFIG, settings)
        for name, settings in MECHANISMS[request.param].items()
    }
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in [*model.parameters(), *torch.nn.ModuleDict(acting).parameters()]:
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    records = made(tmp_path_factory.mktemp("runs"), spec(tmp_path_factory.mktemp("spec"), SPEC))
    records.write_candidate(0, {"future_seed.alpha": 0.5})
    place = Place(records.trial(0), "variant", 0, "digest", 4, "validation")
    return Exported(place, 4, model, acting, None)


@pytest.fixture(scope="module")
def folder(exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "exported"
    write_folder(exported, folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    """What a process makes of the folder."""
    out = folder.with_name("found.npz")
    run(folder.parent, LOADED, str(folder), str(out))
    return {name: torch.from_numpy(value) for name, value in np.load(out).items()}


def run(place, script, *arguments):
    """Run a script in a process that sees what is installed, and a cache of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HOME": str(place / "home"), "HF_HUB_OFFLINE": "1"}
    environment |= {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def read(exported, tokens, mask=None, on=True, state=None):
    """The project's own pass."""
    acting = list(exported.acting.values()) if on else []
    with torch.inference_mode():
        return exported.model(tokens, state, mask, acting)


def assert_close(found, wanted):
    assert (found - wanted).abs().max() <= 1e-5 * wanted.std()


@pytest.mark.parametrize("on", [False, True])
def test_the_logits_are_the_models(exported, loaded, on):
    tokens = torch.tensor([list(TEXTS[0].encode())])
    logits_BTV, _ = read(exported, tokens, on=on)
    other_BTV, _ = read(exported, tokens, on=not on)
    assert_close(loaded["on" if on else "off"], logits_BTV)
    assert (logits_BTV - other_BTV).abs().max() > 1e-2 * logits_BTV.std(), "mechanisms do something"


def test_padding_changes_nothing(exported, loaded):
    for row, text in enumerate(TEXTS):
        logits_BTV, _ = read(exported, torch.tensor([list(text.encode())]))
        assert_close(loaded["padded"][row, -logits_BTV.shape[1] :], logits_BTV[0])


def test_what_is_no_prompt_is_read_from_the_state(exported, loaded):
    for row, text in enumerate(TEXTS[:2]):
        tokens = torch.tensor([list(text.encode())])
        prompt_BTV, state = read(exported, tokens[:, :-4])
        rest_BTV, _ = read(exported, tokens[:, -4:], on=False, state=state)
        wanted_TV = torch.cat([prompt_BTV, rest_BTV], 1)[0]
        assert_close(loaded["part"][row, -len(wanted_TV) :], wanted_TV)


def test_a_row_without_a_prompt_is_read_without_mechanisms(exported, loaded):
    logits_BTV, _ = read(exported, torch.tensor([list(TEXTS[2].encode())]), on=False)
    assert_close(loaded["part"][2, -2:], logits_BTV[0])


def test_the_loss_is_that_of_the_answer(loaded):
    logits_BTV = loaded["part"][:2, -5:-1].log_softmax(-1)
    nll_BT = -logits_BTV.gather(2, loaded["tokens"][:2, -4:, None])
    assert torch.allclose(loaded["loss"], nll_BT.mean(), rtol=1e-5)


@pytest.mark.parametrize("on", [False, True])
def test_generate_writes_what_the_project_writes(exported, loaded, on):
    written = loaded["written" if on else "written_off"]
    for row, text in enumerate(TEXTS):
        tokens = torch.tensor([list(text.encode())])
        acting = list(exported.acting.values()) if on else []
        with torch.inference_mode():
            x_BTC, state = exported.model.hidden(tokens, acting=acting)
        (wanted,) = generate(exported.model, x_BTC[:, -1], state, Decoding(NEW_TOKENS))
        assert tuple(written[row].tolist()) == wanted


def test_there_is_no_generation_without_the_state(loaded):
    assert torch.equal(loaded["written_uncached"], loaded["written"])


def test_beams_find_what_is_at_least_as_likely_as_the_greedy_answer(exported, loaded):
    prompt = list(TEXTS[0].encode())

    def likelihood(answer):
        _, state = read(exported, torch.tensor([prompt]))
        first_BTV, _ = read(exported, torch.tensor([prompt]))
        rest_BTV, _ = read(exported, torch.tensor([answer[:-1]]), on=False, state=state)
        logits_TV = torch.cat([first_BTV[0, -1:], rest_BTV[0]]).log_softmax(-1)
        return float(logits_TV[range(len(answer)), answer].sum())

    greedy, beams = loaded["written"][0].tolist(), loaded["beams"][0].tolist()
    assert len(beams) == NEW_TOKENS
    assert likelihood(beams) >= likelihood(greedy) - 1e-4


def test_what_is_saved_again_is_the_same(loaded):
    assert torch.equal(loaded["again"], loaded["on"])


def test_the_folder_has_the_code_of_its_own_mechanisms_alone(exported, folder):
    code = {path.name for path in folder.glob("mechanisms_*_mechanism.py")}
    assert code == {f"mechanisms_{name}_mechanism.py" for name in exported.acting}


def test_a_folder_that_exists_is_left_alone(exported, tmp_path):
    with pytest.raises(InputError, match="exists"):
        write_folder(exported, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_below_a_file_is_refused(exported, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--out: .*file cannot be made: "):
        write_folder(exported, tmp_path / "file" / "new")
    with pytest.raises(InputError, match=r"--out: .*file cannot be made: "):
        write_pth(exported, tmp_path / "file" / "new.pth")


def test_a_failed_write_leaves_nothing(exported, tmp_path):
    unknown = Exported(exported.place, 4, initialise(ModelConfig(1, 16, 99, 16), 0), {}, None)
    with pytest.raises(InputError, match="no tokenizer is known for a vocabulary of 99"):
        write_folder(unknown, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("vocab_size", [256, 65536])
def test_the_tokenizer_gives_the_projects_ids(vocab_size, tmp_path):
    ours, shell = for_vocabulary(vocab_size), RWKVTokenizer(vocab_size)
    assert len(shell) == shell.vocab_size == vocab_size
    for text in [*TEXTS, " a  b\n\n\tc", "数学 🙂", Path(__file__).read_text()]:
        ids = shell(text)["input_ids"]
        assert ids == ours.encode(text)
        assert shell.decode(ids) == text
    # A token that ends inside a character.
    part = ours.encode("数")[:1] if vocab_size == 256 else [ours.encode("\ufffd")[0]]
    assert shell.decode(part) == ours.decode(part)
    assert (shell.eos_token_id, shell.pad_token_id) == (0, 0)


def test_ids_that_the_tokenizer_has_not_are_written_all_the_same():
    shell = RWKVTokenizer(300, "bytes")
    assert len(shell) == shell.vocab_size == 300
    assert shell("a")["input_ids"] == [97]
    assert shell.decode([97, 299, 98]) == "a\ufffdb"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_harness_finds_the_models_likelihoods(exported, folder):
    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip("lm_eval is not installed: `pip install lm-eval` to run the harness")
    place = folder.parent
    (task,) = re.findall(r"```yaml arc_local.yaml\n(.*?)```", DOCS, re.DOTALL)
    (place / "arc_local.yaml").write_text(task)
    (score,) = re.findall(r"```python score.py\n(.*?)```", DOCS, re.DOTALL)
    (place / "score.py").write_text(score)
    rows = [json.dumps(row | {"answerKey": row["choices"]["label"][1]}) for row in QUESTIONS]
    (place / "arc.jsonl").write_text("\n".join(rows))
    run(place, HARNESS)
    found = json.loads((place / "found.json").read_text())
    assert len(found["on"]) == len(found["off"]) == 5
    assert "Options:\nA. ice\nB. fire\n\nQuestion: Which is hot?" in found["on"][0][0][0]
    for on, name in ((True, "on"), (False, "off")):
        for (context, continuation), likelihood in found[name]:
            first_BTV, state = read(exported, torch.tensor([list(context.encode())]), on=on)
            rest_BTV, _ = read(
                exported, torch.tensor([list(continuation.encode())]), on=False, state=state
            )
            logits_TV = torch.cat([first_BTV[0, -1:], rest_BTV[0, :-1]]).log_softmax(-1)
            wanted = logits_TV[range(len(continuation)), list(continuation.encode())].sum()
            assert likelihood == pytest.approx(float(wanted), rel=1e-4), name
