// What Vite runs in the place of a browser: it writes down what that was to open.

import { appendFileSync } from 'node:fs';

appendFileSync(process.env.TOLD, `${process.argv.at(-1)}\n`);
