// A process has no types of a page: this is compiled, and not run.

import { doctype, open } from 'tidelog/node';

const nothing = doctype({ name: 'nothing', migrations: [], mutations: {} });
const db = await open(nothing, { document: 'mine', folder: new URL('./data', import.meta.url) });
await db.close();
