"""Bounds of shared documents, with their units and reasons; a part of `limits`, which was too long.

Rules:
- The same as in `limits`.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

DOCUMENT_NAME_BYTES: Final = 160
"""Name of a shared document: a class, and a namespace or a day."""

STATE_KEY_BYTES: Final = 256
"""Key of one entry, in UTF-8."""

STATE_VALUE_BYTES: Final = 64 * KIB
"""One entry's value: a page of text or a vector; larger things are files."""

UPDATE_BYTES: Final = 128 * KIB
"""Changes in one delta: the largest entry, or a thousand small ones, at 0.2 MB/ms of checking."""

UPDATE_CHANGES: Final = 1_024
"""Entries changed by one delta."""

DELTA_UPDATES: Final = 256
"""Writes that one delta brings together: one signature for all that became durable at once."""

SIGNED_DELTA_BYTES: Final = UPDATE_BYTES + 4 * KIB
"""A delta before it is signed: names and numbers around the updates."""

INTERESTS: Final = 64
"""Patterns by which a node says which documents it wants."""

DIGESTS: Final = 256
"""Documents told of in one message, about 60 bytes each."""

PARTS: Final = 1_024
"""Parts of one document: one for each author, a few more after crashes."""

DELTAS: Final = 1_024
"""Deltas in one message."""

DIGEST_BYTES: Final = 60
DIGESTS_TOLD_PER_S: Final = 64 * KIB
DIGESTS_TOLD_BURST: Final = MIB
"""Bytes of digests told to one peer that compares: four times those of as many documents as there
may be, and then all of them again every four seconds. Beyond, the next comparison tells."""

HOLDINGS: Final = 64
"""Parts told of in one `StateHave`."""

STATE_SYNC_BYTES: Final = 256 * KIB
"""Deltas sent in one answer before the asker must ask again: four frames, so bulk never piles up
in a lane."""

STATE_PUSH_PER_S: Final = 2 * MIB
STATE_PUSH_BURST: Final = 1 * MIB
"""Bytes of deltas pushed to one peer; beyond, it is only told and asks at its own pace."""

DOCUMENTS: Final = 4_096
"""Shared documents on one node, all classes together."""

DOCUMENTS_PER_AUTHOR: Final = 512
"""Documents that one author may have a part in: a year of ledgers and some namespaces."""

DOCUMENT_KEYS: Final = 200_000
"""Entries of one author in one document: twice what was measured."""

DOCUMENT_MIB: Final = 64
"""Default size of one author's live entries in one document; a setting."""

STATE_SYNC_MS: Final = 10_000
STATE_SYNC_MOST_MS: Final = 30_000
"""Between two comparisons with a random peer, drawn between these."""

STATE_TELL_MS: Final = 100
"""Changes that arrive within so long are told of together."""

STATE_PUSH_MS: Final = 20
"""Between two pushes: at most fifty messages a second, far from what counts as a flood."""

STATE_SYNC_DELTAS: Final = 32
"""Deltas in one answer: 6 ms of checking signatures at a time."""

STATE_REBUILD_STEP: Final = 256
"""Entries rebuilt at a time: 2 ms."""

STATE_OWN_PARTS: Final = 8
"""Parts of this node in one document, one for each crash, before they are rebuilt into one."""

STATE_DELTAS_KEPT: Final = 2_048
"""Deltas of one part before it is rebuilt: whoever comes new checks each signature, 0.2 ms."""

STATE_PULL_MS: Final = 500
"""An answer that has not come by then is asked for again: five times a LAN's worst."""

STATE_PULL_MOST_MS: Final = 30_000
STATE_PULL_HELD_MS: Final = 30_000
"""The longest time for which an answer is waited for while none comes from its peer, and the
longest while others do: 1 MiB takes 30 s at 0.3 Mbit/s."""

STATE_PULLS: Final = 4
"""Documents asked of one peer at a time: 1 MiB on its way, as much as a slow wire takes 8 s for,
and enough that a quick one never waits for the next question."""

STATE_ANSWERS_BYTES: Final = 2 * MIB
"""Answers on their way to one peer: twice what an honest one asks for, half of a lane."""

