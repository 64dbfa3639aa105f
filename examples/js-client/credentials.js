// Who is a member: tokens as text, certificates and the signatures on them.
// Written from the section "Private meshes" of docs/protocol.md.

import { createPublicKey, verify } from 'node:crypto'
import { decode } from './wire.js'

const PREFIX = Buffer.from('meshslm statement 1\0', 'ascii')
const TOKEN = 'meshslm-token-1.'
const DER_ED25519 = Buffer.from('302a300506032b6570032100', 'hex') // what stands before a raw public key

/** The `JoinToken` in a token's text. */
export function readToken (text) {
  if (!text.startsWith(TOKEN)) throw new Error(`a token begins with ${TOKEN}`)
  const [name, token] = decode(Buffer.from(text.slice(TOKEN.length).trim(), 'base64url')) ?? []
  if (name !== 'JoinToken') throw new Error('the token is damaged')
  return token
}

/**
 * The certificate in a credential. Throws where it is not `node`'s, not of `mesh`, not genuine, or
 * not valid now. `roots` are keys of the mesh that are known already, the newest first.
 */
export function check (credential, node, mesh, roots) {
  if (!credential) throw new Error('it has no certificate')
  let keys = roots
  for (const notice of credential.succession) {
    if (!isSigned(notice, keys[0])) continue // of a key before: known
    const next = statement(notice, 'Notice')
    if (next.about === 'root' && same(next.mesh, mesh)) keys = [Buffer.from(next.subject, 'hex'), ...keys]
  }
  if (credential.issuer) {
    const issuer = valid(credential.issuer, keys, mesh)
    const certificate = valid(credential.certificate, [issuer.key], mesh)
    if (!within(issuer, certificate)) throw new Error('its certificate gives more than its signer has')
    return owned(certificate, node)
  }
  return owned(valid(credential.certificate, keys, mesh), node)
}

function valid (signed, keys, mesh) {
  if (!keys.some(key => isSigned(signed, key))) throw new Error('its certificate is not signed by this mesh')
  const certificate = statement(signed, 'Certificate')
  const now = Date.now() / 1000
  if (!same(certificate.mesh, mesh)) throw new Error('its certificate is of another mesh')
  if (now < certificate.notBefore || now >= certificate.notAfter) throw new Error('its certificate is not valid now')
  return certificate
}

function within (issuer, certificate) {
  const covers = (given, names) => given.includes('*') || names.every(name => given.includes(name))
  return issuer.rights.includes('admit') && !certificate.rights.includes('admit') &&
    ['rights', 'domains', 'namespaces'].every(what => covers(issuer[what], certificate[what]))
}

function owned (certificate, node) {
  if (certificate.node !== node) throw new Error("its certificate is another node's")
  return certificate
}

function statement (signed, kind) {
  const [name, said] = decode(signed.payload) ?? []
  if (name !== kind) throw new Error(`no ${kind}`)
  return said
}

function isSigned (signed, key) {
  const der = Buffer.concat([DER_ED25519, key])
  const publicKey = createPublicKey({ key: der, format: 'der', type: 'spki' })
  return verify(null, Buffer.concat([PREFIX, signed.payload]), publicKey, signed.signature)
}

const same = (one, other) => Buffer.compare(one, other) === 0
