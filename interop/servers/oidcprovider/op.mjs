// oidc-provider, set up for the programs and tests of this module and started
// by ../oidcprovider.go. Its first line of input is its configuration, its
// first line of output says where it listens, and it ends when its input does,
// so that it never outlives the program that started it.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import { createLocalJWKSet, exportJWK, generateKeyPair, jwtVerify } from 'jose';
import { errors, Provider } from 'oidc-provider';

const input = createInterface({ input: process.stdin });
input.once('close', () => process.exit(0));
const [line] = await once(input, 'line');
const { clientID, clientSecret, username, password, accessTTL } = JSON.parse(line);

// The issuer has the port in it, and so does what the server is made of.
const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;
const resource = `${issuer}/api`;

const tokenExchange = 'urn:ietf:params:oauth:grant-type:token-exchange';
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
    ],
    redirect_uris: [],
    response_types: [],
  }],
  scopes: ['openid', 'offline_access', 'api'],
  issueRefreshToken: () => true, // whether or not the scope has offline_access
  jwks: { keys: [key] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  findAccount: (ctx, id) => (id === username ? { accountId: id, claims: () => ({ sub: id }) } : undefined),
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
}

provider.registerGrantType('password', (ctx) => {
  if (ctx.oidc.params.username !== username || ctx.oidc.params.password !== password) {
    throw new errors.InvalidGrant('wrong name or password');
  }
  return issue(ctx, 'password', username);
}, ['username', 'password', 'scope']);

// An app's token for a user's: RFC 8693, with the user in a parameter of its
// own, since the subject is the app.
provider.registerGrantType(tokenExchange, async (ctx) => {
  const { client, params } = ctx.oidc;
  if (params.subject_token_type !== 'urn:ietf:params:oauth:token-type:access_token' || params.user !== username) {
    throw new errors.InvalidRequest('not a subject that can be exchanged');
  }
  const subject = await provider.ClientCredentials.find(params.subject_token);
  if (subject?.clientId !== client.clientId) {
    throw new errors.InvalidRequest('the subject token is not valid'); // RFC 8693 §2.2.2
  }
  await issue(ctx, tokenExchange, username);
  ctx.body.issued_token_type = params.subject_token_type;
}, ['subject_token', 'subject_token_type', 'user', 'scope']);

// Nobody types the code here, so that five seconds between two polls, which is
// what a client keeps if it is told nothing, would be waited for nothing.
provider.use(async (ctx, next) => {
  await next();
  if (ctx.oidc?.route === 'device_authorization' && ctx.status === 200) ctx.body.interval = 1;
});

const keys = createLocalJWKSet({ keys: [{ kty: key.kty, n: key.n, e: key.e, kid: key.kid, alg: key.alg }] });

async function live(token) {
  if (token === undefined) return false;
  if (await provider.AccessToken.find(token) || await provider.ClientCredentials.find(token)) return true;
  return jwtVerify(token, keys, { issuer, audience: resource }).then(() => true, () => false);
}

// The resource: what introspection would say, or the JWT's signature.
async function api(req, res) {
  const token = /^Bearer (.+)$/i.exec(req.headers.authorization ?? '')?.[1];
  res.setHeader('Content-Type', 'application/json');
  if (await live(token)) {
    res.end('{"ok":true}');
    return;
  }
  res.statusCode = 401;
  res.setHeader('WWW-Authenticate', `Bearer realm="${issuer}"${token ? ', error="invalid_token"' : ''}`);
  res.end('{"error":"invalid_token"}');
}

const callback = provider.callback();
server.on('request', (req, res) => (req.url === '/api' ? api : callback)(req, res));
console.log(`issuer: ${issuer}`);