STATE_ANSWER_LEAST: Final = 4 * KIB
"""What an answer counts at least, so that at most 512 of them are remembered for a peer."""

STATE_ANSWER_MS: Final = 30_000
"""An answer of which a peer has not said that it came no longer counts: it may have no further
question. So who never says so is answered 70 KB/s."""

STATE_ANSWER_NUMBERS: Final = 2**53
"""Numbers of answers are drawn below this, so that nobody hits upon one."""

STATE_CAME: Final = 16
"""Answers that one message says have come: four times as many as are asked for at a time."""

STATE_WRITES_WAITING: Final = 8_192
"""Writes of local programs that are not durable yet; further ones are refused."""

STATE_REBUILD_BYTES: Final = 256 * KIB
STATE_REBUILD_RATIO: Final = 4
"""An author's part is rebuilt when everything in it takes so many times what is live, and it is
not small anyway."""

STATE_COMPRESS_BYTES: Final = 1_024
"""Smaller batches are not compressed: one signed delta hardly shrinks, as a third is signature."""

FOLLOWED_CHANGES: Final = 4_096
"""Changes that wait for a slow follower before it is cut off."""

FORGET_LOOK_MS: Final = 300_000
"""Between two looks at which authors are given up: it is decided some times a year."""

FORGET_FIRST_MS: Final = 10_000
"""First look of a life: by then a node has met somebody to ask."""

FORGET_AGAIN_MS: Final = 10_000
"""Least time between two looks, however often a peer says that it knows more."""

STATE_JOURNAL_BYTES: Final = 16 * MIB
"""Deltas read from the journal, or waiting to be written to it, before the next must wait."""

# --- memory for programs ------------------------------------------------------------------------
MEMORY_PAGE: Final = 1_000
MEMORY_PAGE_BYTES: Final = MIB
"""Entries and bytes in one answer: some milliseconds of work."""

CONVERSATION_MS: Final = 30 * 86_400_000
"""Turns of a conversation are kept for so long: thirty days (a guess)."""

MEMORY_WATCHES: Final = 64
"""Watches of one node; each holds a connection and up to `STREAM_ITEMS` changes."""

# --- journals and ledgers -----------------------------------------------------------------------
TASK_EVENTS: Final = 64
"""Events of one task in the journal; a task has some four, and one more for each attempt."""

JOURNAL_TASKS: Final = 20_000
"""Tasks in one day's journal of a node, some 600 bytes each; older ones make room."""

JOURNAL_DAYS: Final = 7
"""Days for which journals are kept: long enough to look into last week's trouble (a guess)."""

HISTORY_MS: Final = 1_500
"""Other members' journals are waited for so long: each answers from memory."""

HISTORY_LIST_MS: Final = 2_000
"""Between two looks through a whole journal for others: one of 20,000 tasks takes some 60 ms."""

HISTORY_TASKS: Final = 100
HISTORY_BYTES: Final = 128 * KIB
"""Tasks in one answer to another member, some 600 bytes each, and their bytes."""

HISTORY_TOLD_PER_S: Final = 64 * KIB
HISTORY_TOLD_BURST: Final = 256 * KIB
"""Bytes of single tasks told to one member, of which one has some kilobytes; beyond, this node is
busy."""

HISTORY_QUESTIONS: Final = 32
"""Questions of this node's clients about other members' journals at once."""

USAGE_DAYS: Final = 366
"""Days that one look at the ledger may span."""

# --- registry -----------------------------------------------------------------------------------
REGISTRY_MS: Final = 10_000
"""Between two entries of a node: what changes while it starts goes out as one or two."""

REGISTRY_RENEW_MS: Final = 6 * 3_600_000
"""An entry that has not changed is written again, so that it shows that its node is alive: at a
thousand members, and some 700 bytes each, 3 MB a day."""

REGISTRY_MEMBER_MS: Final = 7 * 86_400_000
"""Members that were not there for so long are not shown any more: a week (a guess)."""

REGISTRY_BYTES: Final = 16 * KIB
"""One member's entry: some forty specialists."""
