"""Folders of models, datasets and recipes that others made name code in many ways: none of it runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dailies.curation import openclip, schema
from dailies.curation.errors import DailiesError, Damaged, RecipeError, UsageError
from dailies.curation.model_folders import refuse_code
from dailies.curation.openclip import openclip_folder
from dailies.curation.tables import DatasetTables
from dailies.pipelines.recipes import own_files
from dailies.pipelines.recipes.recipe import load_recipe, parse_recipe
from dailies.pipelines.selecting import last_recipe
from dailies.training.recipes import load_recipe as load_training_recipe
from dailies.zoo.formats.components import load_model, load_processor, load_tokenizer
from dailies.zoo.formats.references import BUILTIN

CLIP, COCA = BUILTIN / "clip-world", BUILTIN / "coca-world"
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What the attacks' code would leave."""
    return tmp_path / "code was run"


@pytest.fixture
def evil(mark: Path) -> str:
    """A module that would take a tokenizer's place."""
    return (
        f"open({str(mark)!r}, 'w')\nfrom transformers import PreTrainedTokenizerFast\n"
        "class Evil(PreTrainedTokenizerFast):\n    pass\n"
    )


def copy(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.md"))
    return folder


def edit(path: Path, **values: Any) -> None:
    """Set values of a JSON file by dotted keys, with __ for the dots."""
    row = json.loads(path.read_text()) if path.exists() else {}
    for key, value in values.items():
        here = row
        *above, last = key.split("__")
        for part in above:
            here = here.setdefault(part, {})
        here[last] = value
    path.write_text(json.dumps(row))


# ---- open_clip ------------------------------------------------------------------------------------------------------


def test_an_open_clip_folder_cannot_have_its_own_python_run(tmp_path: Path, mark: Path, evil: str) -> None:
    folder = copy(COCA, tmp_path / "model")
    (folder / "evil.py").write_text(evil)
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "evil.Evil"]}, tokenizer_class="Evil")
    edit(folder / openclip_folder.CONFIG, model_cfg__text_cfg__tokenizer_kwargs={"trust_remote_code": True})
    with pytest.raises(Damaged, match=r"model: evil\.py may hold code"):
        openclip.load(str(folder))
    (folder / "evil.py").rename(tmp_path / "evil.py")
    with pytest.raises(Damaged, match=r"open_clip_config\.json: trust_remote_code=true: asks for code"):
        openclip.load(str(folder))
    shutil.copy(COCA / openclip_folder.CONFIG, folder)
    with pytest.raises(Damaged, match=r"tokenizer_config\.json: "):
        openclip.load(str(folder))
    assert not mark.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"model_cfg__text_cfg__tokenizer_kwargs": {"subfolder": "../.."}},
        {"model_cfg__text_cfg__tokenizer_kwargs": {"tokenizer_type": "bert"}},
        {"model_cfg__text_cfg__tokenizer_kwargs": {"clean": "os.system"}},
        {"model_cfg__text_cfg__hf_model_name": "evil/model"},
        {"model_cfg__text_cfg__hf_tokenizer_name": "/etc"},
        {"model_cfg__text_cfg__hf_tokenizer_name": "../../other"},
        {"model_cfg__text_cfg__act_kwargs": {"approximate": "evil"}},
        {"model_cfg__text_cfg__norm_kwargs": {"device": ["x"]}},
        {"model_cfg__text_cfg__width": 1 << 40},
        {"model_cfg__text_cfg__layers": "12"},
        {"model_cfg__vision_cfg__timm_model_name": "hf-hub:evil/model"},
        {"model_cfg__vision_cfg__timm_model_name": "local-dir:/tmp/evil"},
        {"model_cfg__vision_cfg___target_": "os.system"},
        {"model_cfg__vision_cfg__image_size": [1, 2, 3]},
        {"model_cfg__multimodal_cfg__hf_model_name": "evil/model"},
        {"model_cfg__cast_dtype": "float16"},
        {"model_cfg__TRUST_REMOTE_CODE": True},
        {"preprocess_cfg__interpolation": "evil"},
        {"preprocess_cfg__size": "96"},
        {"preprocess_cfg__transform": "os.system"},
        {"auto_map": {"AutoModel": "evil.Evil"}},
    ],
    ids=lambda change: next(iter(change)).split("__")[-1],
)
def test_an_open_clip_configuration_says_only_what_is_known(change: dict[str, Any], tmp_path: Path) -> None:
    folder = copy(COCA, tmp_path / "model")
    openclip_folder.check_folder(folder)
    edit(folder / openclip_folder.CONFIG, **change)
    with pytest.raises(Damaged, match=r"open_clip_config\.json: "):
        openclip.load(str(folder))


