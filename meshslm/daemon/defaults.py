"""What a profile adds to a request before an engine sees it. Pure.

Rules:
- What the client said wins; the profile fills what it left open.
- A conversation with a system message of its own keeps it, and gets no second one.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from meshslm.profiles import Profile, SamplingDefaults
from meshslm.wire.messages import ChatMessage, Sampling, TaskRequest


def fill(request: TaskRequest, profile: Profile) -> TaskRequest:
    """`request` with the profile's prompt, adapter, sampling and limit where it has none."""
    messages = request.messages
    if messages and profile.system_prompt and all(m.role != "system" for m in messages):
        messages = (ChatMessage("system", profile.system_prompt), *messages)
    return replace(
        request,
        messages=messages,
        adapter=request.adapter or profile.adapter,
        max_tokens=request.max_tokens or profile.max_tokens,
        sampling=_fill_sampling(request.sampling, profile.sampling),
    )


def _fill_sampling(asked: Sampling, defaults: SamplingDefaults) -> Sampling:
    missing = {
        name: value
        for name, value in msgspec.structs.asdict(defaults).items()
        if value is not None and getattr(asked, name) is None
    }
    return replace(asked, **missing) if missing else asked
