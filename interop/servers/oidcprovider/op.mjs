// oidc-provider, set up for the programs and tests of this module and started
// by ../oidcprovider.go. Its first line of input is its configuration, its
// first line of output says where it listens, and it ends when its input does,
// so that it never outlives the program that started it.

import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import { createLocalJWKSet, createRemoteJWKSet, exportJWK, generateKeyPair, jwtVerify, SignJWT } from 'jose';
import { errors, Provider } from 'oidc-provider';

const input = createInterface({ input: process.stdin });
input.once('close', () => process.exit(0));
const [line] = await once(input, 'line');
const { clientID, clientSecret, users, password, accessTTL, idp } = JSON.parse(line);
const locked = new Set(); // users whose tokens are refused in an exchange

// The issuer has the port in it, and so does what the server is made of.
const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;
const resource = `${issuer}/api`;

const tokenExchange = 'urn:ietf:params:oauth:grant-type:token-exchange';
const jwtBearer = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const tokenType = (name) => `urn:ietf:params:oauth:token-type:${name}`;
const { privateKey } = await generateKeyPair('RS256', { extractable: true });
const key = { ...(await exportJWK(privateKey)), kid: 'key-1', use: 'sig', alg: 'RS256' };

const provider = new Provider(issuer, {
  clients: [{
    client_id: clientID,
    client_secret: clientSecret,
    token_endpoint_auth_method: 'client_secret_basic',
    grant_types: [
      'client_credentials',
      'password',
      'refresh_token',
      'urn:ietf:params:oauth:grant-type:device_code',
      tokenExchange,
      jwtBearer,
    ],
    redirect_uris: [],
    response_types: [],
  }],
  scopes: ['openid', 'offline_access', 'api', 'pay'],
  acrValues: ['pwd', 'mfa'],
  // How strong a login was, for introspection: as it was asked for (RFC 9470 §6.2).
  extraTokenClaims: (ctx) => (ctx?.oidc?.params?.acr_values ? { acr: ctx.oidc.params.acr_values } : undefined),
  issueRefreshToken: () => true, // whether or not the scope has offline_access
  jwks: { keys: [key] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  findAccount: (ctx, id) => (users.includes(id) ? { accountId: id, claims: () => ({ sub: id }) } : undefined),
  rotateRefreshToken: true,
  ttl: {
    AccessToken: accessTTL,
    ClientCredentials: accessTTL,
    DeviceCode: 600,
    Grant: 86400,
    IdToken: 3600,
    Interaction: 600,
    RefreshToken: 86400,
    Session: 600,
  },
  features: {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    devInteractions: { enabled: true }, // login pages that take any password
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true, allowedPolicy: () => true },
    resourceIndicators: {
      enabled: true, // resource=<issuer>/api asks for a JWT
      getResourceServerInfo(ctx, indicator) {
        if (indicator !== resource) throw new errors.InvalidTarget();
        return {
          scope: 'api',
          audience: resource,
          accessTokenTTL: accessTTL,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'RS256' } },
        };
      },
    },
  },
});

// Tokens of a user, for grants that oidc-provider leaves to its users.
async function issue(ctx, gty, accountId) {
  const { client } = ctx.oidc;
  const scope = ctx.oidc.params.scope || 'api';
  const grant = new provider.Grant({ accountId, clientId: client.clientId });
  grant.addOIDCScope(scope);
  const grantId = await grant.save(); // one for both tokens: reuse of the second kills the first
  const access = new provider.AccessToken({ accountId, client, grantId, gty, scope });
  const refresh = new provider.RefreshToken({ accountId, client, grantId, gty, scope });
  ctx.body = {
    access_token: await access.save(),
    refresh_token: await refresh.save(),
    token_type: access.tokenType,
    expires_in: access.expiration,
    scope,
  };
  if (scope.split(' ').includes('openid')) {
    const id = new provider.IdToken({ sub: accountId }, { ctx });
    id.scope = 'openid';
    id.set('jti', randomUUID()); // no two logins have one ID token
    ctx.body.id_token = await id.issue({ use: 'idtoken' });
  }
}

provider.registerGrantType('password', (ctx) => {
  const { username } = ctx.oidc.params;
  if (!users.includes(username) || ctx.oidc.params.password !== password) {
    throw new errors.InvalidGrant('wrong name or password');
  }
  return issue(ctx, 'password', username);
}, ['username', 'password', 'scope', 'acr_values']);

// RFC 8693 §2.2.2: what is said of a token that is refused.
function refuse(what) {
  throw new errors.InvalidRequest(`the ${what} token is not valid`);
}

