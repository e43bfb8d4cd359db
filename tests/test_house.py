"""The house rules: imports only go down, heavy packages stay in their room, functions document what they do.

Rooms are the folders and files right under `src/mirage`. A room that is not written yet breaks no rule.
"""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "mirage"
FILES = sorted(SRC.rglob("*.py"))

FLOORS = [  # ground first; rooms on one floor do not know each other unless joined by "+"
    ["camera", "kernels", "config"],
    ["geometry", "video", "scenes"],
    ["memory", "denoise"],
    [
        "pipeline + rollout + chunks + checkpoint + world + inputs + preview + report + results + demo + export "
        "+ cost + fit + doctor"
    ],
    ["dataset"],
    ["training", "evaluation", "explorer", "cluster"],
    [
        "cli + __main__ + world_command + explore_command + model_command + prepare_command + batch_command "
        "+ evaluate_command + worldscore_command + ablation_command + train_command + mover_command"
    ],
]
FLOOR = {r: (i, j) for i, row in enumerate(FLOORS) for j, rooms in enumerate(row) for r in rooms.split(" + ")}
DATA = {"models", "assets"}  # weights and pictures, no code
ROOMS_OF = {  # third-party package -> the only rooms that may import it
    "diffusers": {"geometry", "video", "denoise", "pipeline", "rollout", "checkpoint", "training", "fit"},
    "transformers": {"denoise", "geometry", "pipeline", "checkpoint"},
    "triton": {"kernels"},
    "numba": {"kernels"},
    "accelerate": {"training"},
    "peft": {"training"},
    "ray": {"cluster"},
    "matplotlib": {"training", "evaluation"},
    "skimage": {"evaluation"},
    "cv2": {"evaluation"},
    "torchmetrics": {"evaluation"},
    "pycolmap": {"evaluation"},
    "fastapi": {"explorer"},
    "starlette": {"explorer"},
    "uvicorn": {"explorer"},
    "websockets": {"explorer"},
    "pydantic": {"explorer"},
}
DOCUMENTED = {"camera", "geometry", "memory", "kernels", "denoise", "video"}
DOCUMENTED |= {"training/loss.py", "evaluation/metrics.py", "chunks.py"}
ORDER = ["Equation", "Convention", "Args", "Returns", "Yields", "Raises", "Gradient", "Cost", "Example"]


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def room(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return str(path.relative_to(SRC))


def imports(path: Path) -> set[str]:
    """Every module name that a file imports, lazily or not; relative imports begin with a dot."""
    nodes = list(ast.walk(tree(path)))
    plain = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    return plain | {"." * n.level + (n.module or "") for n in nodes if isinstance(n, ast.ImportFrom)}


def test_every_room_has_a_floor():
    assert {room(p) for p in FILES} - {"__init__"} <= set(FLOOR), "a new room needs a floor in FLOORS"
    assert not [p for d in DATA for p in (SRC / d).rglob("*.py")], "rooms of data hold no code"
    assert not {"utils", "common", "core", "helpers", "base"} & {p.stem for p in [*FILES, *(p.parent for p in FILES)]}


@pytest.mark.parametrize("path", [p for p in FILES if p != SRC / "__init__.py"], ids=name_of)
def test_imports_only_go_down(path):
    here = room(path)
    for name in imports(path):
        assert not name.startswith("."), f"{name}: absolute imports only"
        if name.split(".")[0] != "mirage":
            continue
        there = name.partition(".")[2].split(".")[0]
        assert there, "imports the package's own face"
        if there != here:
            (floor, side), (floor2, side2) = FLOOR[here], FLOOR[there]
            assert floor2 < floor or (floor2, side2) == (floor, side), f"{here} may not see {there} (imports {name})"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_packages_stay_in_their_room(path):
    for name in imports(path):
        rooms = ROOMS_OF.get(name.split(".")[0])
        assert rooms is None or room(path) in rooms, f"{name} is for {sorted(rooms)}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_open_with_their_contract_and_are_small(path):
    text = path.read_text()
    assert ast.get_docstring(tree(path)), "no docstring at the top"
    assert len(text.splitlines()) <= 700, "a file has a few hundred lines"
    assert "from __future__" not in text, "annotations are checked at run time: no postponed evaluation"


def test_the_face_is_light():
    """`import mirage` loads none of the heavy packages."""
    code = f"import sys, mirage; print([p for p in {sorted(ROOMS_OF)} if p in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@functools.cache
def classes() -> dict[str, ast.ClassDef]:
    return {n.name: n for f in FILES for n in tree(f).body if isinstance(n, ast.ClassDef)}


def is_promised(method: str, owner: ast.ClassDef, known: dict[str, ast.ClassDef]) -> bool:
    """Whether a base class already documents a method; its implementation needs no second contract."""
    for base in filter(None, (known.get(ast.unparse(b).split("[")[0].split(".")[-1]) for b in owner.bases)):
        if any(isinstance(f, ast.FunctionDef) and f.name == method and ast.get_docstring(f) for f in base.body):
            return True
        if is_promised(method, base, known):
            return True
    return False


def public(path: Path) -> list:
    """Public functions of a file, and public methods of the classes that the face of its room shows."""
    found, known = [], classes()
    face = path.parent / "__init__.py"
    shown = {a.name for n in ast.walk(tree(face)) if isinstance(n, ast.ImportFrom) for a in n.names}
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef) and (node.name in shown or path.parent == SRC):
            methods = [f for f in node.body if isinstance(f, ast.FunctionDef) and not is_promised(f.name, node, known)]
            found += [(f"{node.name}.{f.name}", f) for f in methods]
        elif isinstance(node, ast.FunctionDef):
            found.append((node.name, node))
    return [
        pytest.param(function, "." in name, id=f"{name_of(path)}:{name}")
        for name, function in found
        if not function.name.startswith("_")
    ]


