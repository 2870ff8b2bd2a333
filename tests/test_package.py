"""What the project promises about itself: no torch at run time, a small model, and a README that tells the truth."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import cns_jax
from cns_jax import shipped
from cns_jax.core.settings import names_of
from cns_jax.engine.settings import RunSettings

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCKS = "\n".join(b for page in PAGES for b in re.findall(r"```bash\n(.*?)```", page.read_text(), re.S)).replace(
    "\\\n", " "
)
MODEL = ROOT / "cns_jax" / "miniature" / "model"
MODEL_LIMIT_MB = 25

IMPORT_ALL = """
import importlib, pkgutil, sys
from absl import flags

# importing them fails, as where only the package is installed
sys.modules.update(dict.fromkeys(("torch", "diffusers")))
import cns_jax

for module in pkgutil.walk_packages(cns_jax.__path__, "cns_jax."):
    importlib.import_module(module.name)
    for flag in list(flags.FLAGS.flags_by_module_dict().get(module.name, [])):
        delattr(flags.FLAGS, flag.name)  # two command lines have a flag --config; a process runs one of them
    print(module.name)

from cns_jax.text.tokenizer import clip_tokenizer_class

clip_tokenizer_class()
assert "tensorflow" not in sys.modules
"""


def test_every_module_imports_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"cns_jax.train", "cns_jax.nn.unet"} <= set(done.stdout.split())


BEGIN_A_RUN = """
import sys
from pathlib import Path
import cns_jax.engine.pages.closing, cns_jax.engine.teach.plan, cns_jax.engine.teach.sequence
from cns_jax.engine.checkpoint import Checkpoints

checkpoints = Checkpoints(Path(sys.argv[1]) / "checkpoints")
assert checkpoints.latest() is None
checkpoints.close()
assert "orbax.checkpoint" not in sys.modules
"""


def test_a_new_run_does_not_wait_for_orbax(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", BEGIN_A_RUN, str(tmp_path)], cwd=ROOT, check=True)


def test_runtime_requirements_name_no_torch() -> None:
    call = next(
        n
        for n in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "setup"
    )
    arguments = {k.arg: k.value for k in call.keywords}
    runtime = ast.literal_eval(arguments["install_requires"])
    assert any(r.startswith("jax") for r in runtime)
    assert not [r for r in runtime if re.match(r"(torch|diffusers|tensorflow)\b(?!-datasets)", r)]


def test_version_is_in_the_changelog() -> None:
    assert f"## [{cns_jax.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_shipped_model_is_small() -> None:
    size = sum(p.stat().st_size for p in MODEL.rglob("*") if p.is_file()) / 1e6
    assert 0 < size <= MODEL_LIMIT_MB, f"{MODEL} holds {size:.1f} MB"


def test_pages_name_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"^make ([\w-]+)", BLOCKS, re.M))
    assert {"demo", "test"} <= named <= targets


def test_pages_name_modules_and_settings_that_exist() -> None:
    commands = re.findall(r"python -m (cns_jax\.\w+)(.*)", BLOCKS)
    assert commands
    known = {*names_of(RunSettings, "config")}
    for module, flags in commands:
        assert importlib.util.find_spec(module), f"a page runs {module}, which does not exist"
        named = re.search(r"--config=(\S+)", flags)
        assert named is None or shipped.load_config(named[1])
        for dotted in re.findall(r"--(config\.[\w.]+)=", flags):
            assert dotted in known, f"a page sets {dotted}, which is no setting"


def test_links_and_folders_exist() -> None:
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())]
    floors = (ROOT / "docs" / "architecture.md").read_text()
    folders = re.findall(r"`((?:cns_jax|configs|launch|tests|benchmarks)/[\w/]*)`", floors)
    assert len(links) > 20 and len(folders) > 15
    missing = [str(page.parent / link) for page, link in links if not (page.parent / link).exists()]
    missing += [name for name in folders if not (ROOT / name).exists()]
    assert not missing


def test_every_folder_of_the_package_stands_on_a_floor() -> None:
    floors = (ROOT / "docs" / "architecture.md").read_text()
    folders = [p.parent.relative_to(ROOT).as_posix() for p in (ROOT / "cns_jax").rglob("__init__.py")]
    inner = ("cns_jax/engine/pages/report", "cns_jax/engine/runs/export")
    assert not [folder for folder in folders if f"`{folder}/`" not in floors and folder not in inner]


def test_the_readme_fits_on_three_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
