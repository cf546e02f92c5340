import { expect, test } from 'vitest';
import { EVENTS } from '../src/doctype.js';
import {
  CommandFailedError,
  InvalidOptionError,
  QueryError,
  StepFailedError,
  WorkflowCancelledError,
  WorkflowFailedError,
  WorkflowMismatchError,
} from '../src/errors.js';
import { Authority, type Context, DEPOT, Process, type RunCode, settled } from './runs.js';

/** Runs it in one process until it comes to rest. */
async function ran(code: RunCode, authority = new Authority()): Promise<Authority> {
  new Process(authority, code);
  authority.start('f');
  await settled();
  return authority;
}

/** How the run stands, and what it came to. */
const standing = (authority: Authority, id = 'f'): unknown[] => {
  const { state, outcome, attempt } = authority.runs.get(id)!;
  return [state, outcome, attempt];
};

test('a run does its steps in turn, and each is recorded before the code hears of it', async () => {
  const authority = new Authority();
  const seen: unknown[] = [];
  const code: RunCode = async (ctx, args) => {
    const { workflow, id, version, attempt, run } = ctx;
    seen.push([workflow, id, version, attempt, run.user, args]);
    const one = await ctx.step('one', () => ({ a: undefined, at: new Date(0) }));
    seen.push(one, authority.log.at(-1));
    const two = await ctx.step('two', async () => {});
    const three = await ctx.step('one', () => 3);
    return { two, three };
  };
  await ran(code, authority);
  expect(seen).toEqual([
    ['fulfil', 'f', 2, 1, 'ada', { order: 'order-f' }],
    { at: '1970-01-01T00:00:00.000Z' },
    'f one#0 step done',
  ]);
  expect(authority.log).toEqual([
    'f one#0 step done',
    'f two#0 step done',
    'f one#1 step done',
    'f completed {"two":null,"three":3}',
  ]);
});

test('a run that is given once more does nothing again that it has done', async () => {
  const authority = new Authority();
  const done: string[] = [];
  let goOn = false;
  const code: RunCode = async (ctx) => {
    const one = await ctx.step('one', () => done.push('one'));
    await ctx.step('two', () => {
      done.push('two');
      if (!goOn) return new Promise(() => {});
    });
    return one;
  };
  await ran(code, authority);
  expect(done).toEqual(['one', 'two']);
  goOn = true;
  new Process(authority, code);
  await settled();
  expect(done).toEqual(['one', 'two', 'two']);
  expect(standing(authority)).toEqual(['completed', '1', 2]);
});

test('a run that cannot say what it remembers begins its attempt again', async () => {
  const authority = new Authority();
  const done: string[] = [];
  const process_ = new Process(authority, async (ctx: Context) => {
    await ctx.step('one', () => done.push('one'));
    await ctx.step('two', () => done.push('two'));
  });
  const failures = ['records', 'complete', 'complete'].map((kind) => ({ kind }));
  process_.onAsk = (kind) => {
    if (kind !== failures[0]?.kind) return;
    throw failures.shift();
  };
  const thrown = [...failures];
  authority.start('f');
  await settled();
  expect(done).toEqual([]);
  for (const [ms, soFar] of [
    [1_000, ['one']],
    [2_000, ['one', 'one']],
    [4_000, ['one', 'one', 'one', 'two']],
  ] as const) {
    process_.pass(ms - 1);
    await settled();
    process_.pass(1);
    await settled();
    expect(done).toEqual(soFar);
  }
  expect(standing(authority)).toEqual(['completed', 'null', 1]);
  expect(process_.errors.map(([error]) => error)).toEqual(thrown);
});

test('a thousand requests, killed at each, and each key is used once at the far end', async () => {
  const COUNT = 1_000;
  const authority = new Authority();
  const farEnd = new Map<string, number>();
  let kills = 0;
  let asked = 0;
  const code: RunCode = async (ctx) => {
    let sum = 0;
    for (let at = 0; at < COUNT; at += 1) {
      sum += await ctx.request('charge', ({ key }) => {
        asked += 1;
        // The far end knows a key that it has had, and does it once.
        if (!farEnd.has(key)) farEnd.set(key, at);
        else return farEnd.get(key)!;
        kills += 1;
        authority.kill();
        return at;
      });
    }
    return sum;
  };
  authority.start('f');
  while (authority.runs.get('f')!.state !== 'completed') {
    new Process(authority, code);
    while (authority.handler && authority.runs.get('f')!.state !== 'completed') await settled(1);
  }
  expect([farEnd.size, kills, asked]).toEqual([COUNT, COUNT, 2 * COUNT]);
  expect(standing(authority)).toEqual(['completed', `${(COUNT * (COUNT - 1)) / 2}`, COUNT + 1]);
  expect([...farEnd].slice(0, 2)).toEqual([
    ['fulfil/f~1/charge/0', 0],
    ['fulfil/f~1/charge/1', 1],
  ]);
}, 120_000);

