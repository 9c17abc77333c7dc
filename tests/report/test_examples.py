"""Attacked texts in the report: which, and how they are marked and escaped."""

from pathlib import Path

import pytest

from pipeline.attacks.records import examples_to_show
from pipeline.errors import ArtifactError
from pipeline.layout import Workspace
from pipeline.report.collect import collect
from pipeline.report.render import Report, build
from pipeline.results import Attack, Record
from tests.report.pages import PROVENANCE, Page, edit, small
from tests.stored_results import write_all

EVIL = "<script>alert(1)</script>|*x*"


def record(row_id: int, outcome: str) -> Record:
    left = dict.fromkeys(("answer_after", "changed", "words_changed", "layers_under_attack", "layers_after"))
    tried = {"answer_after": 0, "changed": ("b",), "words_changed": 1, "layers_under_attack": 2.0, "layers_after": 3}
    return Record.model_validate(
        {
            **{"row_id": row_id, "label": 1, "outcome": outcome, "reason": None, "answer_before": 1},
            **{"original": ("a",), "queries": 3, "words": 1, "layers_before": 2},
            **(left if outcome == "skipped" else tried),
        }
    )


def test_the_first_that_an_attack_on_any_defence_broke() -> None:
    one = [record(i, outcome) for i, outcome in enumerate(("failed", "successful", "skipped", "failed", "successful"))]
    other = [record(i, outcome) for i, outcome in enumerate(("skipped", "failed", "successful", "failed", "failed"))]
    assert examples_to_show([one, other]) == [1, 2, 4]
    assert examples_to_show([one, other], most=2) == [1, 2]
    assert examples_to_show([one[:1], other[:1]]) == []


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    write_all(Workspace(tmp_path), small("albert-base"))
    return Workspace(tmp_path)


def report(workspace: Workspace) -> Report:
    return build(collect(small("albert-base"), workspace), PROVENANCE)


def test_changed_words_are_marked_and_all_is_escaped(workspace: Workspace) -> None:
    made = report(workspace)
    assert Page(made.html).balanced
    assert "<dd>a <del>fine</del><ins>decent</ins> film &lt;b&gt;</dd>" in made.html
    assert "positive → negative, layers 4 → 6, 1 of 4 words, 12 queries</dt>" in made.html
    assert "still positive, layers 4 → 6, 1 of 4 words, 12 queries, withstands" in made.html
    assert '<details class="examples"><summary>Attacked texts of sst2: 1 example</summary>' in made.html
    assert "<br>a ~~fine~~**decent** film &lt;b&gt;" in made.markdown


def test_what_stands_in_texts_is_no_markup(workspace: Workspace) -> None:
    def change(payload: dict[str, object]) -> None:
        for row in payload["attacked"][0]["rows"]:  # type: ignore[index]
            row["shown"][0] |= {"original": [f"a {EVIL}\n\nfilm"], "changed": [f"a {EVIL}x {EVIL}\n\nfilm"]}

    plain = report(workspace)
    edit(workspace.attack("sst2"), change)
    made = report(workspace)
    assert Page(made.html).balanced
    assert made.html.count("<script") == plain.html.count("<script")
    assert "<script" not in made.markdown
    assert "\\*x\\*" in made.markdown
    heads = [[line for line in text.splitlines() if line.startswith("#")] for text in (plain.markdown, made.markdown)]
    assert heads[0] == heads[1]


def test_other_examples_or_classes_are_refused(workspace: Workspace) -> None:
    def other(payload: dict[str, object]) -> None:
        payload["attacked"][0]["rows"][1]["shown"][0]["row_id"] = 8  # type: ignore[index]

    def beyond(payload: dict[str, object]) -> None:
        payload["attacked"][0]["label_names"] = ["negative"]  # type: ignore[index]

    for change, said in ((other, "shown are other examples"), (beyond, "a class beyond label_names")):
        write_all(workspace, small("albert-base"))
        edit(workspace.attack("sst2"), change)
        with pytest.raises(ArtifactError, match=said):
            Attack.read(workspace.attack("sst2"), "run it")