def test_open_clips_own_configurations_are_all_known() -> None:
    factory = pytest.importorskip("open_clip.factory")
    seen = 0
    for name in factory.list_models():
        config = factory.get_model_config(name)
        if "hf_model_name" not in config["text_cfg"]:  # such a folder would fetch a network by name
            openclip_folder.CONFIGURATION.validate_python({"model_cfg": config, "preprocess_cfg": {"size": 224}})
            seen += 1
    assert seen > 100


def test_weights_that_may_be_a_pickle_are_not_read(tmp_path: Path) -> None:
    folder = copy(COCA, tmp_path / "model")
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"\x80\x04")
    openclip_folder.check_folder(folder)  # a hub's folder has both
    (folder / "open_clip_model.safetensors").rename(folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"open_clip_pytorch_model\.bin; convert"):  # what open_clip would take first
        openclip.load(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"open_clip_pytorch_model\.bin; convert"):
        openclip.load(str(folder))


def test_a_tokenizer_elsewhere_is_not_fetched(tmp_path: Path) -> None:
    folder = copy(COCA, tmp_path / "model")
    edit(folder / openclip_folder.CONFIG, model_cfg__text_cfg__hf_tokenizer_name="evil/tokenizer")
    openclip_folder.check_folder(folder)  # its own is there, and is what open_clip takes
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match="its tokenizer is elsewhere"):
        openclip.load(str(folder))


def test_a_hub_id_is_a_folder_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    folder = copy(COCA, tmp_path / "model")
    asked: dict[str, Any] = {}

    def snapshot(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert openclip.weights("hf-hub:evil/model") == openclip.weights(str(COCA))
    assert asked["name"] == "evil/model"
    assert not [pattern for pattern in asked["allow_patterns"] if pattern.endswith((".py", ".bin", ".pt", "*"))]
    edit(folder / openclip_folder.CONFIG, model_cfg__text_cfg__tokenizer_kwargs={"trust_remote_code": True})
    with pytest.raises(Damaged, match="trust_remote_code"):
        openclip.load("hf-hub:evil/model")


def test_the_fingerprint_takes_in_all_that_changes_the_meaning(tmp_path: Path) -> None:
    def before(folder: Path) -> str:  # as tables of the built-in model are named
        hasher = hashlib.sha256()
        for name in ("open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"):
            hasher.update(name.encode() + b"\0" + hashlib.sha256((folder / name).read_bytes()).digest())
        return hasher.hexdigest()

    assert openclip.weights(str(COCA)) == before(COCA)
    folder = copy(COCA, tmp_path / "model")
    seen = {openclip.weights(str(folder))}
    edit(folder / openclip_folder.CONFIG, preprocess_cfg__mean=[0.5, 0.5, 0.5])
    seen.add(openclip.weights(str(folder)))
    for name in openclip_folder.SETTINGS:
        edit(folder / name, another=1) if name.endswith(".json") else (folder / name).write_text("x")
        seen.add(openclip.weights(str(folder)))
    assert len(seen) == 2 + len(openclip_folder.SETTINGS)


# ---- transformers and diffusers -------------------------------------------------------------------------------------

ASKING: list[tuple[str, dict[str, Any]]] = [
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "evil.Evil"]}}),
    ("tokenizer_config.json", {"tokenizer_class": "EvilTokenizer"}),
    ("tokenizer_config.json", {"tokenizer_class": "BertJapaneseTokenizer"}),
    ("tokenizer_config.json", {"chat_template": "{{ cycler.__init__.__globals__.os.system('id') }}"}),
    ("tokenizer_config.json", {"vocab_file": "../../other/vocab.json"}),
    ("tokenizer_config.json", {"tokenizer_file": "/etc/passwd"}),
    ("tokenizer_config.json", {"extra": [{"_target_": "os.system"}]}),
    ("config.json", {"auto_map": {"AutoConfig": "evil.Config"}}),
    ("config.json", {"text_config__auto_map": {"AutoConfig": "evil/repo--evil.Config"}}),
    ("config.json", {"attn_implementation": "evil/kernel"}),
    ("config.json", {"text_config___attn_implementation": "evil/kernel"}),
    ("config.json", {"quantization_config": {"quant_method": "evil"}}),
    ("config.json", {"trust_remote_code": True}),
    ("config.json", {"custom_pipeline": "evil/pipeline"}),
]