test('killed before each message of any kind, a run comes to the same', async () => {
  const code =
    (done: string[]): RunCode =>
    async (ctx) => {
      const note = (text: string) => () => void done.push(text);
      const [, event] = await Promise.all([
        (async () => {
          await ctx.step('a', note('a'));
          await ctx.sleep('1m');
          await ctx.step('b', note('b'));
        })(),
        (async () => {
          const event = await ctx.waitFor('order', 'o', 'shipped');
          await ctx.step('c', note('c'));
          return event;
        })(),
      ]);
      const { first } = (await ctx.send.order.pay('o'))!;
      return [event.data, first];
    };
  for (let at = 1; ; at += 1) {
    const authority = new Authority();
    const done: string[] = [];
    let messages = 0;
    const begin = (): void => {
      const process = new Process(authority, code(done));
      process.onAsk = (kind) => {
        if (kind !== 'complete') return;
        messages += 1;
        if (messages === at) authority.kill();
      };
    };
    const goOn = async (): Promise<void> => {
      await settled(40);
      if (authority.handler) return;
      begin();
      await settled(40);
    };
    begin();
    authority.start('f');
    await goOn();
    authority.record('o', 'shipped', { by: 'bob' });
    await goOn();
    authority.pass(60_000);
    await goOn();
    authority.end('f', 'send:order.pay', 'done', '{"first":7,"last":8}');
    await goOn();
    expect(standing(authority).slice(0, 2), `${at}`).toEqual(['completed', '[{"by":"bob"},7]']);
    // What was not recorded yet is done once more.
    expect([...new Set(done)].sort()).toEqual(['a', 'b', 'c']);
    expect(done.length).toBeLessThanOrEqual(4);
    expect(authority.sent.length).toBe(1);
    if (messages < at) break;
  }
});

test('a run that waits is put away, and goes on once that has happened', async () => {
  const authority = await ran(async (ctx) => {
    await ctx.sleep('3d');
    return ctx.now;
  });
  expect(authority.log).toEqual(['f sleep#0 sleep waiting', 'f suspended']);
  authority.pass(3 * 86_400_000);
  await settled();
  expect(standing(authority)).toEqual(['completed', `${1_000 + 3 * 86_400_000}`, 2]);
});

test('an attempt that is over is aborted, and nothing of it is told to anybody', async () => {
  const authority = new Authority();
  const signals: AbortSignal[] = [];
  const process = new Process(authority, async (ctx: Context) => {
    signals.push(ctx.signal);
    await ctx.sleep(5);
    const once = ({ signal }: { signal: AbortSignal }) => {
      signals.push(signal);
      return new Promise(() => {});
    };
    await ctx.step('one', once, { timeout: '1h' });
  });
  authority.start('f');
  await settled();
  expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
  authority.pass(5);
  await settled();
  expect(signals.map(({ aborted }) => aborted)).toEqual([true, false, false]);
  expect(process.timersCount).toBe(1);
  process.give([]);
  expect(signals.map(({ aborted }) => aborted)).toEqual([true, true, true]);
  await settled();
  expect([process.timersCount, process.errors]).toEqual([0, []]);
});

test('a step that nobody waits for ends with its run', async () => {
  const authority = new Authority();
  const signals: AbortSignal[] = [];
  new Process(authority, (ctx: Context) => {
    ctx.step('left', ({ signal }) => {
      signals.push(signal, ctx.signal);
      return new Promise(() => {});
    });
  });
  authority.start('f');
  // Nobody says that it is given no more.
  authority.give = () => {};
  await settled();
  expect(standing(authority)).toEqual(['completed', 'null', 1]);
  expect(signals.map(({ aborted }) => aborted)).toEqual([true, true]);
});

test('of two things that race, the one that came first wins each time', async () => {
  const authority = new Authority();
  const won: string[] = [];
  const code: RunCode = async (ctx) => {
    const winner = await Promise.race([
      ctx.sleep('1h').then(() => 'time'),
      ctx.waitFor('order', 'o', 'shipped').then(() => 'event'),
    ]);
    won.push(winner);
    await ctx.sleep('2h', { name: 'later' });
    await ctx.step('end', () => {});
  };
  await ran(code, authority);
  authority.record('o', 'shipped');
  await settled();
  // It is over as well now, and stands before the event.
  authority.pass(3_600_000);
  await settled();
  authority.pass(3_600_000);
  await settled();
  expect(won).toEqual(['event', 'event', 'event']);
  expect(standing(authority)).toEqual(['completed', 'null', 4]);
});

test('what happens while a step is at work is heard behind it, then and each time', async () => {
  const authority = new Authority();
  const order: string[][] = [];
  let end: (() => void) | undefined;
  const code: RunCode = async (ctx) => {
    const heard: string[] = [];
    order.push(heard);
    const wait = ctx.waitFor('order', 'o', 'paid').then(() => heard.push('event'));
    const slept = ctx.sleep(7).then(() => heard.push('time'));
    await ctx.step('long', () => new Promise<void>((resolve) => (end = resolve)));
    heard.push('step');
    await Promise.all([wait, slept]);
    await ctx.sleep('1h', { name: 'last' });
  };
  await ran(code, authority);
  authority.pass(10);
  authority.record('o', 'paid');
  await settled();
  end!();
  await settled();
  authority.pass(3_600_000);
  await settled();
  expect(order).toEqual([['step'], ['step', 'event', 'time'], ['step', 'event', 'time']]);
  expect(standing(authority)[0]).toBe('completed');
});

