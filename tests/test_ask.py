"""`predict` and `explain`: a selected model's answers to texts, and why each left where it did."""

import json
from collections.abc import Sequence

import pytest
from click.testing import CliRunner

from pipeline.__main__ import cli
from pipeline.commands.ask import explain, only_one, open_model, predict, texts_of
from pipeline.errors import ArtifactError, ParamsError, PipelineError
from pipeline.evaluation.criteria import make
from pipeline.evaluation.diagnosis import NOTHING
from pipeline.layout import HERE
from pipeline.params import load_params
from pipeline.results import Evaluated
from tests.selections import untrained_models
from tests.workspace import Workspace

TASK = "demo-sentences"
TEXTS = ["the film was good", "nobody liked the dull plot but the end was moving", "a bad film", "good"]
CRITERIA = {"patience": {}, "confidence": {}, "temperature": {}, "ensemble": {}, "oracle": {}}


@pytest.fixture
def asked(workspace: Workspace) -> Workspace:
    """A task with models that nobody trained, through the real stages up to evaluate."""
    workspace.write_params({"evaluate.criteria": CRITERIA})
    untrained_models(workspace, TASK)
    return workspace


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(cli, arguments)
    if isinstance(result.exception, PipelineError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
def test_explanations_are_of_what_the_live_engine_does(asked: Workspace) -> None:
    params = load_params()
    exits = set()
    for criterion in ("patience", "confidence", "temperature", "ensemble"):
        chosen = open_model(params, TASK, None, "joint", criterion)
        scores = [score for score in explain(chosen, TEXTS[0]).scores if score is not None]
        for threshold in (min(scores), sorted(scores)[6], max(scores) + 1):
            opened = chosen.at(criterion, threshold)
            for text in TEXTS:  # one by one: in a batch the last bit may differ, and these thresholds are scores
                (said,), why = predict(opened, [text]), explain(opened, text)
                for key in ("label", "exit", "layer"):
                    assert getattr(why.answer, key) == getattr(said, key), (criterion, threshold, text, key)
                assert why.answer.probability == pytest.approx(said.probability, abs=2e-4)
                exits.add(said.exit)
                # The score reaches the threshold at that exit, and at none before.
                assert all(score is not None and score < threshold for score in why.scores[: said.exit - 1])
                score = why.scores[said.exit - 1]
                assert said.exit == 12 if score is None else score >= threshold
                for at in why.exits:
                    shares = at.probabilities
                    assert shares is not None
                    assert sum(shares.values()) == pytest.approx(1, abs=1e-9)
                    assert shares[str(at.label)] == max(shares.values())
    assert {1, 12} < exits
    _commands(asked)


def _commands(asked: Workspace) -> None:
    lines = invoke("explain", "--task", TASK, "--criterion", "confidence", TEXTS[0]).splitlines()
    assert lines[0] == "demo-albert, joint, confidence (Shallow-Deep)"
    assert lines[1].split() == ["exit", "layer", "negative", "positive", "score"]
    assert len(lines) == 2 + 12 + 1
    assert sum("leaves here" in line for line in lines) == 1
    (row,) = json.loads(invoke("explain", "--task", TASK, "--criterion", "confidence", "--json", TEXTS[0]))
    assert f"{row['answer']} ({row['probability']:.3f}) at exit {row['exit']}: " in lines[-1]
    assert sum("(not run)" in line for line in lines) == 12 - row["exit"]
    assert set(row) == {"answer", "probability", "exit", "layers", "threshold", "exits"}
    assert set(row["exits"][0]) == {"exit", "layer", "answer", "probability", "probabilities", "score"}

    asked_for = CliRunner().invoke(cli, ["predict", "--task", TASK, TEXTS[0]])
    assert f"beware: {NOTHING}" in asked_for.stderr.splitlines(), "nobody trained it"
    best = next(r for r in Evaluated.read(HERE.evaluated(TASK), "").rows if r.preferred and r.method == "joint")
    rule = make(str(best.criterion))
    assert asked_for.stderr.splitlines()[-1].startswith(f"demo-albert, joint, {rule.title} {rule.symbol} = ")
    said = invoke("predict", "--task", TASK, *TEXTS).splitlines()
    assert len(said) == len(TEXTS)
    assert all("of 12" in line for line in said)
    full = json.loads(invoke("predict", "--task", TASK, "--criterion", "full", "--json", *TEXTS))
    assert [row["exit"] for row in full] == [12] * len(TEXTS)
    assert set(full[0]) == {"answer", "probability", "exit", "layers", "probabilities"}
    only = invoke("explain", "--task", TASK, "--method", "single_exit", TEXTS[0]).splitlines()
    assert only[0] == "demo-albert, single_exit, all layers"
    assert only[-1].endswith("all layers ran, since no criterion was asked")

    refused: Sequence[tuple[Sequence[str], type[PipelineError], str]] = (
        (["--task", "sst2"], ParamsError, "--task: unknown task 'sst2'"),
        (["--task", TASK, "--criterion", "oracle"], ParamsError, "--criterion: unknown criterion 'oracle'"),
        (["--task", TASK, "--method", "berxit"], ParamsError, "--method: unknown method 'berxit'"),
    )
    for arguments, error, says in refused:
        with pytest.raises(error, match=says):
            invoke("predict", *arguments, "a text")
    # Weights that are not those that were selected answer nothing.
    weights = HERE.model(TASK, "many") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        invoke("predict", "--task", TASK, "a text")


def test_what_need_not_be_named() -> None:
    assert only_one("--task", None, ["own"]) == "own"
    with pytest.raises(ParamsError, match="--task: there are own, sst2; name one"):
        only_one("--task", None, ["own", "sst2"])


def test_texts_and_pairs() -> None:
    assert texts_of(["a", "b"], 1) == ["a", "b"]
    assert texts_of(["a", "b", "c", "d"], 2) == [("a", "b"), ("c", "d")]
    with pytest.raises(ParamsError, match="TEXT: 1 given; give two texts for each input"):
        texts_of(["a"], 2)


def test_what_was_not_run(workspace: Workspace) -> None:
    workspace.write_params()
    with pytest.raises(ArtifactError, match="dvc repro"):
        invoke("predict", "--task", TASK, "a text")
