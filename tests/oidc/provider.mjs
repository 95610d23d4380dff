// A real OpenID provider (oidc-provider) on the loopback, with people of a test, and on request a provider gone wrong: the next answer of its
// token endpoint is then what the test says.
//
// Environment: CERT, KEY (PEM files). Prints one line, its issuer, when it listens; runs until its stdin ends.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import * as jose from 'jose';
import { Provider } from 'oidc-provider';

const own = await jose.generateKeyPair('RS256', { extractable: true });
const foreign = await jose.generateKeyPair('RS256', { extractable: true });
const secret = 'a client secret: %&=+';

const server = createServer({ cert: readFileSync(process.env.CERT), key: readFileSync(process.env.KEY) });
await new Promise((listens) => server.listen(0, '127.0.0.1', listens));
const issuer = `https://localhost:${server.address().port}`;

const people = {
  ann: { email: 'ann@example.com', email_verified: true, groups: ['staff', 'vault-admins'], name: 'Ann' },
  bob: { email: 'bob@example.com', email_verified: false, groups: ['guests'], name: 'Bob' },
};
const browser = { grant_types: ['authorization_code'], response_types: ['code'], application_type: 'native', redirect_uris: ['http://127.0.0.1/callback'] };
const device = { grant_types: ['urn:ietf:params:oauth:grant-type:device_code'], response_types: [], redirect_uris: [], application_type: 'native' };

const provider = new Provider(issuer, {
  jwks: { keys: [{ ...(await jose.exportJWK(own.privateKey)), kid: 'own', alg: 'RS256', use: 'sig' }] },
  clients: [
    { client_id: 'public', token_endpoint_auth_method: 'none', ...browser },
    { client_id: 'secret', client_secret: secret, token_endpoint_auth_method: 'client_secret_basic', ...browser },
    { client_id: 'post', client_secret: secret, token_endpoint_auth_method: 'client_secret_post', ...browser },
    { client_id: 'terminal', token_endpoint_auth_method: 'none', ...device },
  ],
  claims: { openid: ['sub', 'acr', 'amr'], email: ['email', 'email_verified'], groups: ['groups'], profile: ['name'] },
  scopes: ['openid', 'email', 'groups', 'profile'],
  conformIdTokenClaims: false,
  pkce: { required: () => true, methods: ['S256'] },
  features: { devInteractions: { enabled: true }, deviceFlow: { enabled: true }, revocation: { enabled: false } },
  findAccount: (_, id) => people[id] && { accountId: id, claims: () => ({ sub: id, ...people[id] }) },
  cookies: { keys: ['a key of this run only'] },
  ttl: { AccessToken: 60, AuthorizationCode: 60, DeviceCode: 60, IdToken: 300, Interaction: 600, Session: 600, Grant: 600 },
});

// What the token endpoint answers next, in the test's words.
let next = {};
const change = async (token, how) => {
  const claims = { ...jose.decodeJwt(token), ...how.claims };
  for (const name of how.without ?? []) delete claims[name];
  const header = { alg: 'RS256', kid: 'own', ...how.header };
  const key = how.foreign ? foreign.privateKey : own.privateKey;
  return new jose.SignJWT(claims).setProtectedHeader(header).sign(key);
};
provider.use(async (ctx, go) => {
  if (ctx.path === '/test/next') {
    next = JSON.parse(ctx.query.is);
    ctx.body = 'so be it';
    return;
  }
  if (ctx.path !== '/token' || Object.keys(next).length === 0) {
    await go();
    return;
  }
  const how = next;
  next = {};
  if (how.redirect) {
    ctx.redirect(how.redirect);
  } else if (how.error) {
    ctx.status = 400;
    ctx.body = { error: how.error };
  } else if (how.fill) {
    ctx.body = { id_token: 'a.b.c', filled: 'y'.repeat(how.fill) };
  } else if (how.text !== undefined) {
    ctx.body = how.text;
  } else {
    await go();
    if (ctx.body?.id_token) ctx.body.id_token = await change(ctx.body.id_token, how);
  }
});

server.on('request', provider.callback());
process.stdin.on('end', () => process.exit(0)).resume();
console.log(issuer);