test('what happens as an attempt begins is heard by the next one', async () => {
  const authority = new Authority();
  const orders: string[][] = [];
  const process = new Process(authority, async (ctx: Context) => {
    const heard: string[] = [];
    orders.push(heard);
    await Promise.all([
      ctx.sleep(5).then(() => heard.push('time')),
      ctx.waitFor('order', 'o', 'shipped').then(() => heard.push('event')),
    ]);
  });
  authority.start('f');
  await settled();
  process.onAsk = (kind) => {
    if (kind !== 'records') return;
    process.onAsk = () => {};
    authority.record('o', 'shipped');
  };
  authority.pass(5);
  await settled();
  expect(orders).toEqual([[], ['time'], ['time', 'event']]);
  expect(standing(authority)).toEqual(['completed', 'null', 3]);
});

test('steps that run beside each other are answered in the order in which they ended', async () => {
  const authority = new Authority();
  const ends = new Map<string, () => void>();
  const orders: string[] = [];
  const code: RunCode = async (ctx) => {
    let order = '';
    const step = async (name: string): Promise<void> => {
      await ctx.step(name, () => new Promise<void>((resolve) => ends.set(name, resolve)));
      order += name;
      await ctx.step('same', () => name);
    };
    await Promise.all(['a', 'b', 'c'].map(step));
    orders.push(order);
    await ctx.sleep(1);
  };
  await ran(code, authority);
  for (const name of ['b', 'c', 'a']) ends.get(name)!();
  await settled();
  authority.pass(1);
  await settled();
  expect(orders).toEqual(['bca', 'bca']);
  const same = authority.runs.get('f')!.records.filter(({ name }) => name === 'same');
  expect(same.map(({ result }) => result)).toEqual(['"b"', '"c"', '"a"']);
});

test('a step is tried again, later each time, until its last retry has failed', async () => {
  const authority = new Authority();
  const tries: number[] = [];
  const seen: unknown[] = [];
  const process = new Process(authority, async (ctx: Context) => {
    try {
      await ctx.step('one', ({ signal }) => {
        tries.push(process.now);
        expect(signal.aborted).toBe(false);
        throw new TypeError(`no ${tries.length}`);
      });
    } catch (error) {
      seen.push(error);
    }
    await ctx.sleep(1);
    await ctx.step('two', () => Promise.reject(new Error('never')), { retries: 0 });
  });
  authority.start('f');
  for (let at = 0; at < 40; at += 1) {
    await settled();
    process.pass(1_000);
  }
  expect(tries).toEqual([0, 1_000, 3_000, 7_000, 15_000, 31_000]);
  expect(process.errors.map(([error]) => `${error}`)).toEqual(
    tries.map((_, at) => `TypeError: no ${at + 1}`),
  );
  authority.pass(1);
  await settled();
  // The code is told the same each time.
  expect(seen).toHaveLength(2);
  for (const error of seen) {
    expect(error).toBeInstanceOf(StepFailedError);
    expect(error).toMatchObject({ step: 'one', reason: 'TypeError: no 6', code: 'step-failed' });
  }
  const reason = 'StepFailedError: step two has failed: Error: never';
  expect(standing(authority)).toEqual(['failed', reason, 2]);
});

test('a try that takes too long has failed, and hears of it', async () => {
  const authority = new Authority();
  const signals: AbortSignal[] = [];
  const process = new Process(authority, (ctx: Context) =>
    ctx.step(
      'slow',
      ({ signal }) => {
        signals.push(signal);
        return signals.length > 1 ? 'done' : new Promise(() => {});
      },
      { timeout: '2s' },
    ),
  );
  authority.start('f');
  await settled();
  process.pass(1_999);
  await settled();
  expect(signals[0]!.aborted).toBe(false);
  process.pass(1);
  await settled();
  expect(signals[0]!.aborted).toBe(true);
  expect(`${process.errors[0]![0]}`).toBe('Error: it has taken too long');
  process.pass(1_000);
  await settled();
  expect(standing(authority)).toEqual(['completed', '"done"', 1]);
  expect(process.timersCount).toBe(0);
});

test('a request is told that it was begun, and what is kept of its result', async () => {
  const authority = new Authority();
  let answer: ((it: Response) => void) | undefined;
  await ran(
    (ctx) =>
      ctx.request(
        'label/√',
        ({ key }) =>
          new Promise<Response>((it) => (answer = it)).then((it) => Object.assign(it, { key })),
        {
          keep: async (it) => [(it as Response & { key: string }).key, await it.text()],
        },
      ),
    authority,
  );
  expect(authority.log).toEqual(['f label/√#0 request started']);
  answer!(new Response('printed'));
  await settled();
  expect(authority.log.slice(1)).toEqual([
    'f label/√#0 request done',
    'f completed ["fulfil/f~1/label%2F√/0","printed"]',
  ]);
  // One that is quick is told of once.
  const quick = await ran((ctx) => ctx.request('quick', () => 1));
  expect(quick.log).toEqual(['f quick#0 request done', 'f completed 1']);
});

test('what cannot be kept has failed, and is not tried again', async () => {
  const cycle: { it?: unknown } = {};
  cycle.it = cycle;
  const results: [() => unknown, RegExp][] = [
    [() => new Response('x'), /a Response is no JSON: say what is kept of it/],
    [() => cycle, /what JSON does not take/],
    [() => 1n, /what JSON does not take/],
    [() => 'ü'.repeat(128 * 1024), /more than 262144 bytes of JSON/],
  ];
  for (const [result, text] of results) {
    let tries = 0;
    const authority = await ran((ctx) =>
      ctx.request('it', () => {
        tries += 1;
        return result();
      }),
    );
    const [state, outcome] = standing(authority);
    expect([state, tries]).toEqual(['failed', 1]);
    expect(outcome).toMatch(text);
  }
  const least = await ran((ctx) => ctx.step('it', () => 'ü'.repeat(128 * 1024 - 1)));
  expect(standing(least)[0]).toBe('completed');
});

