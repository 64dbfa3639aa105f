"""From the settings of an upstream to what hosts it.

Rules:
- Off unless a URL is given.
- Its key comes from a file or a variable that the settings name, and is in neither of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from meshslm import limits
from meshslm.adapters.upstream_budget import Bounds, UpstreamBudget
from meshslm.adapters.upstream_engine import UpstreamEngine, UpstreamSpec
from meshslm.adapters.upstream_key import read_key
from meshslm.daemon.hosting import Upstream
from meshslm.errors import OurFault
from meshslm.profiles import Profile
from meshslm.routing_settings import UpstreamSettings
from meshslm.wire.messages import Specialist

NAME: Final = "upstream"
"""What a client names where it wants the upstream to answer."""


def upstream_of(
    settings: UpstreamSettings, data: Path, environment: Mapping[str, str]
) -> Upstream | None:
    """The upstream, if there is one. Raises `OurFault` where its settings do not fit together."""
    if not settings.url:
        return None
    if not settings.model:
        raise OurFault("[upstream] has a url and no model; name the one to ask for")
    key = read_key(settings.key_file, settings.key_variable, environment)
    spec = UpstreamSpec(
        settings.url,
        settings.model,
        key,
        settings.price_per_1k,
        settings.timeout_s,
        settings.slots,
    )
    bounds = Bounds(settings.requests_per_minute, settings.spend_per_day)
    engine = UpstreamEngine(spec, UpstreamBudget(bounds, data / "upstream.json"))
    specialist = Specialist(
        profile=NAME,
        model=engine.model[: limits.NAME_BYTES],
        digest="",
        quantisation="",
        context=settings.context,
        slots=settings.slots,
        price=settings.price_per_1k * 1000.0,
    )
    # Its name is no name of a stored model, which it need not be: nothing is fetched for it.
    return Upstream(engine, Profile(name=NAME, model=NAME), specialist, engine.refuses)
