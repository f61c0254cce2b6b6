"""What README.md, CONTRIBUTING.md and docs/ hold: commands, blocks of code and tables; and how a script is run."""

import contextlib
import importlib.util
import re
import runpy
import sys
from pathlib import Path

import numba

ROOT = Path(__file__).parent.parent
DOCUMENTS = {
    file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
    for file in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
#: What is run, if it is no script of ours.
PROGRAMS = {
    *("python", "pytest", "pip", "fastopt", "asv", "ruff", "mypy", "pre-commit", "gcc", "cd", "git", "make", "sh"),
    *("bash", "apt", "conda", "uv", "docker", "curl", "compute-sanitizer", "nsys", "ncu", "perf", "taskset", "numactl"),
    "torchrun",
}
FOLDERS = ("asv_benchmarks/", "examples/", ".ci/")


def blocks(text, language):
    """Return the contents of the fenced blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text):
    """Return a text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def spans(text):
    """Return what stands between backticks outside of blocks; it may be broken between two lines."""
    return [" ".join(found.split()) for _, found in re.findall(r"(`+)(.+?)\1", prose(text), re.DOTALL)]


def tables(text):
    """Return the Markdown tables, each as its lines."""
    return [found.splitlines() for found in re.findall(r"(?:^\|.*\n)+", prose(text), re.MULTILINE)]


def plain(command):
    """Return a command as it is in an environment that is active: however Python is called."""
    words = re.sub(r"(^|\s)(?:\.\./)?\.venv/bin/", r"\1", command.strip()).split(" ")
    at = next((k for k, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), 0)
    if words[at] in ("python", "python3"):
        if words[at + 1] == "-m":
            words[at : at + 2] = []
        elif words[at + 1].endswith(".py"):
            words[at : at + 1] = []
    return " ".join(words)


def parts(line):
    """Return the commands of a line of a shell, without its comment."""
    return [plain(part) for part in re.sub(r"(^|\s)#.*", "", line).split("&&") if part.strip()]


def is_script(path):
    """Say whether a path is that of a script of ours, be it there or not."""
    return path.startswith(FOLDERS) and not path.startswith("asv_benchmarks/results/") and not path.endswith("/")


def is_command(span):
    """Say whether what stands in prose between backticks can be run: a script, or a program with arguments."""
    words = [word for word in span.split() if not re.match(r"[A-Z_]+=\S", word)]
    if not words:
        return False
    return is_script(words[0]) or (len(words) > 1 and words[0].rpartition("/")[2].rstrip("3") in PROGRAMS)


def commands(text):
    """Return every command that a text names, each once: all in its blocks and tables, in its prose what can be run.

    A script counts as a command wherever it is named.
    """
    given = [line for block in blocks(text, "(?:sh|bash|shell|console)") for line in block.splitlines()]
    column = [row.split("|")[2] for table in tables(text) if "| command |" in table[0] for row in table[2:]]
    given += [span for cell in column for span in spans(cell)]
    given += filter(is_command, spans(text))
    given += filter(is_script, re.findall(r"\]\(([^)]+)\)", prose(text)))
    return list(dict.fromkeys(part for line in given for part in parts(line)))


def run_script(path, arguments, folder, monkeypatch):
    """Run a script as ``python path arguments`` does in a folder, but in this process; return its exit status."""
    file, threads, before = ROOT / path, numba.get_num_threads(), set(sys.modules)
    torch = sys.modules.get("torch")
    threads_of_torch = torch.get_num_threads() if torch else None
    status = None
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", [str(file), *arguments])
        patch.syspath_prepend(file.parent)
        patch.chdir(folder)
        try:
            runpy.run_path(str(file), run_name="__main__")
        except SystemExit as caught:
            status = caught.code
        finally:
            forget(file.parent, before)
            numba.set_num_threads(threads)
            if threads_of_torch:
                torch.set_num_threads(threads_of_torch)
    return status or 0


def forget(folder, before):
    """Forget the modules in a folder that were imported since `before`: their names are anybody's."""
    for name in set(sys.modules) - before:
        with contextlib.suppress(AttributeError, TypeError):
            if Path(sys.modules[name].__file__).parent == folder:
                del sys.modules[name]


def load_script(name):
    """Return a script of asv_benchmarks/ as a module; what it imports from there is forgotten again."""
    file, before = ROOT / "asv_benchmarks" / f"{name}.py", set(sys.modules)
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
        forget(file.parent, before)
    return module