test('an event that was waited for is given whole, and null once the time is over', async () => {
  const authority = await ran(async (ctx) => {
    const event = await ctx.waitFor('order', 'o', 'shipped', { timeout: '7d' });
    const none = await ctx.waitFor('order', 'o', 'shipped', { timeout: 0, name: 'again' });
    return [event?.type, event?.data.by, event?.sequence, none];
  });
  expect(authority.runs.get('f')!.records).toMatchObject([
    { name: 'waitFor:order.shipped', kind: 'event', due: 1_000 + 7 * 86_400_000 },
  ]);
  authority.record('other', 'shipped');
  authority.record('o', 'shipped', { by: 'bob' });
  await settled();
  // No time at all is as little as there is, and not for as long as it takes.
  authority.pass(1);
  await settled();
  expect(standing(authority)).toEqual(['completed', '["shipped","bob",2,null]', 3]);
});

test('a run that cannot be told of an event stops until a release can', async () => {
  const authority = new Authority();
  const code: RunCode = async (ctx) => (await ctx.waitFor('order', 'o', 'shipped')).data.by;
  const process = new Process(authority, code);
  authority.start('f');
  await settled();
  process.onAsk = (kind) => {
    if (kind === 'events') throw new QueryError('it makes no JSON object');
  };
  authority.record('o', 'shipped', { by: 'bob' });
  await settled();
  expect(standing(authority)).toEqual(['stopped', 'QueryError: it makes no JSON object', 2]);
  expect(process.errors.map(([error]) => (error as Error).message)).toEqual([
    'it makes no JSON object',
  ]);
  authority.runs.get('f')!.state = 'ready';
  new Process(authority, code);
  await settled();
  expect(standing(authority)).toEqual(['completed', '"bob"', 3]);
});

test('commands and other runs are begun as they are called, whoever waits for them', async () => {
  const authority = new Authority();
  const code: RunCode = async (ctx, { order }) => {
    ctx.send.order.pay(order, { sum: 3 });
    const failing = ctx.send.order.pay(order, {}, { key: 'mine' });
    const child = ctx.start.label({ weight: 2 });
    const other = ctx.start.label({}, { id: 'l' });
    const none = await ctx.send.order.pay('o');
    const errors = [await failing.catch((it) => it), await other.catch((it) => it)];
    expect(errors[0]).toBeInstanceOf(CommandFailedError);
    expect(errors[1]).toBeInstanceOf(WorkflowFailedError);
    return [none, errors.map(({ reason }) => reason), await child];
  };
  await ran(code, authority);
  expect(authority.sent).toEqual([
    ['order', 'order-f', 'pay', '{"sum":3}', 'fulfil/f~1/send:order.pay/0'],
    ['order', 'order-f', 'pay', '{}', 'mine'],
    ['label', 'fulfil/f~1/start:label/0', '{"weight":2}'],
    ['label', 'l', '{}'],
    ['order', 'o', 'pay', '{}', 'fulfil/f~1/send:order.pay/2'],
  ]);
  const ends: [string, string, string][] = [
    ['send:order.pay', 'failed', 'nobody awaits this one'],
    ['send:order.pay', 'failed', 'no money'],
    ['start:label', 'done', '{"printed":true}'],
    ['start:label', 'failed', 'no paper'],
    ['send:order.pay', 'done', '{"first":null,"last":null}'],
  ];
  for (const [name, state, result] of ends) {
    authority.end('f', name, state, result);
    await settled();
  }
  const result = '[null,["no money","no paper"],{"printed":true}]';
  expect(standing(authority).slice(0, 2)).toEqual(['completed', result]);
  expect(authority.sent).toHaveLength(5);
});

test('what nobody waits for is sent before the run is over', async () => {
  const authority = await ran((ctx) => void ctx.send.order.pay('o'));
  expect(authority.log).toEqual(['f send:order.pay#0 command waiting', 'f completed null']);
});

test('a key that would be too long is another one that is the same each time', async () => {
  const authority = new Authority();
  new Process(authority, (ctx: Context) => void ctx.start.label({}));
  const id = 'i'.repeat(250);
  authority.start(id);
  await settled();
  expect(authority.sent).toEqual([['label', '~1/start:label/0', '{}']]);
});

test('time and chance are the same each time', async () => {
  const authority = new Authority();
  const seen: number[][] = [];
  const code: RunCode = async (ctx) => {
    const of = [ctx.now, ctx.random(), ctx.random()];
    seen.push(of);
    await ctx.step('one', () => {});
    of.push(ctx.now);
    await ctx.sleep(50);
    of.push(ctx.now);
    await ctx.step('two', () => new Promise(() => {}));
  };
  await ran(code, authority);
  authority.pass(60);
  await settled();
  authority.pass(100);
  new Process(authority, code);
  await settled();
  const [first, ...later] = seen as [number[], number[], number[]];
  expect(first).toEqual([500, expect.any(Number), expect.any(Number), 1_000]);
  expect(later).toEqual([
    [...first, 1_060],
    [...first, 1_060],
  ]);
  const other = new Authority();
  const drawn: number[] = [];
  new Process(other, (ctx: Context) => drawn.push(...Array.from({ length: 500 }, ctx.random)));
  other.start('f');
  other.start('g');
  await settled();
  expect(drawn.slice(0, 2)).toEqual(first.slice(1, 3));
  expect(new Set(drawn).size).toBe(1_000);
  expect(drawn.every((it) => it >= 0 && it < 1)).toBe(true);
  const mean = drawn.reduce((sum, it) => sum + it) / drawn.length;
  expect(Math.abs(mean - 0.5)).toBeLessThan(0.05);
});

