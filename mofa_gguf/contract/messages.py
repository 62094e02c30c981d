"""Chat messages and their content.

A message's content is text or a list of parts. MoFA's parts carry no "type" key: ``{"text"}``,
``{"image_url": {"url", "detail"}}``, ``{"audio": {"data", "format"}}``, ``{"video": {"data",
"format"}}``. Written parts have that shape; OpenAI's tagged parts (``{"type": "text", ...}``,
``{"type": "image_url", ...}``, ``{"type": "input_audio", "input_audio": {...}}``) are read too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated, Any

from pydantic import AliasChoices, Discriminator, Field, Tag, field_validator

from mofa_gguf.contract.base import ContractModel
from mofa_gguf.contract.tools import ToolCall


class Role(str, Enum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"

    def __str__(self) -> str:
        return self.value


class ImageDetail(str, Enum):
    """How closely an image is to be looked at."""

    LOW = "low"
    HIGH = "high"
    AUTO = "auto"

    def __str__(self) -> str:
        return self.value


class ImageUrl(ContractModel):
    """An image by address: a URL or a ``data:`` URL."""

    url: str
    detail: ImageDetail | None = None


class AudioData(ContractModel):
    """Base64 audio and its format, such as "wav"."""

    data: str
    format: str


class VideoData(ContractModel):
    """Base64 video and its format, such as "mp4"."""

    data: str
    format: str


class TextPart(ContractModel):
    """MoFA's ``ContentPart::Text``."""

    text: str


class ImagePart(ContractModel):
    """MoFA's ``ContentPart::Image``."""

    image_url: ImageUrl

    @field_validator("image_url", mode="before")
    @classmethod
    def _read_bare_url(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


class AudioPart(ContractModel):
    """MoFA's ``ContentPart::Audio``; OpenAI's key ``input_audio`` is read as well."""

    audio: AudioData = Field(validation_alias=AliasChoices("audio", "input_audio"))


class VideoPart(ContractModel):
    """MoFA's ``ContentPart::Video``."""

    video: VideoData


# The order is serde's: an untagged enum takes the first variant whose keys are there.
_PART_OF_KEY = {
    "text": "<text>",
    "image_url": "<image>",
    "audio": "<audio>",
    "input_audio": "<audio>",
    "video": "<video>",
}
_PART_OF_CLASS: dict[type, str] = {
    TextPart: "<text>",
    ImagePart: "<image>",
    AudioPart: "<audio>",
    VideoPart: "<video>",
}


def _part_branch(value: Any) -> str | None:
    if isinstance(value, Mapping):
        present = (tag for key, tag in _PART_OF_KEY.items() if value.get(key) is not None)
        return next(present, None)
    return _PART_OF_CLASS.get(type(value))


ContentPart = Annotated[
    Annotated[TextPart, Tag("<text>")]
    | Annotated[ImagePart, Tag("<image>")]
    | Annotated[AudioPart, Tag("<audio>")]
    | Annotated[VideoPart, Tag("<video>")],
    Discriminator(
        _part_branch,
        custom_error_type="content_part",
        custom_error_message=(
            "a content part has one of the keys text, image_url, audio (or input_audio) and video"
        ),
    ),
]
"""One part of a message's content, told apart by its key."""


def _content_branch(value: Any) -> str | None:
    if isinstance(value, str):
        return "<string>"
    return "<parts>" if isinstance(value, list | tuple) else None


MessageContent = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[ContentPart], Tag("<parts>")],
    Discriminator(
        _content_branch,
        custom_error_type="message_content",
        custom_error_message="a message's content is text or a list of content parts",
    ),
]
"""A message's content: text, or a list of parts."""


class ChatMessage(ContractModel):
    """One message of a conversation.

    ``reasoning_content`` is an addition of the Python side: what a reasoning model thought before
    its answer, kept out of ``content``. MoFA's Rust types skip the key.
    """

    role: Role = Role.USER
    content: MessageContent | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    @classmethod
    def system(cls, content: str) -> ChatMessage:
        """A system message: how the model is to behave."""
        return cls(role=Role.SYSTEM, content=content)

    @classmethod
    def user(cls, content: str) -> ChatMessage:
        """A user's text."""
        return cls(role=Role.USER, content=content)

    @classmethod
    def user_with_content(cls, content: MessageContent) -> ChatMessage:
        """A user's message, of text or parts."""
        return cls(role=Role.USER, content=content)

    @classmethod
    def user_with_parts(cls, parts: Sequence[ContentPart]) -> ChatMessage:
        """A user's message of several parts."""
        return cls(role=Role.USER, content=list(parts))

    @classmethod
    def user_with_image(cls, text: str, image_url: str) -> ChatMessage:
        """A user's text with an image (a URL or ``data:`` URL)."""
        image = ImagePart(image_url=ImageUrl(url=image_url))
        return cls.user_with_parts([TextPart(text=text), image])

    @classmethod
    def user_with_audio(cls, text: str, audio_base64: str, format: str) -> ChatMessage:
        """A user's text with audio in base64; ``format`` is for example "wav"."""
        audio = AudioPart(audio=AudioData(data=audio_base64, format=format))
        return cls.user_with_parts([TextPart(text=text), audio])

    @classmethod
    def user_with_video(cls, text: str, video_base64: str, format: str) -> ChatMessage:
        """A user's text with video in base64; ``format`` is for example "mp4"."""
        video = VideoPart(video=VideoData(data=video_base64, format=format))
        return cls.user_with_parts([TextPart(text=text), video])

    @classmethod
    def assistant(cls, content: str) -> ChatMessage:
        """The model's text."""
        return cls(role=Role.ASSISTANT, content=content)

    @classmethod
    def assistant_with_tool_calls(cls, tool_calls: Sequence[ToolCall]) -> ChatMessage:
        """The model's tool calls, without text."""
        return cls(role=Role.ASSISTANT, tool_calls=list(tool_calls))

    @classmethod
    def tool_result(cls, tool_call_id: str, content: str) -> ChatMessage:
        """What a tool answered to the call of this id."""
        return cls(role=Role.TOOL, content=content, tool_call_id=tool_call_id)

    def text_content(self) -> str | None:
        """The text, or the first text part's text; None when there is none."""
        if self.content is None or isinstance(self.content, str):
            return self.content
        return next((part.text for part in self.content if isinstance(part, TextPart)), None)
