import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { type DueLine, DueRefusedError, dueLines } from '../src/node/due-lines.js';

/** When it was asked, in milliseconds from the beginning. */
let asked: number[] = [];
let errors: unknown[] = [];
let lines: DueLine[] = [];
let end = new AbortController();

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance', 'Date'] });
  [asked, errors, lines, end] = [[], [], [], new AbortController()];
});
afterEach(() => {
  end.abort();
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

// The module's own pauses are Node's, which no fake timer stands for.
vi.mock('node:timers/promises', () => ({
  setTimeout: (ms: number, _: undefined, { signal }: { signal: AbortSignal }) =>
    new Promise<void>((resolve, reject) => {
      const leave = (): void => reject(signal.reason);
      signal.addEventListener('abort', leave, { once: true });
      setTimeout(() => {
        signal.removeEventListener('abort', leave);
        resolve();
      }, ms);
    }),
}));

/** Each answer says that, whole and at once; then it ends. */
function answers(text: string): void {
  vi.stubGlobal('fetch', async () => {
    asked.push(Date.now());
    return new Response(text);
  });
}

/** Listens until it is ended. */
async function listen(getToken?: () => Promise<string>): Promise<void> {
  const onError = (error: unknown): unknown => errors.push(error);
  for await (const line of dueLines('ws://sync.test', '*', getToken, end.signal, onError)) {
    lines.push(line);
  }
}

test.each([
  ['HTML', '<!doctype html>\n<p>Welcome\n'],
  ['null', 'null\n'],
  ['a list', '[]\n'],
  ['a document that is none', '{"document":7,"due":null}\n'],
  ['names that are none', '{"document":"a","due":[7]}\n'],
  ['no names', '{"document":"a"}\n'],
  ['nothing but signs of life', '\n\n'],
])('a proxy that answers with %s is asked less and less often', async (what, text) => {
  answers(text);
  const listening = listen();
  await vi.advanceTimersByTimeAsync(60_000);
  // Within some 13 s the pauses have grown to ten seconds, or half of that, each.
  expect(asked.length).toBeGreaterThan(6);
  expect(asked.length).toBeLessThan(25);
  expect(lines).toEqual([]);
  if (what !== 'nothing but signs of life') {
    expect(errors).toHaveLength(asked.length);
    expect(errors[0]).toBeInstanceOf(DueRefusedError);
    expect(errors[0]).toMatchObject({ name: 'DueRefusedError', code: 'due-refused' });
    expect(String(errors[0])).toContain(`200 ${text.split('\n')[0]}`);
  }
  end.abort();
  await listening;
});

test.each([200, 500])('a long answer of %i is read no further than it is told', async (status) => {
  let said = 0;
  let left = 0;
  const part = new Uint8Array(64 * 1024).fill(0x61);
  vi.stubGlobal('fetch', async () => {
    asked.push(Date.now());
    const pull = (controller: ReadableStreamDefaultController): void => {
      said += 1;
      // So that it ends for those too who would read it all.
      if (said > 64) controller.close();
      else controller.enqueue(part);
    };
    const cancel = (): void => {
      left += 1;
    };
    return new Response(new ReadableStream({ pull, cancel }), { status });
  });
  const listening = listen();
  await vi.waitFor(() => expect(errors).toHaveLength(1));
  expect(String(errors[0])).toContain(`${status} aaa`);
  expect(errors[0]).toBeInstanceOf(DueRefusedError);
  // 1 MiB of a line, or a few hundred characters of a refusal, and what is read ahead.
  expect(said).toBeLessThan(status === 200 ? 24 : 6);
  expect(left).toBe(1);
  end.abort();
  await listening;
});

test('lines that are good are told, and it is asked again soon', async () => {
  answers('\n{"document":"a","due":["order"]}\n{"document":"b","due":null}\n');
  const listening = listen();
  await vi.advanceTimersByTimeAsync(0);
  expect(lines).toEqual([
    { document: 'a', due: ['order'] },
    { document: 'b', due: null },
  ]);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(asked.length).toBeGreaterThanOrEqual(40);
  end.abort();
  await listening;
});

test('a token that never comes is asked for anew, and holds no end up', async () => {
  answers('');
  let wanted = 0;
  const listening = listen(() => {
    wanted += 1;
    return new Promise(() => {});
  });
  await vi.advanceTimersByTimeAsync(26_000);
  expect([wanted, asked.length, errors.length]).toEqual([2, 0, 1]);
  end.abort();
  await listening;
});
