// The workers were copied beside this bundle, by `npx tidelog copy-assets`.

import { start } from '../app/app.mjs';

start({ workerUrl: '/assets/worker/worker.js' });
