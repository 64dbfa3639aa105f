"""The sections `[routing]` and `[upstream]` of a configuration."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from meshslm.consensus_settings import Switch
from meshslm.strategies import Strategy


class RoutingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How whoever answers is chosen."""

    strategy: Annotated[
        Strategy,
        Meta(description="For requests that name none; `auto` takes the least expected cost."),
    ] = "auto"
    semantic: Annotated[
        Switch,
        Meta(
            description="Recognise domains by trained weights: with vectors where an embedding "
            "model for it is loaded here (profile `classifier`), by words where none is. Off: by "
            "words alone, untrained, and every request counts as simple."
        ),
    ] = True
    unsure_below: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Least probability with which a domain is recognised; below it the "
            "generalist answers.",
        ),
    ] = 0.3
    hedge: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Share of requests for which a second node may be asked where the first "
            "token comes later than nineteen of twenty of its kind; 0: none.",
        ),
    ] = 0.05
    edge_below: Annotated[
        float,
        Meta(ge=0, le=1, description="Requests of less complexity go to any specialist."),
    ] = 0.3
    cloud_from: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Requests of this complexity or more go to an upstream, where there is "
            "one; those between, to a larger model.",
        ),
    ] = 0.7


class UpstreamSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An OpenAI-compatible endpoint outside the mesh, for this node's own clients."""

    url: Annotated[
        str,
        Meta(
            pattern=r"^(?:https?://[^\s]{1,500})?\Z",
            description="Such as `https://llm.example.org/v1`; empty: there is none. It is asked "
            "for hard requests and where `upstream` is named, never for what is private.",
            extra={"expected": "an address that begins with http:// or https://"},
        ),
    ] = ""
    model: Annotated[
        str,
        Meta(
            pattern=r"^[^\s]{0,100}\Z",
            description="The model to ask it for.",
            extra={"expected": "at most 100 characters without blanks"},
        ),
    ] = ""
    key_file: Annotated[str, Meta(max_length=4096, description="File that holds its key.")] = ""
    key_variable: Annotated[
        str, Meta(max_length=255, description="Or the environment variable that does.")
    ] = ""
    price_per_1k: Annotated[
        float, Meta(ge=0, le=1e6, description="Of a thousand tokens, in any unit.")
    ] = 0.0
    spend_per_day: Annotated[
        float, Meta(ge=0, le=1e9, description="In the same unit, by UTC days; 0: without bound.")
    ] = 0.0
    requests_per_minute: Annotated[
        int, Meta(ge=0, le=999_999, description="Requests in any minute; 0: without bound.")
    ] = 0
    timeout_s: Annotated[
        float, Meta(ge=0.1, le=600, description="Silence of so many seconds is a failure.")
    ] = 30.0
    context: Annotated[
        int, Meta(ge=0, le=2**24, description="Tokens that fit it; 0: as many as there are.")
    ] = 0
    slots: Annotated[int, Meta(ge=1, le=256, description="Requests at the same time.")] = 8
