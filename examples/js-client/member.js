// A member of a mesh: joins by token, says hello to every node it hears of, and asks one of them.

import { randomUUID } from 'node:crypto'
import { noise } from '@libp2p/noise'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { check } from './credentials.js'
import { decode, encode, FrameReader, frames } from './wire.js'

const PROTOCOL = '/meshslm/1.0.0'
const VERSIONS = { versionLow: 1, versionHigh: 1 }
const RESEND_MS = 500
const SILENCE_MS = 2000

/** The libp2p of this client: TCP, Noise, Yamux, and nothing else. It only dials. */
export function makeNode (privateKey) {
  return createLibp2p({
    privateKey,
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionMonitor: { enabled: false }
  })
}

/** The one kept stream to a peer. */
class Link {
  constructor (stream, peer) {
    this.peer = peer
    this.stream = stream
  }

  static async dial (node, address) {
    const target = multiaddr(address)
    const stream = await node.dialProtocol(target, PROTOCOL, { signal: AbortSignal.timeout(5000) })
    return new Link(stream, address.split('/p2p/').pop())
  }

  send (name, message, lane) {
    this.stream.send(frames(encode(name, message), lane))
  }

  async * messages () {
    const reader = new FrameReader()
    for await (const bytes of this.stream) {
      for (const message of reader.feed(bytes.subarray())) {
        const heard = decode(message)
        if (heard) yield heard
      }
    }
  }
}

/** Redeem a token at one of its addresses; a credential, and where the member that gave it is. */
export async function join (node, token, name) {
  let why = new Error('the token names no address')
  for (const address of token.addresses) {
    try {
      const link = await Link.dial(node, address)
      link.send('JoinRequest', { ...VERSIONS, token: token.biscuit, name, rights: token.rights, domains: token.domains })
      for await (const [kind, answer] of link.messages()) {
        if (kind !== 'Admittance') continue
        if (!answer.credential) throw new Error(`the mesh refuses this node: ${answer.detail} (${answer.code})`)
        check(answer.credential, node.peerId.toString(), token.mesh, keysOf(token))
        const addresses = answer.addresses.length ? answer.addresses : token.addresses
        return { mesh: token.mesh, keys: keysOf(token), credential: answer.credential, addresses }
      }
      throw new Error('it hung up without an answer')
    } catch (error) {
      why = error
    } finally {
      await Promise.all(node.getConnections().map(connection => connection.close()))
    }
  }
  throw why
}

const keysOf = token => [token.signer, token.mesh]

/** This node in the mesh. `membership` is what `join` gave. */
export class Member {
  #node
  #membership
  #name
  #boot = Math.floor(Date.now() / 1000)
  #seq = 0
  #streams = new Map()
  #timer
  peers = new Map()

  constructor (node, membership, name) {
    this.#node = node
    this.#membership = membership
    this.#name = name
    this.#timer = setInterval(() => this.#tellPresence(), 1000)
  }

