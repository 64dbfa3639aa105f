"""The only place that puts the real parts together: settings in, a running node out.

Rules:
- Everything outside is opened here and handed down; nothing below reads files or the environment.
- The node is up before its models are: peers and clients can see it load.
- The first SIGINT or SIGTERM ends what is under way, or hands it over, and says goodbye, all within
  seconds; a second one ends at once.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import trio

from meshslm import __version__, limits
from meshslm.adapters import large_pages, memory
from meshslm.adapters.admission_desk import AdmissionDesk
from meshslm.adapters.boot_counter import last_boot, next_boot
from meshslm.adapters.consensus_log import ConsensusLog
from meshslm.adapters.crash_files import kept_on_crash
from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.adapters.hardware import detect
from meshslm.adapters.keyring import DirectoryLock, NodeKey, load_or_create
from meshslm.adapters.libp2p_link import Libp2pLink
from meshslm.adapters.mdns import MdnsDiscovery
from meshslm.adapters.mesh_folder import Member, MeshFolder
from meshslm.adapters.peers_file import PeersFile
from meshslm.adapters.power import with_power
from meshslm.adapters.signing import SigningKey, signed_by
from meshslm.adapters.system_clock import SystemClock
from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import ShutdownRequested, Started
from meshslm.core.node import NodeCore
from meshslm.daemon.chronicler import Chronicler
from meshslm.daemon.consensus_keeper import ConsensusKeeper
from meshslm.daemon.drafts import Drafts
from meshslm.daemon.executor import Executor
from meshslm.daemon.hosting import Hosting, Room, Shape
from meshslm.daemon.membership_keeper import MembershipKeeper
from meshslm.daemon.private_mesh import check_open, credentials_of, enter, lapsed, looking_in_dht
from meshslm.daemon.pump import Pump
from meshslm.daemon.recorder import Recorder
from meshslm.daemon.registrar import Registrar
from meshslm.daemon.remembering import Remembering
from meshslm.daemon.revocations import Revocations
from meshslm.daemon.service import NodeService
from meshslm.daemon.shared_documents import keep_state, state_config
from meshslm.daemon.timers import Timers
from meshslm.daemon.upstream import NAME as UPSTREAM
from meshslm.daemon.upstream import upstream_of
from meshslm.engine.estimate import estimate
from meshslm.engine.gguf import read_header
from meshslm.engine.kinds import operations_of
from meshslm.errors import OurFault
from meshslm.gateway.app import create_app
from meshslm.gateway.cascading import checks_of
from meshslm.gateway.server import HttpAddress, serve
from meshslm.models.adapter_list import AdapterList
from meshslm.models.model_library import ModelLibrary, ReadyModel
from meshslm.models.progress import Progress
from meshslm.observe.log import set_up_logging
from meshslm.profiles import Profile
from meshslm.settings import RecordSettings, Settings
from meshslm.wire.admission import JoinToken
from meshslm.wire.messages import Hardware

log = logging.getLogger("meshslm.boot")

ROLES = ("coordinator", "gateway", "specialist")

GOODBYE_S = 2.0
"""Time for links to empty their control lanes."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A node that listens. Its models may still be loading."""

    node_id: str
    name: str
    gateway_url: str
    addresses: tuple[str, ...]
    profiles: tuple[str, ...]


OnReady = Callable[[Ready], None]
OnProgress = Callable[[str, Progress], None]
"""Hears how far the bringing of a model is: its name, and the step."""