// Token exchange, RFC 8693: a user's ID token for an ID-JAG, or a user's access token for
// another one, by an app that may have a token, too. An app's token alone is traded for that
// of the user in a parameter of its own, since the subject is the app.
provider.registerGrantType(tokenExchange, async (ctx) => {
  const { client, params } = ctx.oidc;
  const { subject_token: subject, subject_token_type: type, requested_token_type: requested } = params;
  if (requested === tokenType('id-jag')) {
    if (type !== tokenType('id_token')) refuse('subject');
    await issueIDJAG(ctx);
    return;
  }
  if (type !== tokenType('access_token') || (requested ?? type) !== type) {
    throw new errors.InvalidRequest('only an access token is exchanged for another one');
  }
  if (params.actor_token !== undefined) {
    const actor = await provider.ClientCredentials.find(params.actor_token);
    if (actor?.clientId !== client.clientId) refuse('actor');
  }
  const own = await provider.AccessToken.find(subject);
  if (own) {
    if (own.clientId !== client.clientId || locked.has(own.accountId)) refuse('subject');
    await issue(ctx, tokenExchange, own.accountId);
  } else {
    const app = await provider.ClientCredentials.find(subject);
    if (app?.clientId !== client.clientId || !users.includes(params.user)) refuse('subject');
    await issue(ctx, tokenExchange, params.user);
  }
  ctx.body.issued_token_type = type;
}, ['subject_token', 'subject_token_type', 'actor_token', 'actor_token_type', 'requested_token_type', 'audience', 'user', 'scope']);

// The first leg of draft-ietf-oauth-identity-assertion-authz-grant.
async function issueIDJAG(ctx) {
  const { client, params: { subject_token: subject, audience, scope } } = ctx.oidc;
  if (!audience) throw new errors.InvalidRequest('audience: the issuer of one server');
  const { payload } = await jwtVerify(subject, keys, { issuer, audience: client.clientId }).catch(() => refuse('subject'));
  if (locked.has(payload.sub)) refuse('subject');
  ctx.body = {
    access_token: await new SignJWT({ client_id: client.clientId, scope })
      .setProtectedHeader({ alg: 'RS256', kid: key.kid, typ: 'oauth-id-jag+jwt' })
      .setIssuer(issuer).setAudience(audience).setSubject(payload.sub)
      .setIssuedAt().setExpirationTime('5m').setJti(randomUUID())
      .sign(privateKey),
    issued_token_type: tokenType('id-jag'),
    token_type: 'N_A',
    expires_in: 300,
    scope,
  };
}

// The second leg: an ID-JAG of the identity provider is a JWT bearer assertion, of the client
// that it was issued to.
const idpKeys = idp && createRemoteJWKSet(new URL(`${idp}/jwks`));
provider.registerGrantType(jwtBearer, async (ctx) => {
  const { client, params } = ctx.oidc;
  if (!idpKeys) throw new errors.InvalidGrant('no assertions are taken');
  const { payload } = await jwtVerify(params.assertion ?? '', idpKeys, {
    issuer: idp, audience: issuer, typ: 'oauth-id-jag+jwt', requiredClaims: ['sub', 'exp', 'jti'],
  }).catch(() => { throw new errors.InvalidGrant('the assertion is not valid'); }); // RFC 7521 §4.1.1
  if (payload.client_id !== client.clientId) throw new errors.InvalidGrant("the assertion is another client's");
  await issue(ctx, jwtBearer, payload.sub);
}, ['assertion', 'scope']);

// Nobody types the code here, so that five seconds between two polls, which is
// what a client keeps if it is told nothing, would be waited for nothing.
provider.use(async (ctx, next) => {
  await next();
  if (ctx.oidc?.route === 'device_authorization' && ctx.status === 200) ctx.body.interval = 1;
});

const keys = createLocalJWKSet({ keys: [{ kty: key.kty, n: key.n, e: key.e, kid: key.kid, alg: key.alg }] });

// Whose the token is, or undefined if it isn't live.
async function owner(token) {
  if (token === undefined) return undefined;
  const found = await provider.AccessToken.find(token) ?? await provider.ClientCredentials.find(token);
  if (found) return found.accountId ?? found.clientId;
  return jwtVerify(token, keys, { issuer, audience: resource }).then(({ payload }) => payload.sub, () => undefined);
}

// The resource: what introspection would say, or the JWT's signature.
async function api(req, res) {
  const token = /^Bearer (.+)$/i.exec(req.headers.authorization ?? '')?.[1];
  res.setHeader('Content-Type', 'application/json');
  const sub = await owner(token);
  if (sub !== undefined) {
    res.end(JSON.stringify({ ok: true, sub }));
    return;
  }
  res.statusCode = 401;
  res.setHeader('WWW-Authenticate', `Bearer realm="${issuer}"${token ? ', error="invalid_token"' : ''}`);
  res.end('{"error":"invalid_token"}');
}

// Locks a user out, for the program that has started this one.
function lock(req, res) {
  locked.add(decodeURIComponent(req.url.slice('/lock/'.length)));
  res.end();
}

const callback = provider.callback();
server.on('request', (req, res) => {
  if (req.url === '/api') return api(req, res);
  if (req.url.startsWith('/lock/')) return lock(req, res);
  return callback(req, res);
});
console.log(`issuer: ${issuer}`);
