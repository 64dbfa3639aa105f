"""An answer of OpenAI's Responses API in the making, whether it is streamed or told at once."""

from __future__ import annotations

import time
from dataclasses import dataclass

from meshslm.api.conversation import Call, Turn
from meshslm.api.openai_responses import RouteInfo
from meshslm.api.responses_replies import (
    IncompleteDetails,
    InputTokensDetails,
    OutputCall,
    OutputItem,
    OutputMessage,
    OutputReasoning,
    OutputText,
    OutputTokensDetails,
    ReasoningText,
    ResponseReply,
    ResponseUsage,
)
from meshslm.api.responses_request import ResponseRequest
from meshslm.gateway.jobs import Head
from meshslm.gateway.kept import KeptResponses
from meshslm.gateway.transcript import Block, Transcript
from meshslm.wire.messages import Usage

_ID_PREFIXES = {"text": "msg_", "reasoning": "rs_", "call": "fc_"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was asked, the conversation that it goes on from, and where the answer is kept."""

    asked: ResponseRequest
    turns: tuple[Turn, ...]
    kept: KeptResponses

    def reply(self, head: Head, status: str, output: list[OutputItem]) -> ResponseReply:
        """The answer as far as it is."""
        asked = self.asked
        return ResponseReply(
            id=head.id,
            created_at=head.created,
            status=status,
            model=head.model,
            output=output,
            instructions=asked.instructions,
            previous_response_id=asked.previous_response_id,
            store=asked.store is not False,
            max_output_tokens=asked.max_output_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            parallel_tool_calls=asked.parallel_tool_calls is not False,
            tool_choice=asked.tool_choice or "auto",
            tools=asked.tools or [],
            text=asked.text if asked.text and asked.text.format else {"format": {"type": "text"}},
            reasoning=asked.reasoning or {"effort": None, "summary": None},
            metadata=asked.metadata or {},
            user=asked.user,
        )

    def end(
        self, head: Head, transcript: Transcript, usage: Usage, info: RouteInfo | None
    ) -> ResponseReply:
        """The whole answer; keeps it, unless the client said not to."""
        cut = transcript.finish == "length"
        status = "incomplete" if cut else "completed"
        blocks = transcript.blocks
        items = [item(head, block, "completed") for block in blocks[:-1]]
        # What was cut off is the last item; those before it are whole.
        items += [item(head, block, status) for block in blocks[-1:]]
        reply = self.reply(head, status, items)
        if cut:
            reply.incomplete_details = IncompleteDetails(reason="max_output_tokens")
        reply.usage = ResponseUsage(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputTokensDetails(cached_tokens=usage.cached_tokens),
            output_tokens=usage.completion_tokens,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=transcript.thoughts.tokens),
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
        )
        reply.meshslm = info
        if reply.store:
            turns = (*self.turns, _turn(transcript))
            self.kept.keep(reply, turns, time.monotonic(), private=head.private)
        return reply


def item(head: Head, block: Block, status: str) -> OutputItem:
    """A block as an item of the output."""
    name = item_id(head, block)
    if block.kind == "text":
        return OutputMessage(id=name, status=status, content=[OutputText(text=block.text)])
    if block.kind == "reasoning":
        return OutputReasoning(id=name, status=status, content=[ReasoningText(text=block.text)])
    return OutputCall(
        id=name, status=status, call_id=block.id, name=block.name, arguments=block.text
    )


def item_id(head: Head, block: Block) -> str:
    """The id of a block's item."""
    task = head.id.partition("_")[2]
    return f"{_ID_PREFIXES[block.kind]}{task}_{block.number}"


def _turn(transcript: Transcript) -> Turn:
    """The answer as a turn of the conversation that goes on from it."""
    calls = tuple(
        Call(call.id, call.name, call.text or "{}") for call in transcript.of_kind("call")
    )
    return Turn("assistant", transcript.text, calls=calls, reasoning=transcript.reasoning)
