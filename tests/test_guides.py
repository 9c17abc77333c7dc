"""The guides, followed by a reader: each block runs in order, in a clone of the project, and prints what they say.

Those that run the graph take minutes; `make test-docs` runs them, and CI does each week with the clusters.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.identity.imports import ROOT
from tests.conftest import POINTERS
from tests.documents import Shell
from tests.ray_cluster import free_ports, ray_cluster
from tests.workspace import NO_NETWORK

GUIDES = ROOT / "docs/guides"
ANN = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
       for what, value in (("NAME", "Ann"), ("EMAIL", "ann@example.org"))}  # fmt: skip


def clone(folder: Path, mlflow_store: Path) -> Shell:
    """The project's files as they are now, committed, in a folder of their own, with the packages that tests have."""
    git = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    # `make install` finds its work done.
    assert (Path(sys.prefix) / ".installed").is_file(), "tests of guides run in what `make install` made"
    os.utime(folder / "requirements.lock", (0, 0))
    (folder / ".venv").symlink_to(sys.prefix)
    shutil.copy(mlflow_store, folder / "mlflow.db")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(POINTERS)}
    environment = kept | NO_NETWORK | ANN | {"OMP_NUM_THREADS": "1", "HF_HOME": str(folder.parent / "hf")}
    for command in (["init", "--quiet", "--initial-branch", "main"], ["add", "--all"], ["commit", "-qm", "a clone"]):
        subprocess.run(["git", *command], cwd=folder, env=environment, check=True)
    return Shell(folder, environment)


PAGE = """
```sh
mkdir -p sub && cd sub
export WORD=two
echo one && echo $WORD
```

```text
one
t...
```

<!-- test
test $WORD = two
-->

```python title="a.py"
print("written")
```

<!-- elsewhere: no such program -->
```sh
no-such-program
```

```sh
test "$(basename $PWD)" = sub && python ../a.py
```

```diff title="a.py"
-print("written")
+print("changed")
```
"""


def test_a_page_is_followed_and_what_is_wrong_on_it_is_found(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    page = tmp_path / "page.md"
    for right, wrong, says in (
        ("", "", None),
        ("t...", "three", "not printed"),
        ("test $WORD = two", "test $WORD = one", "page.md:13"),
        ("-print", "-prink", "not there once"),
        ("python ../a.py", "python a.py", "can't open file"),
        ("<!-- elsewhere: no such program -->", "", "no-such-program: command not found"),
        ("```text", "```toml", "nothing runs or checks toml"),
    ):
        page.write_text(PAGE.replace(right, wrong))
        shell = Shell(tmp_path / "project", os.environ)
        shell.state.unlink(missing_ok=True)
        if says is None:
            shell.follow(page)
            assert (shell.folder / "a.py").read_text() == 'print("changed")\n'
        else:
            with pytest.raises(AssertionError, match=says):
                shell.follow(page)


def test_own_criterion(tmp_path: Path, mlflow_store: Path) -> None:
    shell = clone(tmp_path / "project", mlflow_store)
    shell.follow(GUIDES / "own-criterion.md")
    assert "margin" in (shell.folder / "margin.svg").read_text(encoding="utf-8")


@pytest.mark.cluster
def test_own_data_and_what_follows_from_it(tmp_path: Path, mlflow_store: Path) -> None:
    """One reader, one folder: later guides use what earlier ones made."""
    shell = clone(tmp_path / "project", mlflow_store)
    shell.replaced |= dict(zip(("8000", "5001"), map(str, free_ports(2)), strict=True))
    for guide in ("own-data", "reading-the-report", "deploying", "own-model", "air-gapped"):
        shell.follow(GUIDES / f"{guide}.md")


@pytest.mark.cluster
def test_own_cluster(tmp_path: Path, mlflow_store: Path) -> None:
    shell = clone(tmp_path / "project", mlflow_store)
    with ray_cluster() as cluster:
        shell.environment |= cluster.environment | {"RAY_API_SERVER_ADDRESS": cluster.dashboard}
        shell.replaced["127.0.0.1:6379"] = f"127.0.0.1:{cluster.port}"
        shell.follow(GUIDES / "own-cluster.md")
    assert (shell.folder / "jobs/first/outputs/simulate").is_dir()
