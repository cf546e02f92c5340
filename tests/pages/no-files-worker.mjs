// The package's worker, in a window whose workers are given no files.

import './no-files.mjs';
import '/tidelog/dist/worker/worker.js';
