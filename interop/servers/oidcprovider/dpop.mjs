// oidc-provider with DPoP required (RFC 9449), started by ../dpop.go as op.mjs is. Its client
// is public, so that refresh tokens are bound to the key, too. The resource is the userinfo
// endpoint: the proofs are checked by oidc-provider, nothing here does.
//
// oidc-provider's nonces live for minutes. Those here change every few seconds, and an old one
// is refused at once, except the one that a refusal has just brought.

import { createHmac, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import { Provider } from 'oidc-provider';

// Where a Provider keeps its nonces; the package doesn't export that.
import instance from './node_modules/oidc-provider/lib/helpers/weak_cache.js';

const input = createInterface({ input: process.stdin });
input.once('close', () => process.exit(0));
const [line] = await once(input, 'line');
const { clientID, user, accessTTL, nonceMillis } = JSON.parse(line);

const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

const secret = randomBytes(32);
const provider = new Provider(issuer, {
  clients: [{
    client_id: clientID,
    token_endpoint_auth_method: 'none',
    dpop_bound_access_tokens: true,
    grant_types: ['refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
    redirect_uris: [],
    response_types: [],
  }],
  scopes: ['openid', 'offline_access'],
  issueRefreshToken: () => true,
  cookies: { keys: [randomBytes(32).toString('hex')] },
  findAccount: (ctx, id) => (id === user ? { accountId: id, claims: () => ({ sub: id }) } : undefined),
  rotateRefreshToken: true,
  ttl: {
    AccessToken: accessTTL,
    DeviceCode: 600,
    Grant: 86400,
    IdToken: 3600,
    Interaction: 600,
    RefreshToken: 86400,
    Session: 600,
  },
  features: {
    deviceFlow: { enabled: true },
    devInteractions: { enabled: true },
    dPoP: { enabled: true, nonceSecret: secret, requireNonce: () => true },
  },
});

// What the tests ask for: how often each endpoint said what, and the nonces that it gave.
const seen = { nonces: 0, wanted: {}, answers: {} };
const given = new Set(); // nonces
const pending = new Map(); // by nonce, how many refusals have brought it and are not answered
const newest = () => createHmac('sha256', secret).update(String(Math.floor(Date.now() / nonceMillis))).digest('base64url');

instance(provider).DPoPNonces = {
  nextChallenge() {
    const nonce = newest();
    if (!given.has(nonce)) seen.nonces = given.add(nonce).size;
    return nonce;
  },
  checkChallenge(nonce) {
    if (nonce === newest()) return true;
    const left = pending.get(nonce) ?? 0;
    if (left === 0) return false;
    pending.set(nonce, left - 1);
    return true;
  },
};

provider.use(async (ctx, next) => {
  await next();
  const count = (what) => { what[ctx.path] = (what[ctx.path] ?? 0) + 1; };
  const nonce = ctx.response.get('DPoP-Nonce');
  if (ctx.status >= 400 && ctx.body?.error === 'use_dpop_nonce') {
    pending.set(nonce, (pending.get(nonce) ?? 0) + 1);
    count(seen.wanted);
  } else {
    count(seen.answers[ctx.status] ??= {});
  }
});

provider.use(async (ctx, next) => {
  await next();
  if (ctx.oidc?.route === 'device_authorization' && ctx.status === 200) ctx.body.interval = 1; // nobody types the code
});

const callback = provider.callback();
server.on('request', (req, res) => {
  if (req.url !== '/seen') return callback(req, res);
  res.setHeader('Content-Type', 'application/json');
  return res.end(JSON.stringify(seen));
});
console.log(`issuer: ${issuer}`);