def run_daemon(
    settings: Settings,
    profiles: tuple[Profile, ...],
    *,
    environment: Mapping[str, str],
    token: JoinToken | None = None,
    on_ready: OnReady | None = None,
    on_progress: OnProgress | None = None,
) -> int:
    """Run a node that hosts `profiles` until it is told to stop; the exit code, 0 for a clean stop.

    A node that is in no private mesh yet joins one first with `token`.
    Raises `OurFault` where it cannot start.
    """
    names = [profile.name for profile in profiles]
    for name in names:
        if names.count(name) > 1:
            raise OurFault(f"two profiles are called {name!r}; a node hosts each name once")
    if settings.upstream.url and UPSTREAM in names:
        raise OurFault(f"a profile is called {UPSTREAM!r}, which is what the upstream is called")
    set_up_logging(settings.log.level, settings.log.format, sys.stderr)
    data = Path(settings.node.data_dir)
    with DirectoryLock(data):
        key = load_or_create(data)
        membership = MeshFolder(data)
        if token is not None and lapsed(membership):
            enter(settings, key, membership, token)
        last = last_boot(data)
        boot = next_boot(data)
        node = _Node(settings, profiles, key, membership, environment, on_progress, last)
        with kept_on_crash(node.dump_recording, data, boot):
            return trio.run(node.run, boot, on_ready, strict_exception_groups=True)


def _recorder(settings: RecordSettings, config: CoreConfig, seed: bytes) -> Recorder | None:
    if not settings.mib:
        return None
    return Recorder(config, seed, most_bytes=settings.mib * limits.MIB, texts=settings.texts)


def _core_config(
    settings: Settings, key: NodeKey, member: Member | None, name: str, mesh: str
) -> CoreConfig:
    """What the core is told of a node's settings."""
    return CoreConfig(
        node=key.node_id,
        name=name,
        mesh=mesh,
        agent=f"meshslm/{__version__}",
        bootstrap=(*settings.link.bootstrap, *(member.addresses if member else ())),
        credentials=credentials_of(member),
        queue_per_engine=settings.limits.queue,
        state=state_config(settings, key, member),
        strategy=settings.routing.strategy,
        hedge=settings.routing.hedge,
        semantic=settings.routing.semantic,
        unsure_below=settings.routing.unsure_below,
        tiers=(settings.routing.edge_below, settings.routing.cloud_from),
        roles=ROLES if settings.consensus.coordinator else ROLES[1:],
        voters=settings.consensus.voters,
        lease_reads=settings.consensus.lease_reads,
        verify_node=signed_by,
        relay=settings.link.relay if settings.link.reach else None,
    )


