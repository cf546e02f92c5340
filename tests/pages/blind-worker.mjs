// The package's worker, whose core never sees that another one is at work, and waits for its end.

import './blind.mjs';
import '/tidelog/dist/worker/worker.js';