test('a run that was started by a clock that is ahead has the time of the server', async () => {
  const authority = new Authority();
  authority.startedAt = 9_000_000;
  const seen: number[] = [];
  await ran(async (ctx) => {
    const of = [ctx.now];
    await ctx.step('one', () => {});
    of.push(ctx.now);
    seen.push(...of);
  }, authority);
  expect(seen).toEqual([9_000_000, 1_000]);
});

test('a step that comes to JSON that SQLite does not take fails by itself', async () => {
  const deep = (depth: number): unknown => {
    let value: unknown = 'the text "[" is none';
    for (let nth = 0; nth < depth; nth += 1) value = nth % 2 ? [value] : { value };
    return value;
  };
  const authority = await ran(async (ctx) => {
    await ctx.step('as deep as may be', () => deep(1_000));
    return ctx.step('deeper', () => deep(1_001)).catch((error: Error) => error.message);
  });
  expect(standing(authority)).toEqual(['completed', expect.stringMatching(/deeper than 1000/), 1]);
});

const raise = (text: string): never => {
  throw new Error(text);
};

type Late = (ctx: Context, did: string[]) => unknown;

const asks: Late = (ctx, did) => ctx.step('ask', () => did.push('ask'));
const fails: Late = () => raise('as a digest does');
const asksAndFails: Late = (ctx, did) => {
  void asks(ctx, did);
  return fails(ctx, did);
};

// Each before the attempt is over, and once it is.
test.each<[string[], number, Late]>([
  [['asked for ask'], 100, asks],
  [['asked for ask'], 0, asks],
  [['ended'], 100, () => 7],
  [['ended'], 0, () => 7],
  [['ended'], 100, fails],
  [['ended'], 0, fails],
  // What was thrown is not lost behind what was told before.
  [['asked for ask', 'ended'], 0, asksAndFails],
])(
  'code that awaits something else while a run waits is told so: it %s (%d ms)',
  async (whats, ms, late) => {
    const authority = new Authority();
    const [told, did]: [Error[], string[]] = [[], []];
    let putAway = (): void => {};
    const isPutAway = new Promise<void>((resolve) => {
      putAway = resolve;
    });
    const code = async (ctx: Context): Promise<unknown> => {
      void ctx.sleep('3d');
      await isPutAway;
      await settled();
      return late(ctx, did);
    };
    const onError = (error: unknown): void => void told.push(error as Error);
    const process = new Process(authority, code, { onError });
    process.answersAfterMs = ms;
    process.onAsk = (kind) => {
      if (kind === 'complete') putAway();
    };
    authority.start('f');
    await isPutAway;
    await settled();
    await settled();
    expect(did).toEqual([]);
    expect(told.map(({ message }) => message)).toEqual(
      whats.map((what) => expect.stringContaining(`put away by the time it ${what}: `)),
    );
    const isThrown = late === fails || late === asksAndFails;
    if (isThrown) expect(told.at(-1)!.cause).toEqual(new Error('as a digest does'));
  },
);

test('a run ends whatever its code throws', async () => {
  const odd = new Proxy({}, { getPrototypeOf: () => raise('nothing is said of it') });
  const authority = await ran(async (ctx) => {
    await ctx.step('one', () => Promise.reject(odd), { retries: 0 }).catch(() => {});
    throw odd;
  });
  expect(standing(authority)[0]).toBe('failed');
});

test('a run that goes on as new remembers nothing, and asks by other keys', async () => {
  const authority = new Authority();
  const keys: string[] = [];
  await ran(async (ctx, { order }) => {
    const count = Number(order.split('-').at(-1)) || 0;
    await ctx.request('bill', ({ key }) => void keys.push(key));
    if (count < 2) ctx.continueAsNew({ order: `o-${count + 1}` });
    return order;
  }, authority);
  expect(keys).toEqual(['fulfil/f~1/bill/0', 'fulfil/f~2/bill/0', 'fulfil/f~3/bill/0']);
  expect(standing(authority)).toEqual(['completed', '"o-2"', 1]);
  const wrong = await ran((ctx) => ctx.continueAsNew({ order: 7 }));
  expect(standing(wrong)[1]).toMatch(/argument order has to be a string/);
});

