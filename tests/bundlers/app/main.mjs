// The entry of every bundle but those that need to be told where the workers are.

import { start } from './app.mjs';

// Where Trusted Types are required, an app lets in the scripts of its workers by a default policy.
globalThis.trustedTypes?.createPolicy('default', {
  createScriptURL: (url) => (new URL(url, location.href).origin === location.origin ? url : null),
});

start();
