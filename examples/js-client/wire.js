// The bytes of the protocol: messages with numbered fields, as msgpack, cut into frames.
// Written from docs/protocol.md; only the messages and fields that this client uses are named.

import * as msgpack from '@msgpack/msgpack'

const LANE = { control: 0, interactive: 1 }
const FRAME_PAYLOAD = 64 * 1024 - 4
const MESSAGE_BYTES = 2 * 1024 * 1024
const LAST = 1 << 26

// A field is a number, or [number, shape of the part], or [number, [shape of each item]].
const loads = { model: 1, ready: 2, running: 3, queued: 4, freeSlots: 5 }
const domain = { domain: 1, sentence: 2 }
const specialist = { profile: 1, model: 2, digest: 3, quantisation: 4, context: 5, slots: 6, domains: [7, [domain]], operations: 10 }
const signed = { payload: 1, signature: 2 }
const credential = { certificate: [1, signed], issuer: [2, signed], succession: [3, [signed]] }
const turn = { role: 1, content: 2 }
const request = { selector: 1, messages: [2, [turn]], maxTokens: 4, deadlineMs: 9 }
const chunk = { choice: 1, text: 3, finish: 5, reasoning: 6 }
const usage = { promptTokens: 1, completionTokens: 2 }
const attempt = { task: 1, attempt: 2 }

const MESSAGES = {
  Hello: [1, { versionLow: 1, versionHigh: 2, mesh: 3, boot: 4, name: 5, agent: 6, addresses: 7, credential: [8, credential] }],
  Goodbye: [2, { reason: 1, leaving: 2, code: 3 }],
  Presence: [3, { boot: 1, seq: 2, loads: [3, [loads]], nextMs: 4, capability: 5 }],
  Capability: [4, { boot: 1, revision: 2, specialists: [3, [specialist]] }],
  CapabilityWanted: [5, {}],
  Ping: [6, { nonce: 1 }],
  Pong: [7, { nonce: 1 }],
  Peers: [8, { peers: [1, [{ peer: 1, addresses: 2 }]] }],
  Probe: [9, { peer: 1, nonce: 2 }],
  Probed: [10, { peer: 1, nonce: 2, reached: 3 }],
  TaskSubmit: [16, { ...attempt, profile: 3, request: [4, request], remainingMs: 5 }],
  TaskResend: [17, { ...attempt, seq: 3 }],
  TaskDone: [18, attempt],
  TaskAccepted: [24, { ...attempt, ahead: 3, items: 4 }],
  TaskRefused: [25, { ...attempt, code: 3, detail: 4, retryAfterMs: 5 }],
  TaskChunk: [26, { ...attempt, seq: 3, chunk: [4, chunk] }],
  TaskEnded: [27, { ...attempt, seq: 3, usage: [4, usage] }],
  TaskFailed: [28, { ...attempt, seq: 3, code: 4, detail: 5 }],
  Certificate: [48, { mesh: 1, meshName: 2, serial: 3, node: 4, notBefore: 5, notAfter: 6, rights: 7, domains: 8, namespaces: 9, key: 10, token: 11 }],
  Notice: [49, { mesh: 1, about: 2, subject: 3, at: 4, until: 5 }],
  JoinToken: [50, { mesh: 1, signer: 2, biscuit: 3, addresses: 4, rights: 5, domains: 6 }],
  JoinRequest: [51, { versionLow: 1, versionHigh: 2, token: 3, name: 4, rights: 5, domains: 6 }],
  Admittance: [52, { credential: [1, credential], code: 2, detail: 3, addresses: 4 }]
}
const BY_KIND = new Map(Object.entries(MESSAGES).map(([name, [kind, shape]]) => [kind, [name, shape]]))

// What a field that was left out means, where that is not "none".
const DEFAULTS = { addresses: [], domains: [], namespaces: [], rights: [], loads: [], specialists: [], peers: [], succession: [], text: '', items: 0, seq: 0 }

function toMap (shape, part) {
  const map = new Map()
  for (const [name, field] of Object.entries(shape)) {
    const value = part[name]
    if (value === undefined || value === null) continue
    const [number, inner] = Array.isArray(field) ? field : [field]
    map.set(number, write(inner, value))
  }
  return map
}

function write (inner, value) {
  if (Array.isArray(inner)) return value.map(item => toMap(inner[0], item))
  if (inner) return toMap(inner, value)
  return value
}

/** The library writes maps with keys of text only; ours have numbers. */
function pack (value) {
  if (value instanceof Map) return Buffer.concat([header(0x80, 0xde, value.size), ...[...value].flat().map(pack)])
  if (Array.isArray(value)) return Buffer.concat([header(0x90, 0xdc, value.length), ...value.map(pack)])
  return msgpack.encode(value)
}

function header (short, long, size) {
  return Buffer.from(size < 16 ? [short + size] : [long, size >> 8, size & 0xff])
}

function fromMap (shape, map) {
  const part = {}
  for (const [name, field] of Object.entries(shape)) {
    const [number, inner] = Array.isArray(field) ? field : [field]
    const value = map[number] ?? DEFAULTS[name]
    if (value === undefined) continue
    if (Array.isArray(inner)) part[name] = value.map(item => fromMap(inner[0], item))
    else part[name] = inner ? fromMap(inner, value) : value
  }
  return part
}

/** The bytes of a message: `encode('Ping', { nonce: 1 })`. */
export function encode (name, part) {
  const [kind, shape] = MESSAGES[name]
  return pack([kind, toMap(shape, part)])
}

/** `[name, message]`, or null for a kind that is not known here. Throws for what is no message. */
export function decode (bytes) {
  const [kind, map] = msgpack.decode(bytes)
  const known = BY_KIND.get(kind)
  return known ? [known[0], fromMap(known[1], map)] : null
}

/** The frames of one message. */
export function frames (message, lane = 'control') {
  const pieces = []
  for (let at = 0; at < message.length; at += FRAME_PAYLOAD) {
    const payload = message.subarray(at, at + FRAME_PAYLOAD)
    const last = at + payload.length === message.length
    const header = Buffer.alloc(4)
    header.writeUInt32BE((last ? LAST : 0) + (LANE[lane] << 24) + payload.length)
    pieces.push(header, payload)
  }
  return Buffer.concat(pieces)
}

/** Takes bytes of a stream as they come and gives the messages that they complete. */
export class FrameReader {
  #lanes = [[], [], []]
  #left = Buffer.alloc(0); // or `*` below would multiply it

  * feed (bytes) {
    this.#left = Buffer.concat([this.#left, bytes])
    while (this.#left.length >= 4) {
      const header = this.#left.readUInt32BE()
      const length = header & 0xffffff
      const lane = this.#lanes[(header >>> 24) & 3]
      if (header >>> 27 || !lane || !length || length > FRAME_PAYLOAD) throw new Error('no frame of this protocol')
      if (this.#left.length < 4 + length) return
      lane.push(this.#left.subarray(4, 4 + length))
      this.#left = this.#left.subarray(4 + length)
      if (lane.reduce((sum, piece) => sum + piece.length, 0) > MESSAGE_BYTES) throw new Error('a message of over 2 MiB')
      if (header & LAST) yield Buffer.concat(lane.splice(0))
    }
  }
}
