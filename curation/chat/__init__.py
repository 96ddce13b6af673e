"""Chat models: text, or text about pictures, out of a prompt; one file a way to a model. ``CHAT_MODELS`` names them all.

Captioners, the summary, scorers that put a question and ``dailies expand`` all ask through these.
"""

from __future__ import annotations

from typing import Any

from dailies.curation.chat import smollm2, wording
from dailies.curation.chat.asking import Ask, ChatImage, ChatModel, Outcome, Reply
from dailies.curation.chat.endpoint import EndpointChat
from dailies.curation.chat.inputs import spread
from dailies.curation.chat.prompts import Prompt, PromptText, plain_prompt, prompt_hash, prompt_names, prompt_text
from dailies.curation.chat.transformers_chat import TransformersChat
from dailies.curation.chat.vllm_chat import VllmChat

CHAT_MODELS: dict[str, Any] = {
    "transformers": TransformersChat,
    "endpoint": EndpointChat,
    "vllm": VllmChat,
}

__all__ = [
    "CHAT_MODELS",
    "Ask",
    "ChatImage",
    "ChatModel",
    "EndpointChat",
    "Outcome",
    "Prompt",
    "PromptText",
    "Reply",
    "TransformersChat",
    "VllmChat",
    "chat_folder",
    "generation",
    "inputs",
    "plain_prompt",
    "prompt_hash",
    "prompt_names",
    "prompt_text",
    "smollm2",
    "spread",
    "wording",
]