@pytest.mark.parametrize(
    ("name", "change"), ASKING, ids=lambda value: value if isinstance(value, str) else next(iter(value))
)
def test_settings_that_ask_for_code_are_refused_whoever_loads(
    name: str, change: dict[str, Any], tmp_path: Path, mark: Path, evil: str
) -> None:
    from transformers import CLIPTextModel

    folder = copy(CLIP, tmp_path / "clip")
    load_tokenizer(folder)
    (folder / "evil.py").write_text(evil)
    edit(folder / name, **change)
    with pytest.raises(Damaged, match=rf"clip/{name}: "):
        load_tokenizer(folder)
    with pytest.raises(Damaged):
        load_processor(folder)
    if name == "config.json":
        with pytest.raises(Damaged):
            load_model(CLIPTextModel, folder)
    (folder / "evil.py").unlink()
    with pytest.raises(Damaged):
        refuse_code(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    "change", [{"image_processor_type": "Evil"}, {"auto_map": {"AutoImageProcessor": "evil.Evil"}}]
)
def test_a_processor_names_no_other_class(change: dict[str, Any], tmp_path: Path) -> None:
    folder = copy(CLIP, tmp_path / "clip")
    edit(folder / "preprocessor_config.json", **change)
    with pytest.raises(Damaged, match="preprocessor_config"):
        load_processor(folder)


@pytest.mark.parametrize("shard", ["../other.safetensors", "/tmp/other.safetensors", "weights.bin", None, ["x"]])
def test_an_index_names_safetensors_of_its_folder_alone(shard: Any, tmp_path: Path) -> None:
    from transformers import CLIPTextModel

    folder = copy(CLIP, tmp_path / "clip")
    edit(folder / "model.safetensors.index.json", weight_map={"a": shard})
    with pytest.raises(Damaged, match="weight_map"):
        load_model(CLIPTextModel, folder)


@pytest.mark.parametrize(
    "name", ["a.py", "b/A.PY", "c.so", "d.pkl", "e.npy", "f.PT", "g.pth", "chat_template.jinja", "h.ckpt", "i.bin"]
)
def test_a_model_of_the_zoo_holds_no_code(name: str, tmp_path: Path) -> None:
    refuse_code(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    with pytest.raises(Damaged, match="may hold code"):
        refuse_code(tmp_path)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\xff"])
def test_settings_that_are_no_json_are_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(Damaged, match="is not JSON") as caught:
        refuse_code(tmp_path)
    assert "\n" not in str(caught.value)


# ---- own scorers ----------------------------------------------------------------------------------------------------

OWN = """
open({mark!r}, "w")
import pyarrow as pa
class Evil:
    columns = (pa.field("evil", pa.int64()),)
    def open(self): ...
"""
HEAD: list[Any] = [
    {"observe": {"observers": ["change"], "evidence": {"fps": 2, "short_side": 90}}},
    {"cut": {"detector": "content", "min_seconds": 0.5}},
]


@pytest.fixture
def own(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file beside the data that would be run, in the working directory; nobody has named it yet."""
    monkeypatch.setenv("DAILIES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(own_files, "_named", set())
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.py"
    path.write_text(OWN.format(mark=str(mark)))
    return path


def recorded(folder: Path, scorer: str) -> DatasetTables:
    """A dataset whose last run names a scorer."""
    dataset = DatasetTables.create(str(folder / "dataset"))
    source = {"name": "own", "steps": [*HEAD, {"score": {"scorer": scorer}}]}
    row = {
        "run_id": "r",
        "started": datetime.now(UTC),
        "command": "dailies curate",
        "version": "0",
        "recipe": json.dumps(source),
        "recipe_hash": "h",
        "tables": "{}",
        "number": 1,
    }
    dataset.table("runs", schema.RUNS).append([row], keys=("r",))
    return dataset


@pytest.mark.parametrize("reference", ["{file}:Evil", "evil.py:Evil", "./evil.py:Evil", "dataset/../evil.py:Evil"])
def test_a_file_that_a_dataset_names_is_not_run(reference: str, own: Path, mark: Path, tmp_path: Path) -> None:
    dataset = recorded(tmp_path, reference.format(file=own))
    with pytest.raises(RecipeError, match=r"evil\.py:Evil: the dataset names this file"):
        last_recipe(dataset, [])
    assert not mark.exists()


def test_a_file_that_the_user_named_before_runs_again(own: Path, mark: Path, tmp_path: Path) -> None:
    dataset = recorded(tmp_path, f"{own}:Evil")
    parse_recipe({"steps": [*HEAD, {"score": {"scorer": "evil.py:Evil"}}]}, folder=tmp_path)
    own_files._named.clear()  # as in another process
    assert last_recipe(dataset, []).tables()
    assert mark.exists()


@pytest.mark.parametrize("scorer", ["evil", "evil:Evil", "evil.Evil", "EVIL.PY:Evil"])
def test_a_bare_name_is_no_file(scorer: str, own: Path, mark: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        parse_recipe({"steps": [*HEAD, {"score": {"scorer": scorer}}]}, folder=tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["evil", "tiny", "default"])
def test_a_recipe_by_name_is_no_file_in_the_working_directory(name: str, own: Path, mark: Path) -> None:
    own.rename(own.with_name(f"{name}.py"))
    for load in (load_recipe, load_training_recipe):
        with contextlib.suppress(DailiesError):
            load(name)
    assert not mark.exists()