test('a run has failed where its code says so, or lets an error out', async () => {
  const ways: [RunCode, string][] = [
    [(ctx) => ctx.fail('sold out'), 'sold out'],
    [() => Promise.reject(new RangeError('oh')), 'RangeError: oh'],
    [(ctx) => ctx.sleep('soon' as '3d'), expect.stringMatching(/^InvalidOptionError: how long/)],
    [(ctx) => ctx.step('', () => 1), expect.stringMatching(/has a name, a string of 1 to 256/)],
    [
      (ctx) => ctx.waitFor('order', 'o', 'lost' as 'paid'),
      expect.stringMatching(/there is no event lost of order: it has paid,shipped/),
    ],
    [
      (ctx) => ctx.step('a', () => 1, { retries: -1 }),
      expect.stringMatching(/retries of a have to be a whole number/),
    ],
    [() => 1n, expect.stringMatching(/what JSON does not take/)],
  ];
  for (const [code, reason] of ways) {
    const authority = new Authority();
    const process = new Process(authority, code);
    authority.start('f');
    await settled();
    expect(standing(authority)).toEqual(['failed', reason, 1]);
    expect(process.errors).toHaveLength(reason === 'sold out' ? 0 : 1);
  }
});

test('who remembers something else by a name stops until there is code that fits', async () => {
  const authority = await ran(async (ctx) => {
    await ctx.step('one', () => {});
    await ctx.sleep(5);
  });
  const process = new Process(authority, async (ctx: Context) => {
    try {
      await ctx.step('new', () => {});
      await ctx.sleep(5, { name: 'one' });
    } catch (error) {
      expect(error).toBe('never');
    }
  });
  authority.pass(5);
  await settled();
  const [state, reason] = standing(authority);
  expect([state, reason]).toEqual([
    'stopped',
    'it remembers a step as number 0 of one, which is none any more',
  ]);
  const [[error, run]] = process.errors as [(typeof process.errors)[0]];
  expect(error).toBeInstanceOf(WorkflowMismatchError);
  expect(error).toMatchObject({ workflow: 'fulfil', id: 'f', code: 'workflow-mismatch' });
  expect(run).toMatchObject({ id: 'f', attempt: 2 });
  // A release that fits goes on with what the other one has recorded.
  authority.runs.get('f')!.state = 'ready';
  new Process(authority, async (ctx: Context) => {
    await ctx.step('one', () => 'not again');
    await ctx.sleep(5);
  });
  await settled();
  expect(standing(authority)[0]).toBe('completed');
});

test('steps may come, go and move between releases', async () => {
  const authority = await ran(async (ctx) => {
    await ctx.step('one', () => 1);
    await ctx.step('two', () => 2);
    await ctx.sleep(5);
  });
  new Process(authority, async (ctx: Context) => {
    const two = await ctx.step('two', () => 20);
    const three = await ctx.step('three', () => 30);
    await ctx.sleep(5);
    return [two, three];
  });
  authority.pass(5);
  await settled();
  expect(standing(authority)).toEqual(['completed', '[2,30]', 2]);
});

test('a run remembers 10,000 things and no more, and is told what to do', async () => {
  const authority = new Authority();
  new Process(authority, async (ctx: Context) => {
    for (let at = 0; at < 10_001; at += 1) ctx.send.order.pay('o');
    await ctx.sleep(1);
  });
  authority.start('f');
  await settled(200);
  expect(authority.sent).toHaveLength(10_000);
  expect(standing(authority).slice(0, 2)).toEqual([
    'failed',
    'it has 10000 records: let it go on by continueAsNew()',
  ]);
}, 120_000);

test('a run that goes on as new says which of its records its code was told of', async () => {
  for (const isOneEnough of [true, false]) {
    const authority = new Authority();
    const code: RunCode = async (ctx, { order }) => {
      if (order === 'next') return order;
      const waits = ['o', 'p'].map((of) => ctx.waitFor('order', of, 'shipped'));
      await (isOneEnough ? Promise.race(waits) : Promise.all(waits));
      return ctx.continueAsNew({ order: 'next' });
    };
    await ran(code, authority);
    authority.kill();
    const { records } = authority.runs.get('f')!;
    for (const stream of ['p', 'o']) authority.record(stream, 'shipped', { by: 'van' });
    new Process(authority, code);
    await settled();
    expect(standing(authority).slice(0, 2)).toEqual(['completed', '"next"']);
    expect(authority.log).toContain('f continued {"order":"next"}');
    const [one, two] = records.map(({ record }) => record);
    expect([two, authority.continuedAt]).toEqual([one! + 1, isOneEnough ? one : two]);
  }
});

test('a run that is cancelled hears of it once, and can put things right', async () => {
  const authority = new Authority();
  const heard: unknown[] = [];
  const code: RunCode = async (ctx) => {
    const label = await ctx.step('label', () => 'l');
    try {
      await Promise.all([ctx.sleep('3d'), ctx.waitFor('order', 'o', 'shipped')]);
    } catch (error) {
      heard.push(error);
      await ctx.sleep(10, { name: 'a while' });
      await ctx.step('tear up', () => heard.push(label));
      throw error;
    }
  };
  await ran(code, authority);
  authority.cancel('f');
  await settled();
  expect(standing(authority)).toEqual(['suspended', null, 2]);
  authority.pass(10);
  await settled();
  expect(standing(authority)).toEqual(['cancelled', '', 3]);
  expect(heard).toEqual([expect.any(WorkflowCancelledError), expect.anything(), 'l']);
  expect(heard[0]).toMatchObject({ workflow: 'fulfil', id: 'f', code: 'workflow-cancelled' });
  const { records } = authority.runs.get('f')!;
  expect(records.map(({ name, kind, state }) => [name, kind, state])).toEqual([
    ['label', 'step', 'done'],
    ['sleep', 'cancel', 'failed'],
    ['waitFor:order.shipped', 'event', 'waiting'],
    ['a while', 'sleep', 'done'],
    ['tear up', 'step', 'done'],
  ]);
});

