// An OpenID provider written by others (npm: oidc-provider), with one client that gets JWTs for the broker.
// usage: node provider.mjs URL CERTIFICATE KEY
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import Provider from 'oidc-provider';

const [url, certificate, key] = process.argv.slice(2);
const provider = new Provider(url, {
  clients: [
    {
      client_id: 'builder',
      client_secret: 'secret',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    },
  ],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({ audience: resource, scope: 'build', accessTokenFormat: 'jwt' }),
    },
  },
});
createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, provider.callback()).listen(
  Number(new URL(url).port),
  '127.0.0.1',
  () => console.log('listening'),
);
