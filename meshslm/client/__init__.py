"""Ask a mesh from Python.

    from meshslm.client import Client

    with Client() as mesh:
        print(mesh.ask("Why is the sky blue?").text)

`Client` blocks; `AsyncClient` has the same methods for asyncio and trio. What goes wrong is raised
as `RequestFault` (the mesh's answer was no; `code` says why) or `OurFault` (no node could be
reached, or it is none).
"""

from meshslm.api.admin import DEFAULT_URL, DrainInfo, ModelStatus, PeerInfo, StatusReply
from meshslm.api.consensus import DecisionInfo
from meshslm.api.history import TaskHistory, TaskStep, UsageRow
from meshslm.api.memory import Happened, MemoryEntry
from meshslm.api.openai_responses import CompletionUsage, Model, RouteInfo
from meshslm.api.recall import Citation
from meshslm.api.registry import MemberInfo
from meshslm.api.routing import RouteReply
from meshslm.api.state import ForgetReply
from meshslm.client.answer import Answer, ToolCall
from meshslm.client.asking import Message, Options, RouteOptions, Routing, Urgency, json_form, tool
from meshslm.client.asynchronous import AsyncClient, AsyncTextStream
from meshslm.client.blocking import Client, TextStream
from meshslm.client.memory import AsyncMemory, Memory
from meshslm.client.vectors import Embeddings, Ranking, Scored
from meshslm.errors import FaultCode, OurFault, RequestFault

__all__ = [
    "DEFAULT_URL",
    "Answer",
    "AsyncClient",
    "AsyncMemory",
    "AsyncTextStream",
    "Citation",
    "Client",
    "CompletionUsage",
    "DecisionInfo",
    "DrainInfo",
    "Embeddings",
    "FaultCode",
    "ForgetReply",
    "Happened",
    "MemberInfo",
    "Memory",
    "MemoryEntry",
    "Message",
    "Model",
    "ModelStatus",
    "Options",
    "OurFault",
    "PeerInfo",
    "Ranking",
    "RequestFault",
    "RouteInfo",
    "RouteOptions",
    "RouteReply",
    "Routing",
    "Scored",
    "StatusReply",
    "TaskHistory",
    "TaskStep",
    "TextStream",
    "ToolCall",
    "Urgency",
    "UsageRow",
    "json_form",
    "tool",
]
