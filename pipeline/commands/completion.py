"""Scripts that let a shell complete `python -m pipeline`; Click says what fits.

Click's own scripts complete a program's name, and here that is Python's: so these look at the words behind it first.
"""

from collections.abc import Sequence

from click import Context, Parameter
from click.shell_completion import CompletionItem

VARIABLE = "_EARLY_EXIT_COMPLETE"
"""Set by the scripts: the command line then prints what fits."""

BASH = r"""_early_exit_completion() {
    local IFS=$'\n' response completion type value
    if [[ ${COMP_WORDS[1]} != -m || ${COMP_WORDS[2]} != pipeline || $COMP_CWORD -lt 3 ]]; then
        compopt -o bashdefault -o default  # another use of Python: files
        return
    fi
    response=$(env COMP_WORDS="pipeline"$'\n'"${COMP_WORDS[*]:3}" COMP_CWORD=$((COMP_CWORD - 2)) \
        VARIABLE=bash_complete "${COMP_WORDS[0]}" -m pipeline 2>/dev/null)
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done
}
complete -o nosort -F _early_exit_completion python python3
"""

ZSH = r"""_early_exit_completion() {
    local -a names described response
    local type key text
    if [[ $words[2] != -m || $words[3] != pipeline || $CURRENT -lt 4 ]]; then
        _python "$@" 2>/dev/null || _files  # another use of Python
        return
    fi
    response=("${(@f)$(env COMP_WORDS="pipeline ${words[4,-1]}" COMP_CWORD=$((CURRENT - 3)) \
        VARIABLE=zsh_complete ${words[1]} -m pipeline 2>/dev/null)}")
    for type key text in ${response}; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            plain) if [[ $text == _ ]]; then names+=("$key"); else described+=("${key//:/\\:}:$text"); fi ;;
        esac
    done
    (( $#described )) && _describe -V unsorted described -U
    (( $#names )) && compadd -U -V unsorted -a names
    return 0
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u; }
compdef _early_exit_completion python python3
"""

FISH = r"""function __early_exit_completion
    set -l line (string replace -r '^\S+ -m pipeline' pipeline -- (commandline -cp))
    set -l python (commandline -opc)[1]
    set -l word (commandline -t)
    for completion in (env VARIABLE=fish_complete COMP_WORDS="$line" COMP_CWORD="$word" $python -m pipeline 2>/dev/null)
        set -l parts (string split -m 1 , -- $completion)
        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case plain
                echo $parts[2]
        end
    end
end
for python in python python3
    complete --command $python --no-files --condition "string match -qr '^\S+ -m pipeline ' -- (commandline -cp)" \
        --arguments '(__early_exit_completion)'
end
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def script(shell: str) -> str:
    """What a shell evaluates to complete the command line."""
    return SCRIPTS[shell].replace("VARIABLE", VARIABLE)


def profiles(context: Context, parameter: Parameter, incomplete: str) -> Sequence[CompletionItem]:
    """Names of profiles."""
    from pipeline.layout import HERE

    return _beginning(incomplete, sorted(path.stem for path in HERE.profiles.glob("*.yaml")))


def stages_and_trials(context: Context, parameter: Parameter, incomplete: str) -> Sequence[CompletionItem]:
    """Names of stages, and keys of trials of which some letters are given."""
    from pipeline.layout import HERE
    from pipeline.storage import read_yaml

    try:
        stages = list(read_yaml(HERE.root / "dvc.yaml")["stages"])
    except (OSError, ValueError, KeyError, TypeError):
        stages = []
    keys = sorted(path.name for path in HERE.trials.glob(f"{incomplete}*")) if incomplete.isalnum() else []
    return _beginning(incomplete, [*stages, *keys])


def runs(context: Context, parameter: Parameter, incomplete: str) -> Sequence[CompletionItem]:
    """Keys of trials of which some letters are given, else folders."""
    found = [item for item in stages_and_trials(context, parameter, incomplete) if len(str(item.value)) == 16]
    return found or [CompletionItem(incomplete, type="dir")]


def _beginning(incomplete: str, names: Sequence[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
