import { expect, test } from 'vitest';
import { doctype } from '../src/doctype.js';
import { destroy, open } from '../src/open.js';

const KIND = doctype({ name: 'notes', migrations: [], mutations: {} });

test.each([undefined, '/worker.js', 'https://cdn.example/worker.js'])(
  'where a server renders it is the engine that is missing, with workers at %s',
  async (workerUrl) => {
    await expect(open(KIND, { document: 'a', workerUrl })).rejects.toMatchObject({
      code: 'engine',
    });
    await expect(destroy('a', { workerUrl })).rejects.toMatchObject({ code: 'engine' });
  },
);
