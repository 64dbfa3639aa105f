"""Bounds of who is there, of large meshes and of consensus; a part of `limits`, which was too long.

Rules:
- The same as in `limits`.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- failure detection ---------------------------------------------------------------------------
PROBE_MS: Final = 250
"""Between two probes that a node begins by itself. In a mesh of any size each node is probed so
often too, so one that hangs is being looked at within a second in 98 of 100 cases."""

PROBES_SPARED: Final = 4
"""Of so many probes one is sent where each peer tells its presence every second: that shows as
much, and who misses it looks. What is left measures round trips; while there is news to hand on all
are sent, as it rides on them."""

PROBE_AGAIN_MS: Final = 100
"""Between two pings to a peer that is being looked at: 25 before it is given up."""

PINGS_AT_ONCE: Final = 32
"""Peers pinged so often; where more are being looked at each is pinged more rarely, yet still often
enough to have missed `PINGS_UNANSWERED` when it is to be given up."""

PROBE_WAIT_MS: Final = 300
"""Silence after a first ping before others are asked to try: three times a LAN's worst answer.
More where the measured round trip says so."""

HELPERS: Final = 3
"""Others asked to probe a peer that does not answer: what the SWIM paper found to be enough."""

PROBES_FOR_OTHERS: Final = 64
"""Probes under way on others' behalf; further ones are answered with no."""

PINGS_UNANSWERED: Final = 8
"""Pings without an answer before a peer is given up, however long it was silent before: at 20 %
loss either way all eight get lost once in 3,500 times, and silence must come on top of it."""

SUSPICION_MS: Final = 2_500
SUSPICION_MOST_MS: Final = 4_000
"""Silence after which a suspect is dead: the first where others have come to suspect it by
themselves, the second where nobody has. Hung processes must be noticed in three seconds."""

CONFIRMATIONS: Final = 3
"""Independent suspicions that shorten the wait all the way; the Lifeguard paper's choice."""

LINK_SILENCE_MS: Final = 6_000
"""A peer that others reach, but not this node, loses its link here after so much silence."""

LATE_MS: Final = 500
"""This node's own timer came so late: what it did not hear meanwhile is no sign of anything."""

HEALTH_MOST: Final = 2
"""Times are stretched by up to one more than this on a node that has trouble itself. Lifeguard has
8, which would let a node that is cut off wait for half a minute."""

NEWS: Final = 16
"""Pieces of news in one message, about 60 bytes each; we send at most half as many."""

NEWS_REPEATS: Final = 3
"""Times that a piece of news is handed on, and once more for each doubling of the mesh: less than
SWIM's multiple, as urgent news was sent to `FANOUT` others at once already, and each node finds the
silent among its links by itself."""

NEWS_KEPT: Final = 256
"""Pieces of news waiting to be handed on; what was sent most often makes room."""

FANOUT: Final = 3
"""Peers told at once of a suspicion or of its refutation, each of whom tells as many."""

PEERS_REMEMBERED: Final = 256
PEERS_FILE_BYTES: Final = 1 * MIB
"""Members written down for the next start: one that is still there is enough to find all."""

# --- a large mesh -------------------------------------------------------------------------------
FULL_MESH: Final = 64
"""Other members up to which every two keep a link. Beyond, each has some neighbours, and shrinks
back where fewer than three quarters of this are left."""

MEMBERS: Final = 16_384
"""Members of which a record is kept, those that are gone included: some 500 bytes each."""

LOST_KEPT: Final = 2_048
LOST_MS: Final = 3_600_000
"""Members remembered that are gone, and for how long: they are tried now and then, so that the
halves of a mesh that was cut in two find each other again."""

RECORDS_PER_SOURCE: Final = 1_024
"""Members whose records name one IP address first: more stand behind no NAT that we know of, and
nobody fills the table with identities alone."""

SERVICES: Final = 16
"""Specialists told of in a record."""

FACTS: Final = 32
"""Statements in one message: 16 KiB as they are, 256 KiB at most."""

BUCKETS: Final = 64
"""Parts in which two tables are compared: with 5,000 members 78 each."""

BUCKETS_AT_ONCE: Final = 16
"""Differing parts compared in one go."""

CHOSEN: Final = 4
"""Neighbours that a node chooses itself, at random. Graphs of so many are connected with near
certainty, and strangers cannot take these places."""

CHOOSERS: Final = 8
"""Neighbours that may have chosen this node: twice the mean."""

BEAT_MS: Final = 2_000
"""Between two signs of life to a neighbour. With eight neighbours the first misses one, and
the second, early enough for the mesh to know a death within 5 s."""

ACCUSERS: Final = 2
"""Members that must have lost somebody before others believe it; one alone may lie, or have a bad
cable."""

ACCUSED_MS: Final = 60_000
"""An accusation by a single member holds after so long without a refutation."""

ACCUSATIONS: Final = 60
ACCUSATIONS_PER_S: Final = 0.5
"""Accusations of one member that are believed, at once and in the long run: one that is cut off
from all its neighbours has a dozen to tell."""

AUDIT_MS: Final = 60_000
"""Between two calls at a member drawn from all, half of them from those that are gone."""

LINK_IDLE_MS: Final = 15_000
"""A link that serves for nothing else is closed by who dialled it after so long without a task or
a question."""