PUBLIC = [p for f in FILES if room(f) in DOCUMENTED or name_of(f) in DOCUMENTED for p in public(f)]


def sections(doc: str, indent: int) -> dict[str, str]:
    parts = re.split(rf"^ {{{indent}}}({'|'.join(ORDER)}):\n", doc, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def own_errors(function: ast.FunctionDef) -> set[str]:
    """Names of the errors that a body raises; an abstract method's NotImplementedError is none."""
    raised = {
        n.exc.func if isinstance(n.exc, ast.Call) else n.exc for n in ast.walk(function) if isinstance(n, ast.Raise)
    }
    return {ast.unparse(exc) for exc in raised if exc is not None} - {"NotImplementedError"}


@pytest.mark.parametrize("function, is_method", PUBLIC)
def test_docstring_tells_the_whole_contract(function, is_method):
    doc = ast.get_docstring(function, clean=False) or ""
    assert doc, "no docstring"
    found = sections(doc, 8 if is_method else 4)
    if not found and re.search(r"See `[\w.]+`\.$", doc.strip()):
        return  # a backend or an implementation: its contract is the public operation that it names
    everything = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    everything += [a for a in (function.args.vararg, function.args.kwarg) if a]
    args = [a.arg for a in everything if not (is_method and a.arg in ("self", "cls"))]
    indent = 12 if is_method else 8
    documented = re.findall(rf"^ {{{indent}}}(\w+):", found.get("Args", ""), flags=re.M)
    assert documented == args, f"Args: {documented} and the signature {args} differ"
    missing = {error for error in own_errors(function) if f"{error}:" not in found.get("Raises", "")}
    assert not missing, f"Raises: does not name {missing}"
    assert list(found) == sorted(found, key=ORDER.index), f"sections go in the order {ORDER}"
    decorators = {ast.unparse(d) for d in function.decorator_list}
    one_line = is_method and (not args or "property" in decorators)  # "The length of it" says all there is to say
    silent = function.returns is None or ast.unparse(function.returns) == "None"
    assert {"Returns", "Yields"} & set(found) or silent or one_line, "no Returns:"
    if not is_method:
        tensors = "Tensor" in ast.unparse(function.args)
        assert function.returns is not None, "no annotation of what is returned"
        assert ">>>" in found.get("Example", "") or not tensors, "no example"