test('a run that is cancelled amid a step hears of it in what it does next', async () => {
  const authority = new Authority();
  let end: (() => void) | undefined;
  let isBegun = false;
  await ran(async (ctx) => {
    await ctx.step('one', () => new Promise<void>((resolve) => (end = resolve)));
    await ctx.step('two', () => {
      isBegun = true;
    });
  }, authority);
  authority.cancel('f');
  await settled();
  end!();
  await settled();
  expect([standing(authority)[0], isBegun]).toEqual(['cancelled', false]);
  expect(authority.log.slice(0, 2)).toEqual(['f one#0 step done', 'f two#0 cancel failed']);

  // One that waits beside a step hears of it at once; and who catches it has completed.
  const other = await ran(async (ctx) => {
    const long = ctx.step('long', () => new Promise<string>(() => {}));
    return Promise.race([long, ctx.sleep('1h')]).catch(() => 'gave up');
  });
  other.cancel('f');
  await settled();
  expect(standing(other)).toEqual(['completed', '"gave up"', 1]);
});

test('a cancelled run hears of it where it waits, and does what it leaves to itself', async () => {
  for (const isCancelledBefore of [false, true]) {
    const authority = new Authority();
    let end: (() => void) | undefined;
    const heard: string[] = [];
    const code: RunCode = async (ctx) => {
      await ctx.step('one', () => new Promise<void>((resolve) => (end = resolve)));
      void ctx.send.order.pay('o', { sum: 1 });
      const left = ctx.sleep('1h', { name: 'left' });
      const later = ctx.sleep('2h', { name: 'later' });
      // It hears of it here, and has asked for all of them by then.
      await Promise.race([later.catch((error) => heard.push(error.name)), later]);
      void left;
      return 'put right';
    };
    await ran(code, authority);
    if (isCancelledBefore) authority.cancel('f');
    await settled();
    end!();
    await settled();
    if (!isCancelledBefore) authority.cancel('f');
    await settled();
    const { records } = authority.runs.get('f')!;
    expect(records.map(({ name, kind }) => [name, kind])).toEqual([
      ['one', 'step'],
      ['send:order.pay', 'command'],
      ['left', 'sleep'],
      ['later', isCancelledBefore ? 'cancel' : expect.stringMatching(/cancel|sleep/)],
    ]);
    expect(heard).toEqual(['WorkflowCancelledError']);
    expect(authority.sent).toHaveLength(1);
  }
});

test('what has lost a race does not hear in place of the code that it is cancelled', async () => {
  for (const isAmidStep of [false, true]) {
    const authority = new Authority();
    const heard: string[] = [];
    let end: (() => void) | undefined;
    const code: RunCode = async (ctx) => {
      await Promise.race([ctx.step('quick', () => 1), ctx.sleep('7d', { name: 'deadline' })]);
      if (isAmidStep) await ctx.step('long', () => new Promise<void>((done) => (end = done)));
      await ctx.sleep('1h', { name: 'later' }).catch((error) => {
        heard.push(error.name);
        throw error;
      });
    };
    await ran(code, authority);
    authority.cancel('f');
    await settled();
    end?.();
    await settled();
    expect([heard, standing(authority)[0]]).toEqual([['WorkflowCancelledError'], 'cancelled']);
    const { records } = authority.runs.get('f')!;
    expect(records.find(({ kind }) => kind === 'cancel')!.name).toBe('later');
    expect(records.find(({ name }) => name === 'deadline')!.state).toBe('waiting');
  }
});

test('what wins a race as a run is cancelled leaves that to what comes next', async () => {
  const authority = new Authority();
  let end: (() => void) | undefined;
  await ran(async (ctx) => {
    const quick = ctx.step('quick', () => new Promise<void>((done) => (end = done)));
    await Promise.race([quick, ctx.sleep('7d', { name: 'deadline' })]);
    await ctx.step('next', () => 1);
  }, authority);
  // It has ended as the run is cancelled, and nobody was told that yet.
  end!();
  authority.cancel('f');
  await settled();
  expect(standing(authority)[0]).toBe('cancelled');
  const { records } = authority.runs.get('f')!;
  expect(records.map(({ name, kind }) => [name, kind])).toEqual([
    ['deadline', 'sleep'],
    ['quick', 'step'],
    ['next', 'cancel'],
  ]);
});

test('what is left to a catch does not hear in place of the code of a cancel', async () => {
  for (const isAmidTwo of [false, true]) {
    const authority = new Authority();
    const ends: (() => void)[] = [];
    const code: RunCode = async (ctx) => {
      await ctx.step('one', () => new Promise<void>((end) => ends.push(end)));
      ctx.send.order.pay('o', { sum: 1 }).catch(() => {});
      await ctx.step('two', () => new Promise<void>((end) => ends.push(end)));
      await ctx.step('three', () => 3);
    };
    await ran(code, authority);
    for (const cancels of [!isAmidTwo, isAmidTwo]) {
      if (cancels) authority.cancel('f');
      await settled();
      ends.shift()?.();
      await settled();
    }
    expect([standing(authority)[0], authority.sent.length]).toEqual(['cancelled', 1]);
    const { records } = authority.runs.get('f')!;
    expect(records.find(({ kind }) => kind === 'cancel')!.name).toBe(isAmidTwo ? 'three' : 'two');
  }
});