class _Node:
    """The parts of one node, joined."""

    def __init__(
        self,
        settings: Settings,
        profiles: tuple[Profile, ...],
        key: NodeKey,
        membership: MeshFolder,
        environment: Mapping[str, str],
        on_progress: OnProgress | None,
        last_boot: int,
    ) -> None:
        self._settings = settings
        self._on_progress = on_progress
        self._library = ModelLibrary(Path(settings.node.models_dir), environment=environment)
        self._drafts = Drafts(profiles, self._library, self._budget_mib())
        self._adapters = AdapterList(self._library)
        self._states = Path(settings.node.data_dir) / "states"
        self.name = settings.node.name or f"node-{key.node_id[-6:]}"
        self._profiles = profiles
        clock = SystemClock()
        chance = Chance(secrets.token_bytes(32))
        member = membership.member()
        if member is None:
            check_open(settings)
        self.mesh = settings.node.mesh if member is None else member.certificate.mesh_name
        config = _core_config(settings, key, member, self.name, self.mesh)
        seed = secrets.token_bytes(32)
        self._core = NodeCore(config, Chance(seed))
        recorder = _recorder(settings.record, config, seed)
        self.dump_recording = recorder.dump if recorder is not None else None
        self._pump = Pump(self._core, clock, recorder)
        self._link = Libp2pLink(key, settings.link.listen)
        self._timers = Timers(clock, self._pump.handle)
        self._service = NodeService(
            self._core, self._pump, clock, chance.fork("tasks"), readiness=self._readiness
        )
        peers_file = PeersFile(Path(settings.node.data_dir), settings.node.mesh)
        self._remembering = Remembering(peers_file, self._service, self._pump)
        executor = Executor(self._link, self._timers, self._service, self._pump)
        executor.seal_with(SigningKey(key.secret).seal)
        executor.reach_by(self._link.reach)
        self._pump.attach(executor.perform, begin=self._link.cork, end=self._link.uncork)
        self._state = keep_state(settings, self._core, self._pump, executor, last_boot)
        self._consensus = self._keep_log(executor)
        self._keeper: MembershipKeeper | None = None
        if member is not None:
            desk = AdmissionDesk(membership, key, time.time)
            self._keeper = MembershipKeeper(membership, desk, self._pump.handle, time.time)
            executor.keep_membership(self._keeper)
        self._look_in_dht = looking_in_dht(settings, member, self._link, self._service)
        self._upstream = upstream_of(settings.upstream, Path(settings.node.data_dir), environment)
        if self._upstream is not None:
            self._service.refuses = self._upstream.refused
        self._hosting = self._made_hosting(executor)

    def _made_hosting(self, executor: Executor) -> Hosting[ReadyModel]:
        """What keeps the engines of its profiles."""
        return Hosting(
            self._profiles,
            self._hardware(),
            self._pump,
            executor,
            ensure=self._ensure,
            make_engine=self._make_engine,
            adapters=self._adapters.of,
            upstream=self._upstream,
            look=with_power,
            room=Room(
                self._budget_mib(),
                self._settings.engine.idle_s * 1000,
                lambda: memory.read().available_mib,
            ),
        )

    def _keep_log(self, executor: Executor) -> ConsensusKeeper | None:
        """Of a node that may be a coordinator: what writes its log."""
        if not self._settings.consensus.coordinator:
            return None
        kept = ConsensusLog(Path(self._settings.node.data_dir))
        keeper = ConsensusKeeper(kept, self._pump.handle)
        executor.keep_log(keeper.persist)
        return keeper

    async def run(self, boot: int, on_ready: OnReady | None) -> int:
        """Serve until a signal comes."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._timers.run)
                self._link.reach.relay_for(self._core.may_relay)
                listening = trio.Event()
                nursery.start_soon(self._serve_link, listening)
                await listening.wait()
                if self._keeper is not None:
                    self._keeper.begin()
                    nursery.start_soon(self._keeper.run)
                    decided = Revocations(self._keeper.notices, self._service, self._pump.handle)
                    nursery.start_soon(decided.run)
                if self._consensus is not None:
                    self._consensus.begin(secrets.randbits(52) + 1)
                    nursery.start_soon(self._consensus.run)
                address = await self._open_gateway(nursery)
                self._pump.handle(Started(boot, self._link.addresses))
                if self._state is not None:
                    nursery.start_soon(self._state.run)
                    self._state.begin()
                    texts = self._settings.state.journal_texts
                    chronicler = Chronicler(self._state.desk, boot, texts=texts)
                    self._service.chronicler = chronicler
                    nursery.start_soon(chronicler.run)
                    nursery.start_soon(Registrar(self._state.desk, self._core.announced).run)
                self._remembering.recall()
                nursery.start_soon(self._remembering.run)
                log.info("node %s (%s), boot %d", self.name, self._link.node_id, boot)
                if self._settings.link.mdns:
                    nursery.start_soon(self._mdns().run, self._pump.post)
                if self._look_in_dht is not None:
                    nursery.start_soon(self._look_in_dht, self._pump.post)
                if self._profiles or self._upstream is not None:
                    nursery.start_soon(self._hosting.run)
                if on_ready is not None:
                    on_ready(self._told(address))
                nursery.start_soon(large_pages.gather_later)
                nursery.start_soon(self._heed, signals)
                await self._service.free_to_go.wait()
                await self._leave()
                if self._state is not None:
                    if self._service.chronicler is not None:
                        with trio.move_on_after(GOODBYE_S):
                            await self._service.chronicler.write()
                    await self._state.close(boot)
                nursery.cancel_scope.cancel()
        return 0

    async def _serve_link(self, listening: trio.Event) -> None:
        pump = self._pump
        await self._link.run(pump.post, started=listening.set, handle=pump.handle)

    async def _open_gateway(self, nursery: trio.Nursery) -> HttpAddress:
        gateway = self._settings.gateway
        app = create_app(
            self._service,
            version=__version__,
            host=gateway.host,
            allowed_hosts=gateway.allowed_hosts,
            body_bytes=gateway.max_body_bytes,
            deadline_ms=self._settings.limits.deadline_ms,
            recording=self.dump_recording,
            state=None if self._state is None else self._state.desk,
            checks=checks_of(self._profiles),
        )
        address: HttpAddress = await nursery.start(
            partial(serve, app, host=gateway.host, port=gateway.port)
        )
        return address

    def _mdns(self) -> MdnsDiscovery:
        link = self._link
        return MdnsDiscovery(link.node_id, self.mesh, lambda: link.addresses)

    def _told(self, address: HttpAddress) -> Ready:
        return Ready(
            self._link.node_id,
            self.name,
            address.url,
            self._link.addresses,
            tuple(profile.name for profile in self._profiles),
        )

    async def _heed(self, signals: AsyncIterator[int]) -> None:
        """Leave at the first signal; end at the second, as engines die with their parent."""
        await anext(signals)
        log.info("leaving")
        self._service.drain(self._settings.limits.drain_s * 1000)
        os._exit(128 + await anext(signals))

    async def _leave(self) -> None:
        """Say goodbye, and give links a moment to carry it."""
        self._pump.handle(ShutdownRequested())
        with trio.move_on_after(GOODBYE_S):
            while self._service.status().peers_alive:  # noqa: ASYNC110 - the core has no waiters
                await trio.sleep(0.02)

    def _readiness(self) -> tuple[bool, str]:
        status = self._service.status()
        if status.leaving or status.drain is not None:
            return False, "leaving"
        if self._profiles:
            why = "; ".join([*self._hosting.unready(), *self._core.unready()])
            return not why, why
        hosted = any(peer.specialists for peer in self._service.peers() if peer.state == "alive")
        return hosted, "" if hosted else "no member hosts a model yet"

    def _hardware(self) -> Hardware:
        return with_power(replace(detect(), metered=self._settings.link.metered))

    # --- hosting --------------------------------------------------------------------------------
    def _ensure(self, model: str) -> tuple[ReadyModel, Shape]:
        """Have a model ready; runs in a thread."""

        def report(progress: Progress) -> None:
            trio.from_thread.check_cancelled()
            if self._on_progress is not None:
                self._on_progress(model, progress)

        found = self._library.ensure(model, report)
        shape = self._shape(found)
        drafting = self._drafts.bring(found, shape.context, shape.need_mib, report)
        return found, replace(shape, need_mib=shape.need_mib + drafting)

    def _shape(self, model: ReadyModel) -> Shape:
        engine = self._settings.engine
        trained = model.manifest.context_length
        context = min(engine.context or trained, trained) if trained else engine.context
        header = read_header(model.path)
        adapters = self._adapters.sizes(model.name)
        told = estimate(header, context, engine.slots, engine.batch, adapters)
        does = operations_of(header)
        return Shape(context, engine.slots, told.least_mib, told.unknown, does, told.weights_mib)

    def _adapter(self, model: str, name: str) -> ReadyModel | None:
        """A stored adapter of a model; a damaged one is told of and not used."""
        try:
            return self._library.adapter(model, name)
        except OurFault as fault:
            log.warning("adapter %s cannot be used: %s", name, fault)
            return None

    def _adapter_path(self, model: str, name: str) -> Path | None:
        found = self._adapter(model, name)
        return found.path if found is not None else None

    def _budget_mib(self) -> int:
        """Memory for models; a quarter is left to everything else."""
        return self._settings.engine.memory_mib or memory.read().total_mib * 3 // 4

    def _make_engine(self, model: ReadyModel) -> EngineProcess:
        engine = self._settings.engine
        spec = EngineSpec(
            model=model.name,
            path=model.path,
            draft=self._drafts.path(model.name),
            context=self._shape(model).context,
            slots=engine.slots,
            threads=engine.threads or None,
            batch=engine.batch,
            gpu_layers=None if engine.gpu_layers < 0 else engine.gpu_layers,
            readable=(str(self._library.store.blobs),),  # adapters may come at any time
            sandbox=engine.sandbox,
            states=str(self._states) if engine.states_mib else "",
            states_mib=engine.states_mib,
            private_mib=self._budget_mib(),
        )
        return EngineProcess(spec, find_adapter=partial(self._adapter_path, model.name))