  /** Dial a member, say hello, and serve the link in the background. */
  async connect (address) {
    const link = await Link.dial(this.#node, address)
    const { credential } = this.#membership
    link.send('Hello', { ...VERSIONS, mesh: '', boot: this.#boot, name: this.#name, agent: 'js-client', credential })
    const peer = { id: link.peer, name: '', specialists: [], loads: [], link }
    await new Promise((resolve, reject) => {
      this.#serve(peer, resolve).then(() => reject(new Error('it hung up')), reject).finally(() => this.peers.delete(peer.id))
    })
  }

  async #serve (peer, acquainted) {
    for await (const [kind, message] of peer.link.messages()) {
      if (kind === 'Goodbye') throw new Error(`refused: ${message.reason} ${message.code ?? ''}`)
      if (kind === 'Hello') {
        check(message.credential, peer.id, this.#membership.mesh, this.#membership.keys)
        peer.name = message.name
        this.peers.set(peer.id, peer)
      } else if (this.peers.has(peer.id)) {
        this.#hear(peer, kind, message)
        if (kind === 'Capability') acquainted(peer)
      }
    }
  }

  #hear (peer, kind, message) {
    const { link } = peer
    if (kind === 'Ping') link.send('Pong', { nonce: message.nonce })
    else if (kind === 'Probe') link.send('Probed', { peer: message.peer, nonce: message.nonce, reached: this.peers.has(message.peer) })
    else if (kind === 'Presence') peer.loads = message.loads
    else if (kind === 'Capability') peer.specialists = message.specialists
    else if (kind === 'CapabilityWanted') link.send('Capability', { boot: this.#boot, revision: 0 })
    else if (kind === 'Peers') this.#meet(message.peers)
    else if (kind.startsWith('Task')) this.#streams.get(message.task)?.(kind, message)
  }

  /** Addresses are hints: who answers there still has to show a certificate. */
  #meet (found) {
    for (const { peer, addresses } of found) {
      if (!addresses.length || this.peers.has(peer) || this.#node.getConnections().some(c => c.remotePeer.toString() === peer)) continue
      this.connect(addresses[0]).catch(() => {}) // it may be gone; whoever told us will tell again
    }
  }

  #tellPresence () {
    this.#seq += 1
    for (const { link } of this.peers.values()) link.send('Presence', { boot: this.#boot, seq: this.#seq, capability: 0 })
  }

  /** Who hosts something that generates text and is called, or good at, `wanted`. */
  find (wanted) {
    for (const peer of this.peers.values()) {
      const ready = new Set(peer.loads.filter(load => load.ready).map(load => load.model))
      for (const specialist of peer.specialists) {
        const names = [specialist.profile, specialist.model, ...specialist.domains.map(card => card.domain)]
        if (ready.has(specialist.model) && (!wanted || names.includes(wanted))) return { peer, specialist }
      }
    }
    return null
  }

  /** Have a question answered; yields text as it is generated. */
  async * ask ({ peer, specialist }, question, maxTokens = 64) {
    const task = randomUUID()
    const attempt = 1
    const tell = (name, more) => peer.link.send(name, { task, attempt, ...more }, 'interactive')
    const submit = () => tell('TaskSubmit', {
      profile: specialist.profile,
      request: { selector: specialist.profile, messages: [{ role: 'user', content: question }], maxTokens },
      remainingMs: 60000
    })
    const items = new Map()
    let [next, accepted, news] = [0, false, () => {}]
    this.#streams.set(task, (kind, message) => {
      accepted = true
      if (kind === 'TaskRefused') items.set(next, [kind, message])
      else if (kind !== 'TaskAccepted' && message.seq >= next) items.set(message.seq, [kind, message])
      news()
    })
    try {
      submit()
      while (true) {
        while (!items.has(next)) {
          const heard = new Promise(resolve => { news = () => resolve(true) })
          if (!this.peers.has(peer.id)) throw new Error(`${peer.name} is gone`)
          if (await Promise.race([heard, pause(accepted ? SILENCE_MS : RESEND_MS)])) continue
          if (accepted) tell('TaskResend', { seq: next })
          else submit()
        }
        const [kind, message] = items.get(next)
        items.delete(next++)
        if (kind === 'TaskEnded') return message.usage
        if (kind !== 'TaskChunk') throw new Error(`${message.code}: ${message.detail ?? ''}`)
        yield message.chunk.text
      }
    } finally {
      tell('TaskDone')
      this.#streams.delete(task)
    }
  }

  /** Say goodbye and stop. */
  async leave () {
    clearInterval(this.#timer)
    for (const { link } of this.peers.values()) {
      link.send('Goodbye', { reason: 'leaving', leaving: true })
      await link.stream.close().catch(() => {})
    }
    await this.#node.stop()
  }
}

const pause = ms => new Promise(resolve => setTimeout(resolve, ms, false))