test('what a cancelled run has left to itself is done though it ends at once', async () => {
  const authority = new Authority();
  let end: (() => void) | undefined;
  await ran(async (ctx) => {
    await ctx.step('one', () => new Promise<void>((resolve) => (end = resolve)));
    void ctx.send.order.pay('o', { sum: 1 });
    return 'done';
  }, authority);
  authority.cancel('f');
  await settled();
  end!();
  await settled();
  expect(standing(authority).slice(0, 2)).toEqual(['completed', '"done"']);
  expect(authority.sent).toHaveLength(1);
});

test('a begun request is asked once more, and then its run hears of a cancel', async () => {
  const authority = new Authority();
  const keys: string[] = [];
  const code: RunCode = async (ctx) => {
    await ctx.request('pay', ({ key }) => {
      keys.push(key);
      return keys.length === 1 ? new Promise(() => {}) : 'paid';
    });
    await ctx.step('ship', () => 'shipped');
  };
  await ran(code, authority);
  authority.kill();
  authority.cancel('f');
  new Process(authority, code);
  await settled();
  expect([keys.length, new Set(keys).size, standing(authority)[0]]).toEqual([2, 1, 'cancelled']);
  const known = authority.runs.get('f')!.records.map(({ name, kind }) => `${name} ${kind}`);
  expect(known).toEqual(['pay request', 'ship cancel']);
});

test('what was begun is asked once more also beside what could hear of a cancel', async () => {
  for (const isBegunLast of [false, true]) {
    const authority = new Authority();
    const pending: RunCode = (ctx) => ctx.request('pay', () => new Promise(() => {}));
    await ran(pending, authority);
    authority.kill();
    authority.cancel('f');
    let end: (() => void) | undefined;
    const pay = () => new Promise<void>((it) => (end = it));
    new Process(authority, (ctx: Context) => {
      const asks = [() => ctx.request('pay', pay), () => ctx.sleep('1h')];
      return Promise.all((isBegunLast ? asks.reverse() : asks).map((ask) => ask()));
    });
    await settled();
    expect([typeof end, standing(authority)[0]]).toEqual(['function', 'started']);
    end!();
    await settled();
    expect(standing(authority)[0]).toBe('cancelled');
    const { records } = authority.runs.get('f')!;
    const known = records.map((it) => `${it.name} ${it.kind} ${it.state}`);
    expect(known).toEqual(['pay request done', 'sleep cancel failed']);
  }
});

test('runs that were asked for before a cancel is heard are begun before that', async () => {
  const authority = new Authority();
  const code = (ctx: Context) =>
    Promise.all([ctx.start.label({ weight: 1 }), ctx.start.label({ weight: 2 })]);
  authority.start('f');
  authority.cancel('f');
  new Process(authority, code);
  await settled();
  const isAbout = (it: string) => it.includes('start:');
  expect(authority.log.filter(isAbout).map((it) => it.split(' ').slice(1, 3))).toEqual([
    ['start:label#1', 'workflow'],
    ['start:label#0', 'cancel'],
  ]);
});

test('an attempt that somebody else has says nothing more', async () => {
  const authority = new Authority();
  let end: (() => void) | undefined;
  const process = new Process(authority, (ctx: Context) =>
    ctx.step('one', () => new Promise<void>((resolve) => (end = resolve))),
  );
  authority.start('f');
  await settled();
  authority.runs.get('f')!.attempt = 2;
  end!();
  await settled();
  expect([authority.log, process.errors]).toEqual([[], []]);
});

test('runs of each version are given to the code of that version', async () => {
  const authority = new Authority();
  const seen: number[] = [];
  const code = (of: number) => (ctx: Context) => void seen.push(of, ctx.version);
  new Process(authority, { 1: code(1), 2: code(2) });
  authority.start('f', { version: '1' });
  authority.start('g');
  await settled();
  expect(seen).toEqual([1, 1, 2, 2]);
  const wrong: [unknown, RegExp][] = [
    [{ 3: code(3) }, /fulfil has no version 3: it has 1 to 2/],
    [{ one: code(1) }, /fulfil has no version one/],
    [{ 1: 7 }, /what runs version 1 of fulfil has to be a function/],
    [{}, /fulfil has to be given a function/],
    [undefined, /fulfil has to be given a function/],
  ];
  for (const [handlers, text] of wrong) {
    expect(() => new Process(new Authority(), handlers)).toThrow(text);
    expect(() => new Process(new Authority(), handlers)).toThrow(InvalidOptionError);
  }
  const { handle } = DEPOT.workflows!.fulfil[EVENTS]!;
  const { document } = new Process(new Authority(), () => {});
  expect(() => handle(document, ['fulfill', () => {}])).toThrow(/depot has no workflow fulfill/);
});

test('who closes lets a run come to rest, and begins none', async () => {
  const authority = new Authority();
  let end: (() => void) | undefined;
  const process = new Process(authority, async (ctx: Context) => {
    await ctx.step('one', () => new Promise<void>((resolve) => (end = resolve)));
    await ctx.sleep(1);
  });
  authority.start('f');
  await settled();
  let isClosed = false;
  const closed = process.handling.close().then(() => {
    isClosed = true;
  });
  await settled();
  expect(isClosed).toBe(false);
  end!();
  await closed;
  expect(standing(authority)).toEqual(['suspended', null, 1]);
});