LARGE_MESH_LINKS: Final = 160
"""Links of a node in a large mesh; those unused for longest are closed beyond."""

COMPARE_MS: Final = 4_000
"""Two neighbours' tables are compared at the first difference while nothing changes, else so
often."""

SPREAD_MS: Final = 100
"""News that comes in quick succession is handed on together so often."""

COORDINATORS: Final = 3
"""Members that keep the loads of one share of a domain: two may die at once."""

SHARE: Final = 64
"""Nodes of one domain whose loads one set of coordinators keeps; more are shared out."""

OFFERS: Final = 16
"""Nodes named in answer to one question. With half of them, who has a choice among 25 in a mesh of
100 waits a tenth longer for the slowest hundredth of answers (simulated)."""

TELL_MS: Final = 250
"""A host whose load has changed tells its coordinators so soon, and no more often: a kilobyte or
two a second while it is busy, nothing while it is not."""

QUESTION_MS: Final = 250
"""A coordinator that has not answered by then: the next is asked."""

ANSWER_MS: Final = 1_500
"""How long an answer counts as new; a presence comes every second."""

ANSWER_KEPT_MS: Final = 30_000
"""How long an older one serves where nobody answers."""

QUESTIONS: Final = 256
"""Questions under way, and tasks waiting for one of them."""

ANSWERS: Final = 128
"""Answers remembered."""

QUEUED_FOR_LINK: Final = 32
"""Messages to one node that wait for a link to it."""

IDLE_PRESENCE_MS: Final = 3_000
"""Between two presences of a node whose load does not change."""

# --- members found through a DHT ----------------------------------------------------------------
DHT_SERVERS: Final = 16
"""Servers that a lookup begins with, each with a path of its own."""

DHT_CLOSEST: Final = 20
"""Servers that keep a record, and of which a lookup wants to hear: libp2p's k."""

DHT_PARALLEL: Final = 3
"""Servers asked at the same time: libp2p's alpha."""

DHT_DIALS: Final = 128
"""Dials of one lookup. Twenty honest answers take some forty; where half of the paths lead to liars
the others still have that many."""

DHT_ADDRESSES: Final = 4
"""Addresses of one server that are tried, and of this node that are announced."""

DHT_MESSAGE_BYTES: Final = 256 * KIB
"""An answer names twenty servers and as many members, each with a dozen addresses of 100 bytes."""

DHT_FOUND: Final = 32
"""Members that one lookup hands on to be dialled: one that is there is enough to find all."""

DHT_ASK_MS: Final = 5_000
"""From dialling a server to its answer: as a dial of a member."""

DHT_LOOKUP_MS: Final = 120_000
"""One lookup: 128 dials, three at a time, of which half are never answered."""

DHT_ROUND_MS: Final = 3_600_000
"""Between two rounds of a node that is not alone, give or take a quarter. Servers forget a record
after a day, and those that run for a mesh alone when they restart."""

DHT_ALONE_MS: Final = 10_000
DHT_ALONE_MOST_MS: Final = 600_000
"""Between two rounds of one that is alone: the first, and at most, doubling."""

# --- consensus ----------------------------------------------------------------------------------
SEATS: Final = 9
"""Voters, or learners, of one group: beyond seven voters a decision only gets slower."""

DECISIONS: Final = 1000
DECISIONS_BYTES: Final = MIB
"""All that is decided in a mesh: it is in every coordinator's memory and in one snapshot."""

DECISION_VALUE_BYTES: Final = 4 * KIB
"""A digest and a few words, a notice, or the ids of sixty authors that are gone for ever; what is
longer stands in a document."""

SHARES: Final = 256
"""Holders of one quota."""

PROPOSALS_REMEMBERED: Final = 1000
"""Entries for which a proposal's result is kept, so that it is carried out once: at 100 a second a
proposal may be repeated for ten seconds."""

PROPOSALS_PENDING: Final = 512
"""Proposals, or questions, that a leader has not answered yet."""

APPEND_ENTRIES: Final = 64
"""Entries in one message: 100 KiB where each has the longest value."""

SNAPSHOT_PART_BYTES: Final = 64 * KIB
"""A part of a snapshot: it stands 5 ms before something urgent at 100 Mbit/s."""

LOG_ENTRIES: Final = 1024
"""Applied entries after which a log is cut and a snapshot written, some 10 ms of work."""

HEARTBEAT_MS: Final = 100
ELECTION_MS: Final = 500
"""A leader shows itself this often, and a follower waits one to two of these for it: thrice the
pause of a busy process, and a new leader in under two seconds."""

LEASE_MS: Final = 375
"""How long after a heartbeat that a majority answered no other leader can have been chosen. It is
0.75 of `ELECTION_MS`, so it holds while no clock is more than 14 % wrong."""

ASK_MS: Final = 5_000
"""Time for a decision, in which several leaders may be chosen."""

ASK_AGAIN_MS: Final = 300

SEAT_LEARN_MS: Final = 30_000
"""Time for a learner to catch up before another member is tried in its place."""

SEAT_LOST_MS: Final = 60_000
"""A voter that is gone for so long is replaced: a restart or an update takes less."""

SEATS_LOOK_MS: Final = 1_000
"""Between two looks of the leader at who has a seat."""
