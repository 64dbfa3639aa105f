// node ask.js QUESTION [--token-file FILE] [--member FILE] [--model NAME] [--tokens N] [--peers N]

import './node20.js'
import { readFile, writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { generateKeyPair, privateKeyFromRaw } from '@libp2p/crypto/keys'
import { decode, encode } from '@msgpack/msgpack'
import { readToken } from './credentials.js'
import { join, makeNode, Member } from './member.js'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    'token-file': { type: 'string' },
    member: { type: 'string', default: 'member.key' },
    model: { type: 'string' },
    name: { type: 'string', default: 'js-client' },
    tokens: { type: 'string', default: '64' },
    peers: { type: 'string', default: '1' }
  }
})
const PATIENCE_MS = 30000

/** Key and certificate are kept in a file, so that a token is used once. */
async function membership () {
  try {
    const kept = decode(await readFile(values.member))
    return { node: await makeNode(privateKeyFromRaw(kept.key)), member: kept.membership }
  } catch (error) {
    if (error.code !== 'ENOENT' || !values['token-file']) throw error
  }
  const key = await generateKeyPair('Ed25519')
  const node = await makeNode(key)
  const token = readToken(await readFile(values['token-file'], 'utf8'))
  const member = await join(node, token, values.name)
  await writeFile(values.member, encode({ key: key.raw, membership: member }), { mode: 0o600 })
  return { node, member }
}

async function until (fact, what) {
  const deadline = Date.now() + PATIENCE_MS
  for (let found; Date.now() < deadline; await new Promise(resolve => setTimeout(resolve, 50))) {
    if ((found = fact())) return found
  }
  throw new Error(`${what}: not within ${PATIENCE_MS / 1000} s`)
}

const { node, member: kept } = await membership()
const member = new Member(node, kept, values.name)
try {
  await Promise.any(kept.addresses.map(address => member.connect(address)))
  await until(() => member.peers.size >= Number(values.peers), `${values.peers} peers`)
  const target = await until(() => member.find(values.model), `a ready node with ${values.model ?? 'a model'}`)
  for (const peer of member.peers.values()) {
    console.error(`${peer.name} ${peer.id}: ${peer.specialists.map(s => s.profile).join(', ') || 'hosts nothing'}`)
  }
  const answer = member.ask(target, positionals.join(' ') || 'Hello!', Number(values.tokens))
  let pieces = 0
  for (let piece = await answer.next(); ; piece = await answer.next()) {
    if (piece.done) {
      process.stdout.write('\n')
      console.error(JSON.stringify({ pieces, ...piece.value }))
      break
    }
    pieces += piece.value ? 1 : 0
    process.stdout.write(piece.value)
  }
} finally {
  await member.leave()
}
